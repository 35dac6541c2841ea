"""SIGTERM, the word that the machine will be taken away."""

import contextlib
import signal
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils


class Preemption:
  """Whether SIGTERM has come, while in this context.

  With several processes JAX itself catches the signal and agrees on a step at
  which all of them stop; with one, this does.
  """

  def __init__(self):
    self._has_come = False
    self._previous = None
    self._asked = 0

  def __enter__(self) -> 'Preemption':
    if jax.process_count() == 1:
      # Outside the main thread, whoever runs it handles signals.
      with contextlib.suppress(ValueError):
        self._previous = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    if self._previous is not None:
      signal.signal(signal.SIGTERM, self._previous)

  def stops(self) -> bool:
    """Whether to save and stop after this step; all processes ask at each."""
    if jax.process_count() == 1:
      return self._has_come
    self._asked += 1  # never less than before, in whichever network
    return multihost_utils.reached_preemption_sync_point(self._asked)

  def _note(self, number: int, frame: FrameType | None) -> None:
    del number, frame
    self._has_come = True
