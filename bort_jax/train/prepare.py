"""Data sets written once as ArrayRecord, in TFDS's own layout."""

import difflib
import importlib.util
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from bort_jax.train import prepared, small_sets
from bort_jax.train.archives import Progress, fetch
from bort_jax.train.errors import DataError
from bort_jax.train.small_sets import Contents, Split

_REPORT_EVERY = 1000  # pictures


def prepare(
  name: str,
  data_dir: str | os.PathLike[str] | None = None,
  source: str | os.PathLike[str] | None = None,
  *,
  progress: Progress = lambda stage, done, total: None,
) -> pathlib.Path:
  """Writes a data set as ArrayRecord, which is read without TensorFlow.

  ``mnist``, ``fashion_mnist``, ``kmnist``, ``cifar10`` and ``cifar100`` are
  made from the published archives without TensorFlow: the result has the name,
  version, features and order of TFDS's own. Every other set is left to TFDS,
  which needs TensorFlow for it. The set appears whole or not at all.

  Args:
    name: TFDS's name of the set.
    data_dir: the TFDS directory; by default ``$TFDS_DATA_DIR``, else
      ``~/tensorflow_datasets``. Downloads are kept in its ``downloads``.
    source: a directory that holds the published archives; by default they are
      downloaded. Downloads must have the published checksums. Archives from
      here may have been compressed anew, so they are checked for being whole.
    progress: called with what is being done, how much of it is done and how
      much there is to do (0 if that is not known).

  Returns:
    The directory of the set's version. A set that is there already is left as
    it is; one that is half-written is replaced.

  Raises:
    DataError: if the set is unknown, there in another format, or cannot be
      downloaded or written; says what to do.

  Examples:
    >>> from bort_jax.train.prepare import prepare
    >>> prepare('mnist', '/data/tfds')  # doctest: +SKIP
    PosixPath('/data/tfds/mnist/3.0.1')
  """
  import tensorflow_datasets as tfds

  root = prepared.directory(data_dir)
  if name not in small_sets.NAMES:
    return _prepare_with_tensorflow(name, root, source, progress)
  stock: Any = tfds.builder_cls(name)
  target = root / name / str(stock.VERSION)
  if _is_there(f'{name}:{stock.VERSION}', root, progress):
    return target
  files = _locate(name, stock.url_infos, root, source, progress)
  try:
    _write(stock, small_sets.read(name, files), target, progress)
  except OSError as error:
    raise DataError(
      f'{target} could not be written ({error}). Nothing half-written was left'
      ' there; make room, or choose another directory with --data-dir.'
    ) from error
  return target


def _is_there(name: str, root: pathlib.Path, progress: Progress) -> bool:
  """Whether a set is there and whole; raises if it has another format."""
  try:
    path = prepared.find(name, root)
    builder = prepared.open_set(name, root)
    prepared.check_splits(builder, builder.info.splits)
  except prepared.NotPreparedError:
    return False
  progress(f'{path} is there already', 1, 1)
  return True


def _locate(
  name: str,
  url_infos: Any,
  root: pathlib.Path,
  source: str | os.PathLike[str] | None,
  progress: Progress,
) -> dict[str, pathlib.Path]:
  """The published archives by their names, downloaded if no source is given."""
  if source is None:
    paths = [
      fetch(url, info.checksum, root / 'downloads' / name, progress)
      for url, info in url_infos.items()
    ]
    return {path.name: path for path in paths}
  files = {}
  for url in url_infos:
    file = pathlib.Path(source).expanduser() / url.rpartition('/')[2]
    if not file.is_file():
      raise DataError(
        f'{file} is not there, which data set {name!r} is made from. It is'
        f' published at {url}.'
      )
    files[file.name] = file
  return files


def _write(
  stock: Any, contents: Contents, target: pathlib.Path, progress: Progress
) -> None:
  """Writes a set beside its place and moves it there when it is whole."""
  root = target.parents[1]
  root.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix='.prepare-', dir=root) as staging:
    builder = _builder(stock, contents, progress)(
      data_dir=staging, file_format='array_record'
    )
    _check(builder, contents)
    _run(builder)
    if target.exists():  # half-written
      target.rename(pathlib.Path(staging) / 'replaced')
    target.parent.mkdir(exist_ok=True)
    builder.data_path.rename(target)


