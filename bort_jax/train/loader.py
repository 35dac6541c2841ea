"""One batch of a large set: read, decoded, cropped and resized."""

import functools
import pathlib
from typing import Any, NamedTuple

import numpy as np

from bort_jax.train import pictures
from bort_jax.train.errors import DataError


class Loader(NamedTuple):
  """Makes the batch of a step; sent to the worker processes."""

  directory: pathlib.Path  # of the set's version
  split: str
  num_pictures: int
  channels: int
  image_size: int
  batch_size: int  # over all processes
  seed: int
  train: bool
  process_index: int
  process_count: int

  @property
  def steps_per_epoch(self) -> int:
    """Batches in one pass over the split."""
    full, rest = divmod(self.num_pictures, self.batch_size)
    return full + bool(rest and not self.train)

  def __call__(self, step: int) -> tuple[np.ndarray, ...]:
    """Images, labels and mask of a :class:`bort_jax.train.stream.Batch`."""
    epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
    local = self.batch_size // self.process_count
    first = step_in_epoch * self.batch_size + self.process_index * local
    places = np.arange(first, first + local)
    places = places[places < self.num_pictures]
    if self.train:
      places = _order(self.seed, epoch, self.num_pictures)[places]
    shape = (local, self.image_size, self.image_size, self.channels)
    images, labels = np.zeros(shape, np.uint8), np.zeros(local, np.int32)
    examples = _open(self.directory, self.split).__getitems__(places.tolist())
    for row, (place, example) in enumerate(zip(places, examples, strict=True)):
      images[row] = self._picture(example['image'], epoch, int(place))
      labels[row] = example['label']
    return images, labels, np.arange(local) < len(places)

  def _picture(self, data: bytes, epoch: int, place: int) -> np.ndarray:
    try:
      picture = pictures.decode(data, self.channels)
    except Exception as error:  # PIL raises many kinds
      raise DataError(
        f'Picture {place} of {self.split} in {self.directory} cannot be decoded'
        f' ({error}). The set is damaged; prepare it again.'
      ) from error
    if not self.train:
      return pictures.resized_center_crop(picture, self.image_size)
    rng = np.random.default_rng((self.seed, epoch, 1 + place))
    return pictures.random_resized_crop(rng, picture, self.image_size)


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
  return np.random.default_rng((seed, epoch, 0)).permutation(count)


@functools.lru_cache(maxsize=2)
def _open(directory: pathlib.Path, split: str) -> Any:
  """The examples with their pictures as they are stored; once a process."""
  import tensorflow_datasets as tfds

  builder: Any = tfds.builder_from_directory(str(directory))
  return builder.as_data_source(
    split=split, decoders={'image': tfds.decode.SkipDecoding()}
  )
