"""Image-classification sets held in memory."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bort_jax.train import prepared
from bort_jax.train.errors import DataError
from bort_jax.train.pictures import decode, to_array

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
  name: str = 'digits',
  data_dir: str | pathlib.Path | None = None,
  train_split: str = 'train',
  test_split: str | None = None,
) -> Dataset:
  """Loads a data set; never downloads one.

  Args:
    name: ``digits``, the 1,797 handwritten digits of 8×8 pixels that come with
      scikit-learn (360, drawn once, are test pictures); or the name of any TFDS
      image-classification set prepared as ArrayRecord, whose pictures have one
      size. TensorFlow is not needed to read it.
    data_dir: the TFDS directory; by default ``$TFDS_DATA_DIR``, else
      ``~/tensorflow_datasets``. ``digits`` needs none.
    train_split: part to train on, as TFDS writes it, such as ``train[:90%]``;
      not of ``digits``.
    test_split: part to evaluate on; by default test or, where that has no
      labels, validation.

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
    if (train_split, test_split) != ('train', None):
      raise DataError(
        'digits comes as 1,437 pictures to train and 360 to test on: leave out'
        ' train_split and test_split.'
      )
    return _load_digits()
  return _load_tfds(name, data_dir, train_split, test_split)


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
  # Not every fifth: the digits come in an order of period ten.
  order = np.random.default_rng(0).permutation(len(labels))
  test, train = order[:360], order[360:]
  return Dataset(
    'digits',
    images[train],
    labels[train],
    images[test],
    labels[test],
    10,
  )


def _load_tfds(
  name: str,
  data_dir: str | pathlib.Path | None,
  train_split: str,
  test_split: str | None,
) -> Dataset:
  builder = prepared.open_set(name, data_dir)
  features = builder.info.features
  if None in features['image'].shape:
    raise DataError(
      f'The pictures of data set {name!r} differ in size'
      f' ({features["image"].shape}), and only pictures of one size are held in'
      ' memory. Stream it: give --image-size (image_size=).'
    )
  splits = prepared.chosen_splits(builder, train_split, test_split)
  prepared.check_splits(builder, splits)
  return Dataset(
    name,
    *_read_split(builder, splits[0]),
    *_read_split(builder, splits[1]),
    features['label'].num_classes,
  )


def _read_split(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
  import tensorflow_datasets as tfds

  # Decoded by PIL, not by TFDS, which would use OpenCV where it is installed.
  source = builder.as_data_source(
    split=split, decoders={'image': tfds.decode.SkipDecoding()}
  )
  shape = builder.info.features['image'].shape
  images = np.empty((len(source), *shape), np.uint8)
  labels = np.empty(len(source), np.int32)
  for start in range(0, len(source), _CHUNK):
    rows = range(start, min(start + _CHUNK, len(source)))
    for row, example in zip(rows, source.__getitems__(list(rows)), strict=True):
      images[row] = to_array(decode(example['image'], shape[-1]))
      labels[row] = example['label']
  return images, labels
