"""Large sets, read and decoded by worker processes while the device computes.

Which pictures are in a batch, and how each is cropped, are functions of the
seed and the step alone. So a stream goes on after any step with no other state
than its number, with any number of workers or processes.
"""

import atexit
import os
import pathlib
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from bort_jax.train import prepared, workers
from bort_jax.train.errors import DataError
from bort_jax.train.loader import Loader


class Batch(NamedTuple):
  """This process's part of a batch."""

  images: np.ndarray  # (N, size, size, C) uint8
  labels: np.ndarray  # (N,) int32
  mask: np.ndarray  # (N,) bool, false where an evaluation batch is padded


class ImageStream:
  """Batches of a prepared set whose pictures may differ in size.

  In training, the stream has no end: each epoch visits the pictures in a new
  order and leaves out the rest that does not fill a batch; each picture is
  cropped at random, resized and mirrored every second time. In evaluation,
  ``for batch in stream`` is one pass over all pictures in their order, each
  resized and cut at its centre; the last batch is padded and masked, so that
  over all processes each picture counts once.

  Every process sees the same number of batches, and all their parts together
  are the batch that one process would see.

  Workers are processes of their own, started at the first batch by importing
  the main module: a script that makes a stream needs ``if __name__ ==
  '__main__':``. Close the stream when done, or use it in a ``with`` block.

  Args:
    name: TFDS's name of the set, prepared as array_record.
    split: a split or a part of one, ``'train[:99%]'``.
    data_dir: the TFDS directory; by default ``$TFDS_DATA_DIR``, else
      ``~/tensorflow_datasets``.
    image_size: side of the square pictures in a batch.
    batch_size: pictures in a batch, over all processes.
    seed: of the order and the crops, ≥ 0.
    train: whether to shuffle and crop at random.
    num_workers: processes that read and decode; 0 does it in threads of this
      process.
    process_index: which of the processes that train together this one is.
    process_count: how many there are.
    start_step: how many batches to skip, without reading them.

  Raises:
    DataError: if the set cannot be read, see
      :func:`bort_jax.train.prepared.open_set`; the batch cannot be divided
      among the processes or is larger than the set; or a number is out of
      range. While iterating, if a picture is damaged or a worker dies.

  Examples:
    >>> from bort_jax.train.stream import ImageStream
    >>> with ImageStream(
    ...   'imagenet2012', 'train', image_size=224, batch_size=256, seed=0
    ... ) as stream:  # doctest: +SKIP
    ...   images, labels, mask = next(stream)
    ...   state = stream.state()  # of the next batch; goes into a checkpoint
  """

  def __init__(
    self,
    name: str,
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    image_size: int,
    batch_size: int,
    seed: int = 0,
    train: bool = True,
    num_workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    start_step: int = 0,
  ):
    builder = prepared.open_set(name, data_dir)
    prepared.check_splits(builder, [split])
    features = builder.info.features
    self._loader = Loader(
      pathlib.Path(builder.data_path),
      split,
      builder.info.splits[split].num_examples,
      features['image'].shape[-1],
      image_size,
      batch_size,
      seed,
      train,
      process_index,
      process_count,
    )
    _check(self._loader, num_workers, start_step)
    self.num_classes: int = features['label'].num_classes
    self._num_workers = num_workers
    self._running: list[Any] = []  # the iterator, if there is one
    weakref.finalize(self, workers.end, self._running)
    self._go_to(start_step)

  @property
  def num_pictures(self) -> int:
    """Pictures in the split, over all processes."""
    return self._loader.num_pictures

  @property
  def steps_per_epoch(self) -> int:
    """Batches in one pass over the split."""
    return self._loader.steps_per_epoch

  @property
  def step(self) -> int:
    """The number of the next batch, from 0 on over all epochs."""
    return self._step

  def state(self) -> dict[str, Any]:
    """What :meth:`restore` needs to go on here; fit for JSON."""
    return {'step': self._step, **self._identity()}

  def restore(self, state: Mapping[str, Any]) -> None:
    """Goes to where a stream was when it gave its state.

    Args:
      state: of a stream of the same set, batch size and seed; the numbers of
        workers and of processes may differ.

    Raises:
      DataError: if it is the state of another stream, whose next batches this
        one cannot make.
    """
    for key, value in self._identity().items():
      if state.get(key) != value:
        raise DataError(
          f'The state is that of another stream: its {key} is'
          f' {state.get(key)!r}, and that of this stream is {value!r}. Resume'
          ' with the settings that the run was started with.'
        )
    self._go_to(int(state['step']))

  def __iter__(self) -> Self:
    """This stream; of an evaluation stream, the beginning of a pass."""
    if not self._loader.train:
      if self._step % self.steps_per_epoch:
        self._go_to(0)
      self._end = self._step + self.steps_per_epoch
    return self

  def __next__(self) -> Batch:
    """The next batch."""
    if self._step == self._end:
      raise StopIteration
    if not self._running:
      self._running.append(
        workers.start(self._loader, self._step, self._num_workers)
      )
      # Ends it first of all at exit, while what grain needs for it is there.
      atexit.register(workers.end, self._running)
    try:
      arrays = next(self._running[0])
    except BaseException as error:
      self.close()
      if workers.is_death(error):
        raise workers.death(error) from error
      raise
    self._step += 1
    return Batch(*map(_own, arrays))

  def close(self) -> None:
    """Ends the workers; the next batch would start new ones."""
    workers.end(self._running)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def _go_to(self, step: int) -> None:
    self.close()
    self._step = step
    steps = self.steps_per_epoch
    self._end = None if self._loader.train else (step // steps + 1) * steps

  def _identity(self) -> dict[str, Any]:
    """What decides which pictures are in the batch of a step."""
    loader = self._loader
    fields = ('split', 'num_pictures', 'image_size', 'batch_size', 'seed')
    return {
      'data': '/'.join(loader.directory.parts[-2:]),
      **{field: getattr(loader, field) for field in fields},
      'train': loader.train,
    }


def _check(loader: Loader, num_workers: int, start_step: int) -> None:
  """Raises DataError if a number is out of range."""
  counts = {
    'image_size': (loader.image_size, 1),
    'batch_size': (loader.batch_size, 1),
    'seed': (loader.seed, 0),
    'num_workers': (num_workers, 0),
    'start_step': (start_step, 0),
    'process_count': (loader.process_count, 1),
    'process_index': (loader.process_index, 0),
  }
  for name, (value, least) in counts.items():
    if value < least:
      raise DataError(f'{name} must be ≥ {least}, got {value}.')
  if loader.process_index >= loader.process_count:
    raise DataError(
      f'process_index must be below process_count, got {loader.process_index}'
      f' of {loader.process_count}.'
    )
  if loader.batch_size % loader.process_count:
    raise DataError(
      f'A batch of {loader.batch_size} pictures cannot be divided among'
      f' {loader.process_count} processes. Choose a multiple of'
      f' {loader.process_count} as batch size.'
    )
  if not loader.steps_per_epoch:
    raise DataError(
      f'An epoch would have no batch: split {loader.split!r} has'
      f' {loader.num_pictures} pictures, and a batch has {loader.batch_size}.'
      ' Choose a smaller batch size or a larger split.'
    )


def _own(array: np.ndarray) -> np.ndarray:
  """The array in this process's memory, so that the shared part is freed."""
  return array if type(array) is np.ndarray else np.array(array)
