"""TensorBoard's event file of one network."""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

# Made by protobuf when they are imported.
Event: Any = getattr(event_pb2, 'Event')  # noqa: B009
SessionLog: Any = getattr(event_pb2, 'SessionLog')  # noqa: B009
Summary: Any = getattr(summary_pb2, 'Summary')  # noqa: B009


class Board:
  """Writes scalars as they come, in the caller's thread.

  A SummaryWriter would write in a thread of its own, and when the disk is full
  that thread dies and leaves the run waiting for it.

  Args:
    directory: made if need be.
    step: a resumed run's step: TensorBoard forgets what is beyond it.

  Raises:
    OSError: here and in ``write``, if nothing can be written.
  """

  def __init__(self, directory: pathlib.Path, step: int | None = None):
    directory.mkdir(parents=True, exist_ok=True)
    self._events = EventsWriter(str(directory / 'events'), f'.{step or 0}')
    if step is not None:
      self._add(step, session_log=SessionLog(status=SessionLog.START))

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Adds a value to each of the named curves."""
    values = [
      Summary.Value(tag=name, simple_value=value)
      for name, value in scalars.items()
    ]
    self._add(step, summary=Summary(value=values))

  def flush(self) -> None:
    """Puts what was written on the disk."""
    self._events.flush()

  def close(self) -> None:
    """Flushes and closes the file."""
    self._events.close()

  def _add(self, step: int, **content: Any) -> None:
    self._events.write_event(Event(wall_time=time.time(), step=step, **content))
