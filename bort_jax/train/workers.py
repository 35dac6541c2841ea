"""The processes that make the batches of a stream, by grain."""

import multiprocessing
import os
import signal
import threading
from typing import Any

from bort_jax.train.errors import DataError
from bort_jax.train.loader import Loader

_FOREVER = 1 << 62  # steps
_READY = 2  # batches that a worker keeps ahead


def start(loader: Loader, step: int, num_workers: int) -> Any:
  """Starts making the batches from a step on.

  Args:
    loader: makes the batch of a step.
    step: the first.
    num_workers: processes; with 0, threads of this one.

  Returns:
    grain's iterator over the loader's results, which has a ``close``.

  Raises:
    DataError: if grain is not installed.
  """
  try:
    import grain
    from absl import flags
  except ImportError as error:
    raise DataError(
      'Streaming a data set needs grain: pip install "bort-jax[grain]".'
    ) from error

  # Each worker makes whole batches. A thread's batch is decoded outside the
  # interpreter's lock, so two threads serve where there are no workers.
  reading = grain.ReadOptions(
    num_threads=0 if num_workers else 2,
    prefetch_buffer_size=0 if num_workers else _READY,
  )
  batches = grain.MapDataset.range(step, _FOREVER).map(loader)
  dataset = batches.to_iter_dataset(reading)
  if num_workers:
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # grain reads them in every program
    dataset = dataset.mp_prefetch(
      grain.MultiprocessingOptions(num_workers, _READY),
      worker_init_fn=_begin_worker,
    )
  return iter(dataset)


def end(running: list[Any]) -> None:
  """Ends and removes the iterators in a list.

  Args:
    running: iterators of :func:`start`.
  """
  while running:
    running.pop().close()
    from grain.multiprocessing import SharedMemoryArray

    # What shared memory is left is freed by a thread: it is waited for.
    pool = getattr(SharedMemoryArray, '_del_thread_pool', None)
    if pool is not None:
      pool.apply(int)


def _begin_worker(worker_index: int, worker_count: int) -> None:
  """Leaves signals to the main process, and ends when that has ended."""
  del worker_index, worker_count
  # Both are sent to all processes of a job; the main one then closes this one.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  parent = multiprocessing.parent_process()
  if parent is not None:
    parent.join()
    os._exit(1)


def is_death(error: BaseException) -> bool:
  """Whether an iterator's error says that a worker has died."""
  return isinstance(error, RuntimeError) and 'unexpectedly' in str(error)


def death(error: BaseException) -> DataError:
  """The error that tells the user of a worker's death."""
  return DataError(
    f'A worker process that reads pictures has died ({error}). Exit code -9'
    ' mostly means that memory ran out: use fewer workers or smaller batches;'
    ' -7 that shared memory did: make /dev/shm larger (docker run --shm-size);'
    " 1 that the script lacks if __name__ == '__main__'. The run can be resumed"
    ' from its last checkpoint.'
  )
