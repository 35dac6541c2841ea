"""Image-classification sets held in memory."""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bort_jax.train.errors import DataError

_INFO = 'dataset_info.json'
_CHUNK = 2000  # pictures decoded at a time


class Dataset(NamedTuple):
  """A data set as arrays: pictures in 0 … 255, and their classes."""

  name: str
  train_images: np.ndarray  # (N, H, W, C) uint8
  train_labels: np.ndarray  # (N,) int32
  test_images: np.ndarray  # (M, H, W, C) uint8
  test_labels: np.ndarray  # (M,) int32
  num_classes: int


def load_dataset(
  name: str = 'digits', data_dir: str | pathlib.Path | None = None
) -> Dataset:
  """Loads a data set; never downloads one.

  Args:
    name: ``digits``, the 1,797 handwritten digits of 8×8 pixels that come with
      scikit-learn (every fifth is a test picture); or the name of any TFDS
      image-classification set prepared as ArrayRecord, whose pictures have one
      size. TensorFlow is not needed to read it.
    data_dir: the TFDS directory; by default ``$TFDS_DATA_DIR``, else
      ``~/tensorflow_datasets``. ``digits`` needs none.

  Returns:
    The data set.

  Raises:
    DataError: if the set is not there or cannot be read; says where it was
      sought and how to prepare it.

  Examples:
    >>> from bort_jax.train import load_dataset
    >>> digits = load_dataset('digits')
    >>> digits.train_images.shape, digits.test_images.shape
    ((1437, 8, 8, 1), (360, 8, 8, 1))
  """
  if name == 'digits':
    return _load_digits()
  return _load_tfds(name, data_dir)


def batches(
  images: np.ndarray,
  labels: np.ndarray,
  batch_size: int,
  seed: int | Sequence[int],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Full batches of one shuffled pass; the rest of the pass is left out."""
  order = np.random.default_rng(seed).permutation(len(labels))
  for start in range(0, len(order) - batch_size + 1, batch_size):
    chosen = order[start : start + batch_size]
    yield images[chosen], labels[chosen]


def padded_batches(
  images: np.ndarray, labels: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """All pictures in order; the last batch is padded and masked."""
  for start in range(0, len(labels), batch_size):
    x, y = (a[start : start + batch_size] for a in (images, labels))
    missing = batch_size - len(y)
    mask = np.arange(batch_size) < len(y)
    x = np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))
    yield x, np.pad(y, (0, missing)), mask


def _load_digits() -> Dataset:
  from sklearn.datasets import load_digits

  digits: Any = load_digits()
  images = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
  labels = digits.target.astype(np.int32)
  is_test = np.arange(len(labels)) % 5 == 0
  return Dataset(
    'digits',
    images[~is_test],
    labels[~is_test],
    images[is_test],
    labels[is_test],
    10,
  )


def _load_tfds(name: str, data_dir: str | pathlib.Path | None) -> Dataset:
  import tensorflow_datasets as tfds

  default = os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets')
  directory = pathlib.Path(data_dir or default).expanduser()
  # Looked for here: TFDS itself would try to download it, for minutes.
  versions = sorted(directory.glob(f'{name}/**/{_INFO}'))
  if not versions:
    raise DataError(_absent(name, directory))
  builder: Any = tfds.builder_from_directory(str(versions[-1].parent))
  _check_readable(name, builder)
  train = _read_split(builder, 'train')
  test = _read_split(
    builder, 'test' if 'test' in builder.info.splits else 'validation'
  )
  classes = builder.info.features['label'].num_classes
  return Dataset(name, *train, *test, classes)


def _absent(name: str, directory: pathlib.Path) -> str:
  sets = {
    path.relative_to(directory).parts[0]
    for path in directory.glob(f'*/**/{_INFO}')
  }
  there = ', '.join(sorted(sets)) or 'no data set'
  return (
    f'Data set {name!r} is not in {directory}, which holds {there}. Give'
    ' another TFDS directory with --data-dir or TFDS_DATA_DIR. A set is'
    ' prepared once, where there are TensorFlow and a network, by'
    f" tfds.builder({name!r}, file_format='array_record')"
    '.download_and_prepare(). --data digits needs no download.'
  )


def _check_readable(name: str, builder: Any) -> None:
  file_format = getattr(builder.info.file_format, 'value', None)
  features, splits = builder.info.features, builder.info.splits
  if file_format != 'array_record':
    problem = (
      f'it is stored as {file_format}, and only array_record can be read at'
      " random without TensorFlow: prepare it with file_format='array_record'"
    )
  elif not {'image', 'label'} <= set(features):
    problem = (
      f'its features are {", ".join(features)}, and classification needs image'
      ' and label'
    )
  elif None in features['image'].shape:
    problem = (
      f'its pictures differ in size ({features["image"].shape}), and only'
      ' pictures of one size are held in memory'
    )
  elif 'train' not in splits or not {'test', 'validation'} & set(splits):
    problem = (
      f'its splits are {", ".join(splits)}, and train and test (or validation)'
      ' are needed'
    )
  else:
    return
  raise DataError(
    f'Data set {name!r} in {builder.data_dir} cannot be used: {problem}.'
  )


def _read_split(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
  source = builder.as_data_source(split=split)
  images = np.empty(
    (len(source), *builder.info.features['image'].shape), np.uint8
  )
  labels = np.empty(len(source), np.int32)
  for start in range(0, len(source), _CHUNK):
    rows = range(start, min(start + _CHUNK, len(source)))
    for row, example in zip(rows, source.__getitems__(list(rows)), strict=True):
      images[row], labels[row] = example['image'], example['label']
  return images, labels
