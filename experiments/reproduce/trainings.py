"""Trainings that are kept, as long as there is time."""

import dataclasses
import pathlib
import time
from typing import Any

from arms import Arm
from fitting import Numbers, Task, facts_of, fit
from kept_runs import KeptRuns

_TASK = {field.name for field in dataclasses.fields(Task)}


class Clock:
  """Tells whether there is time to begin something."""

  def __init__(self, minutes: float | None):
    self._end = None if minutes is None else time.monotonic() + 60 * minutes

  def is_up(self) -> bool:
    """Whether the time is over."""
    return self._end is not None and time.monotonic() > self._end


def trained(
  kept: KeptRuns,
  clock: Clock,
  task: Task,
  arm: Arm,
  numbers: Numbers,
  data_dir: pathlib.Path | None,
) -> dict[str, Any] | None:
  """What is found of a training; None if it is not there and time is up."""
  facts = facts_of(task, arm, numbers)
  found = kept.find(facts)
  if found is not None or clock.is_up():
    return found
  found = kept.get(facts, lambda: fit(task, arm, numbers, data_dir).numbers)
  told = {k: v for k, v in facts.items() if k not in _TASK}
  print(f'{told}: {found["accuracy"]:.2%}', flush=True)
  return found
