"""Trainings that are kept, as long as there is time."""

import dataclasses
import itertools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from arms import Arm
from fitting import Fitted, Numbers, Task, facts_of, fit
from kept_runs import KeptRuns

from bort_jax.train import Dataset

More = Callable[[Fitted, Dataset], dict[str, Any]]
_TUNING_SEED = 1000  # not one of those that are tested
_TASK = {field.name for field in dataclasses.fields(Task)}


def told_of(facts: dict[str, Any]) -> dict[str, Any]:
  """What differs between the trainings of one experiment, for a log."""
  return {k: v for k, v in facts.items() if k not in _TASK}


def nothing_more(fitted: Fitted, dataset: Dataset) -> dict[str, Any]:
  """Nothing is measured but what :func:`fitting.fit` does."""
  del fitted, dataset
  return {}


class Bench(NamedTuple):
  """Where results are kept, until when, and where the pictures are."""

  kept: KeptRuns
  ends: float  # of time.monotonic()
  data_dir: pathlib.Path | None

  def is_over(self) -> bool:
    """Whether the time is up."""
    return time.monotonic() > self.ends

  def train(
    self, task: Task, arm: Arm, numbers: Numbers, more: More = nothing_more
  ) -> dict[str, Any] | None:
    """What is found of a training; None if it is not there and time is up."""
    facts = facts_of(task, arm, numbers)
    found = self.kept.find(facts)
    if found is not None or self.is_over():
      return found
    fitted, dataset = fit(task, arm, numbers, self.data_dir)
    found = self.kept.add(facts, {**fitted.numbers, **more(fitted, dataset)})
    print(f'{told_of(facts)}: {found["accuracy"]:.2%}', flush=True)
    return found

  def tune(
    self,
    task: Task,
    arm: Arm,
    rates: Sequence[float],
    decays: Sequence[float],
  ) -> tuple[float, float] | None:
    """The best learning rate and weight decay; None if time is up.

    Accuracy decides, of equals the loss; one that diverged comes last.
    """
    found = {
      pair: self.train(task, arm, Numbers(*pair, seed=_TUNING_SEED))
      for pair in itertools.product(rates, decays)
    }
    judged = {pair: _merit(one) for pair, one in found.items() if one}
    if len(judged) < len(found):
      return None
    return max(judged, key=lambda pair: judged[pair])


def open_bench(
  path: pathlib.Path, minutes: float | None, data_dir: pathlib.Path | None
) -> Bench:
  """A bench whose results are kept in a file."""
  left = float('inf') if minutes is None else 60 * minutes
  return Bench(KeptRuns(path), time.monotonic() + left, data_dir)


def _merit(found: dict[str, Any]) -> tuple[float, float]:
  loss = found['loss']
  return (0.0, 0.0) if loss is None else (found['accuracy'], -loss)
