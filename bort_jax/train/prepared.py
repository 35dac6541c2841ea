"""Data sets that TFDS has prepared: found, checked and opened.

TFDS answers a set that is missing, half-written or in another format by a
search on the network, by an error about something else, or (parquet) by reading
the whole set where a part was asked for. So everything is checked here first.
"""

import concurrent.futures
import difflib
import os
import pathlib
import re
from collections.abc import Iterable
from typing import Any

from bort_jax.train import small_sets
from bort_jax.train.errors import DataError

INFO = 'dataset_info.json'
_VERSION = re.compile(r'\d+\.\d+\.\d+')


class NotPreparedError(DataError):
  """A set that is absent or half-written; preparing it is the remedy."""


def directory(data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
  """The TFDS directory: the given one, else the environment's, else TFDS's."""
  default = os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets')
  return pathlib.Path(data_dir or default).expanduser()


def find(
  name: str, data_dir: str | os.PathLike[str] | None = None
) -> pathlib.Path:
  """Finds the directory of a prepared set; never looks on the network.

  Args:
    name: TFDS's name: ``mnist``, with a configuration ``emnist/balanced``, with
      a version ``mnist:3.0.1``. By default the newest version there is.
    data_dir: the TFDS directory; see :func:`directory`.

  Returns:
    The directory of that version of the set.

  Raises:
    DataError: if the set is absent, half-written, there in other versions only,
      or in several configurations of which none is named.
  """
  root, (name, _, version) = directory(data_dir), name.partition(':')
  complete = [path for path in _versions(root, name) if (path / INFO).exists()]
  if not complete:
    raise NotPreparedError(_absent(name, root))
  configs = sorted({str(path.parent.relative_to(root)) for path in complete})
  if len(configs) > 1:
    raise DataError(
      f'Data set {name!r} is in {root} in {len(configs)} configurations. Name'
      f' one of them: {", ".join(configs)}.'
    )
  chosen = [path for path in complete if path.name == (version or path.name)]
  if not chosen:
    there = ', '.join(path.name for path in complete)
    raise NotPreparedError(
      f'Data set {name!r} is in {root} in version {there}, and version'
      f' {version} was asked for. Leave the version out, or give a TFDS'
      ' directory that holds it with --data-dir or TFDS_DATA_DIR.'
    )
  return max(chosen, key=_version_number)


def open_set(name: str, data_dir: str | os.PathLike[str] | None = None) -> Any:
  """Opens a prepared image-classification set for reading without TensorFlow.

  Args:
    name: as of :func:`find`.
    data_dir: the TFDS directory; see :func:`directory`.

  Returns:
    TFDS's builder of the set; ``builder.as_data_source(split=…)`` reads it.

  Raises:
    DataError: if the set cannot be found, see :func:`find`; is not stored as
      array_record; or has not one 8-bit picture and one class in each example.
  """
  import tensorflow_datasets as tfds

  root, path = directory(data_dir), find(name, data_dir)
  try:
    builder: Any = tfds.builder_from_directory(str(path))
  except Exception as error:  # TFDS's own, protobuf's, json's, the system's
    raise NotPreparedError(
      f'Data set {name!r} in {path} cannot be opened: its {INFO} or'
      f' features.json is damaged ({error}). {_prepare(name, root)}'
    ) from error
  problem = _unreadable(builder)
  if problem:
    raise DataError(f'Data set {name!r} in {path} cannot be used: {problem}.')
  return builder


def chosen_splits(
  builder: Any, train: str = 'train', test: str | None = None
) -> tuple[str, str]:
  """The splits to train and to evaluate on.

  Args:
    builder: of :func:`open_set`.
    train: a split or a part of one.
    test: likewise; by default test if its labels are public, else validation:
      those of ImageNet's test pictures are all −1.

  Returns:
    Both.

  Raises:
    DataError: if there is no such split.
  """
  splits = builder.info.splits
  named = {_whole(part) for s in (train, test) if s for part in s.split('+')}
  if named - set(splits) or (
    test is None and not {'test', 'validation'} & set(splits)
  ):
    raise DataError(
      f'Data set {builder.info.name!r} cannot be used: its splits are'
      f' {", ".join(splits)}, and {train} and {test or "test (or validation)"}'
      ' are needed. Choose others with --train-split and --test-split, such as'
      ' validation[:90%] and validation[90%:].'
    )
  if test is not None:
    return train, test
  if 'validation' not in splits:
    return train, 'test'
  labelled = 'test' in splits and _labelled(builder)
  return train, 'test' if labelled else 'validation'


def _whole(split: str) -> str:
  """The name of the split that a part is of."""
  return split.partition('[')[0]


def _labelled(builder: Any) -> bool:
  import tensorflow_datasets as tfds

  check_splits(builder, ['test'])
  undecoded = {'image': tfds.decode.SkipDecoding()}
  test = builder.as_data_source(split='test', decoders=undecoded)
  return test[0]['label'] >= 0


def check_splits(builder: Any, splits: Iterable[str]) -> None:
  """Checks that splits are there and their files complete.

  Args:
    builder: of :func:`open_set`.
    splits: splits or parts of splits, ``'train[:90%]'``.

  Raises:
    DataError: if a split is unknown or empty, or a file is missing or holds
      another number of examples than it should.
  """
  for split in splits:
    shards = _shards(builder, split)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      counts = list(pool.map(_count, [shard.filename for shard in shards]))
    for shard, count in zip(shards, counts, strict=True):
      if count != shard.examples_in_shard:
        what = 'is missing' if count is None else f'holds {count} examples'
        name = builder.info.full_name.rpartition('/')[0]
        root = builder.data_path.parents[name.count('/') + 1]
        raise NotPreparedError(
          f'Data set {name!r} is half-written: {shard.filename} {what}, and'
          f' {shard.examples_in_shard} belong in it. {_prepare(name, root)}'
        )


def _versions(root: pathlib.Path, name: str) -> list[pathlib.Path]:
  """Directories of versions, complete or not, of a set or a configuration."""
  found = [*root.glob(f'{name}/*'), *root.glob(f'{name}/*/*')]
  return sorted(
    (path for path in found if _VERSION.fullmatch(path.name)),
    key=_version_number,
  )


def _version_number(path: pathlib.Path) -> tuple[int, ...]:
  return tuple(map(int, path.name.split('.')))


def _absent(name: str, root: pathlib.Path) -> str:
  if _versions(root, name) or any(root.glob(f'{name}/**/*.incomplete*')):
    return (
      f'Data set {name!r} in {root / name} is half-written: it has no {INFO},'
      f' which is written last. {_prepare(name, root)}'
    )
  sets = {
    path.relative_to(root).parts[0]
    for depth in ('*/*', '*/*/*')
    for path in root.glob(f'{depth}/{INFO}')
  }
  there = ', '.join(sorted(sets)) or 'no data set'
  known = sorted({'digits', *sets, *small_sets.NAMES})
  near = difflib.get_close_matches(name, known, n=1)
  hint = f' Did you mean {near[0]!r}?' if near and name not in known else ''
  return (
    f'Data set {name!r} is not in {root}, which holds {there}.{hint} Give'
    ' another TFDS directory with --data-dir or TFDS_DATA_DIR, or prepare the'
    f' set once. {_prepare(name, root)} --data digits needs no download.'
  )


def _prepare(name: str, root: pathlib.Path) -> str:
  name = name.partition(':')[0]
  return f'Prepare it with: bort-jax prepare {name} --data-dir {root}.'


def _unreadable(builder: Any) -> str | None:
  """What is wrong with the format or the features, if anything."""
  file_format = getattr(builder.info.file_format, 'value', None)
  features = builder.info.features
  if file_format != 'array_record':
    return (
      f'it is stored as {file_format}, of which parts cannot be read without'
      ' TensorFlow. Prepare it as array_record in another directory: bort-jax'
      f' prepare {builder.info.name} --data-dir DIRECTORY'
    )
  if not {'image', 'label'} <= set(features):
    return (
      f'its features are {", ".join(features)}, and classification needs image'
      ' and label'
    )
  image, label = features['image'], features['label']
  if len(image.shape or ()) != 3 or image.np_dtype != 'uint8':
    return (
      f'its pictures are {image.np_dtype} of shape {image.shape}, and 8-bit'
      ' pictures (height, width, channels) are needed'
    )
  if image.shape[-1] not in (1, 3):
    return (
      f'its pictures have {image.shape[-1]} channels, and only grey (1) and'
      ' colour (3) are read'
    )
  if not hasattr(label, 'num_classes'):
    return 'its label is not one class of a known number of classes'
  return None


def _shards(builder: Any, split: str) -> Any:
  where = f'data set {builder.name!r} in {builder.data_path}'
  try:
    shards = builder.info.splits[split].file_instructions
  except (KeyError, ValueError, AssertionError) as error:
    raise DataError(
      f'There is no split {split!r} in {where}, whose splits are'
      f" {', '.join(builder.info.splits)}. Parts are written 'train[:90%]'."
    ) from error
  if not shards:
    raise DataError(f'Split {split!r} of {where} is empty. Choose another.')
  return shards


def _count(filename: str) -> int | None:
  """The number of records in a file: None if absent, 0 if damaged."""
  from array_record.python.array_record_module import ArrayRecordReader

  if not os.path.exists(filename):
    return None
  try:
    reader = ArrayRecordReader(filename)
    count = reader.num_records()
    reader.close()
  except RuntimeError:  # "Corrupted Riegeli/records file"
    return 0
  return count