def _builder(stock: Any, contents: Contents, progress: Progress) -> Any:
  """TFDS's own builder, but for where the examples come from."""

  class Builder(stock, skip_registration=True):  # pyright: ignore
    name = stock.name

    # What TFDS prints about downloads, of which there are none.
    def _log_download_bytes(self):
      pass

    _log_download_done = _log_download_bytes

    def _split_generators(self, dl_manager):
      del dl_manager
      for feature, names in contents.label_names.items():
        self.info.features[feature].names = names
      return {
        name: _examples(stock.name, name, split, progress)
        for name, split in contents.splits.items()
      }

  return Builder


def _examples(
  name: str, split_name: str, split: Split, progress: Progress
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Examples under the keys that TFDS gives them, which decide their order."""
  import PIL.Image

  count = len(split.images)
  for index, image in enumerate(split.images):
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    example: dict[str, Any] = {
      feature: int(column[index]) for feature, column in split.labels.items()
    }
    # TFDS encodes arrays with TensorFlow, and pictures of PIL without.
    example['image'] = PIL.Image.fromarray(pixels)
    if split.has_ids:
      example['id'] = f'{split_name}_{index:05d}'
    yield index, example
    if (index + 1) % _REPORT_EVERY == 0 or index + 1 == count:
      progress(f'writing {name} {split_name}', index + 1, count)


def _check(builder: Any, contents: Contents) -> None:
  """Raises DataError if the archives do not hold what the features say."""
  features = builder.info.features
  for split_name, (images, labels, _) in contents.splits.items():
    where = f'The archives of {builder.name} ({split_name})'
    if images.shape[1:] != features['image'].shape:
      raise DataError(
        f'{where} hold pictures of shape {images.shape[1:]}, and'
        f' {features["image"].shape} belong there: they are of another set.'
      )
    for feature, column in labels.items():
      classes = features[feature].num_classes
      if len(column) != len(images) or column.max(initial=0) >= classes:
        raise DataError(
          f'{where} hold {len(images)} pictures and {len(column)} labels up to'
          f' {column.max(initial=0)}, and one of {classes} classes belongs to'
          ' each picture. Download them again.'
        )
  for feature, names in contents.label_names.items():
    if len(names) != features[feature].num_classes:
      raise DataError(
        f'The archives of {builder.name} name {len(names)} classes of'
        f' {feature}, and there are {features[feature].num_classes}. Download'
        ' them again.'
      )


def _run(builder: Any) -> None:
  """Prepares a set in silence and without a look at TFDS's bucket."""
  import tensorflow_datasets as tfds

  config = tfds.download.DownloadConfig(try_download_gcs=False)
  tfds.display_progress_bar(False)
  try:
    builder.download_and_prepare(download_config=config)
  finally:
    tfds.display_progress_bar(True)


def _prepare_with_tensorflow(
  name: str,
  root: pathlib.Path,
  source: str | os.PathLike[str] | None,
  progress: Progress,
) -> pathlib.Path:
  import tensorflow_datasets as tfds

  known = tfds.list_builders(with_community_datasets=False)
  base = name.partition(':')[0].partition('/')[0]
  if base not in known:
    near = difflib.get_close_matches(base, known, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise DataError(f'TFDS knows no data set {base!r}.{hint}')
  if _is_there(name, root, progress):
    return prepared.find(name, root)
  call = (
    f"tfds.builder({name!r}, data_dir='{root}', file_format='array_record')"
    '.download_and_prepare()'
  )
  if not importlib.util.find_spec('tensorflow'):
    raise DataError(
      f'To write data set {name!r}, TFDS needs TensorFlow, once; to train, it'
      ' does not. Install it, here or in another environment (pip install'
      ' tensorflow tensorflow-datasets), and run this command again there, or:'
      f' python -c "import tensorflow_datasets as tfds; {call}"'
    )
  config = tfds.download.DownloadConfig(
    manual_dir=None if source is None else os.fspath(source)
  )
  try:
    tfds.builder(
      name, data_dir=str(root), file_format='array_record'
    ).download_and_prepare(download_config=config)
  except Exception as error:  # whatever the builder of that set raises
    raise DataError(f'TFDS could not prepare {name!r}: {error}') from error
  return prepared.find(name, root)
