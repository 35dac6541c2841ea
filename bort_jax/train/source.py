"""Where batches come from: arrays in memory, or files that are streamed."""

from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

import jax
import numpy as np

from bort_jax.train.config import TrainConfig
from bort_jax.train.data import (
  Dataset,
  batches,
  load_dataset,
  padded_batches,
)
from bort_jax.train.errors import RunError
from bort_jax.train.prepared import chosen_splits, open_set
from bort_jax.train.stream import ImageStream

Batch: TypeAlias = tuple[np.ndarray, np.ndarray]  # uint8 images, int32 labels
MaskedBatch: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


class Source(Protocol):
  """Batches of a data set, a function of the seed and the step alone.

  Each process gets its rows of every batch, in the order of the processes.
  """

  name: str
  image_shape: tuple[int, int, int]
  num_classes: int
  steps_per_epoch: int

  def train(self, first_step: int) -> Iterator[Batch]:
    """The batches of all steps from ``first_step`` on, without end."""
    ...

  def test(self) -> Iterator[MaskedBatch]:
    """Every test picture once; the mask is False on padding."""
    ...

  def pictures(self, count: int) -> np.ndarray:
    """The first test pictures, uint8, the same on every process."""
    ...


def make_source(config: TrainConfig) -> Source:
  """The data of a run.

  Args:
    config: the settings.

  Returns:
    Its source.

  Raises:
    RunError: if the set is not there, cannot be read, or has fewer pictures
      than one batch.

  Examples:
    >>> from bort_jax.train import TrainConfig
    >>> from bort_jax.train.source import make_source
    >>> make_source(TrainConfig(batch_size=100)).steps_per_epoch
    14
  """
  if config.image_size is not None:
    source: Source = StreamSource(config)
  else:
    dataset = load_dataset(
      config.data, config.data_dir, config.train_split, config.test_split
    )
    source = MemorySource(dataset, config.batch_size, config.seed)
  if source.steps_per_epoch == 0:
    raise RunError(
      f'An epoch would have no steps: batch_size {config.batch_size} is more'
      f' than the training pictures of {config.data!r}. Lower --batch-size.'
    )
  return source


class MemorySource:
  """Batches of a data set held in memory."""

  def __init__(self, dataset: Dataset, batch_size: int, seed: int):
    self.name = dataset.name
    height, width, channels = dataset.train_images.shape[1:]
    self.image_shape = height, width, channels
    self.num_classes = dataset.num_classes
    self.steps_per_epoch = len(dataset.train_labels) // batch_size
    self._dataset, self._batch_size, self._seed = dataset, batch_size, seed

  def train(self, first_step: int) -> Iterator[Batch]:
    """Batches in an order drawn anew for every epoch."""
    epoch, skipped = divmod(first_step, self.steps_per_epoch)
    while True:
      epoch += 1
      for step, batch in enumerate(
        batches(
          self._dataset.train_images,
          self._dataset.train_labels,
          self._batch_size,
          seed=(self._seed, epoch),
        )
      ):
        if step >= skipped:
          yield self._own_rows(*batch)
      skipped = 0

  def test(self) -> Iterator[MaskedBatch]:
    """Every test picture once, in order."""
    for batch in padded_batches(
      self._dataset.test_images, self._dataset.test_labels, self._batch_size
    ):
      yield self._own_rows(*batch)

  def pictures(self, count: int) -> np.ndarray:
    """The first test pictures."""
    return self._dataset.test_images[:count]

  def _own_rows(self, *arrays: np.ndarray) -> Any:
    count, index = jax.process_count(), jax.process_index()
    return tuple(np.array_split(x, count)[index] for x in arrays)


class StreamSource:
  """Batches of a data set that is read from disk while training goes on."""

  def __init__(self, config: TrainConfig):
    assert config.image_size is not None
    self.name, self._config = config.data, config
    builder = open_set(config.data, config.data_dir)
    self._splits = chosen_splits(builder, config.train_split, config.test_split)
    with self._stream(train=True) as stream:
      self.num_classes = stream.num_classes
      self.steps_per_epoch = stream.steps_per_epoch
    size = config.image_size
    channels = builder.info.features['image'].shape[-1]
    self.image_shape = size, size, channels
    self._stream(train=False).close()  # refuses what cannot be read, now

  def train(self, first_step: int) -> Iterator[Batch]:
    """Batches in an order and with crops drawn anew for every epoch."""
    with self._stream(train=True, start_step=first_step) as stream:
      for images, labels, _ in stream:
        yield images, labels

  def test(self) -> Iterator[MaskedBatch]:
    """Every test picture once, resized and cut at its centre."""
    with self._stream(train=False) as stream:
      yield from stream

  def pictures(self, count: int) -> np.ndarray:
    """The first test pictures."""
    with self._stream(train=False, process_index=0, process_count=1) as stream:
      batches = [
        images[mask]
        for (images, _, mask), _ in zip(
          stream, range(-(-count // self._config.batch_size)), strict=False
        )
      ]
    return np.concatenate(batches)[:count]

  def _stream(self, *, train: bool, **options: int) -> ImageStream:
    config = self._config
    return ImageStream(
      config.data,
      self._splits[0] if train else self._splits[1],
      config.data_dir,
      image_size=config.image_size or 0,
      batch_size=config.batch_size,
      seed=config.seed,
      train=train,
      num_workers=config.num_workers,
      **{
        'process_index': jax.process_index(),
        'process_count': jax.process_count(),
        **options,
      },
    )
