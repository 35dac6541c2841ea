"""Checkpoints of a run: asynchronous, atomic, the newest and the best kept."""

import contextlib
import errno
import logging
import math
import os
import pathlib
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from bort_jax.train.errors import RunError
from bort_jax.train.step import TrainState

_log = logging.getLogger(__name__)


class Checkpoints:
  """The checkpoints of one network, by step; a context manager.

  Leaving the context waits for the save under way.

  Args:
    directory: where they lie.
    keep: number of newest ones kept, besides the one with the highest test
      accuracy.
  """

  def __init__(self, directory: pathlib.Path, keep: int = 1):
    self.directory = directory.absolute()
    self._manager = ocp.CheckpointManager(
      self.directory,
      options=ocp.CheckpointManagerOptions(
        best_fn=_accuracy,
        preservation_policy=policies.AnyPreservationPolicy(
          [
            policies.LatestN(keep),
            policies.BestN(get_metric_fn=_accuracy, n=1),
          ]
        ),
      ),
    )

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    with _system_errors():
      self._manager.close()

  def save(
    self,
    step: int,
    state: TrainState,
    facts: dict[str, Any],
    test_accuracy: float | None = None,
  ) -> None:
    """Starts to save a state; returns once it is copied from the devices.

    Args:
      step: steps done.
      state: the state.
      facts: what must agree for the state to fit, as JSON.
      test_accuracy: by which the best checkpoint is known.
    """
    unknown = -math.inf  # never the best
    accuracy = unknown if test_accuracy is None else test_accuracy
    with _system_errors():  # of this save, or of the one before
      saved = self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state._asdict()),
          facts=ocp.args.JsonSave(facts),
        ),
        metrics={'test_accuracy': accuracy},
        force=True,  # whatever step it is: orbax skips older ones in silence
      )
    if not saved:
      raise RunError(f'No checkpoint could be saved at step {step}.')

  def wait(self) -> None:
    """Waits for the save under way."""
    with _system_errors():
      self._manager.wait_until_finished()

  def latest(self) -> int | None:
    """Step of the newest complete checkpoint."""
    return self._manager.latest_step()

  def best(self) -> int | None:
    """Step of the checkpoint with the highest test accuracy."""
    return self._manager.best_step()

  def restore(
    self,
    abstract: TrainState,
    facts: dict[str, Any],
    step: int | None = None,
    *,
    sets_aside: bool = False,
  ) -> TrainState | None:
    """The newest checkpoint that can be read, or None if there is none.

    Args:
      abstract: shapes, dtypes and shardings of the state.
      facts: as saved.
      step: which checkpoint; by default the newest.
      sets_aside: whether those that cannot be read are moved to
        ``NAME-damaged`` when an older one can, so that their steps can be
        saved again.

    Returns:
      The state.

    Raises:
      RunError: if the checkpoint is of another network, or none can be read.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    if step is not None:
      steps = [step]
    problems = {}
    for candidate in steps:
      self._check_facts(candidate, facts)
      try:
        state = self._restore(candidate, abstract)
      except Exception as error:  # whatever the storage raises
        problems[candidate] = str(error).splitlines()[0]
        continue
      self._report(problems, candidate)
      if sets_aside:
        self._set_aside(problems)
      return state
    if problems:
      raise RunError(
        f'No checkpoint in {self.directory} can be read (steps'
        f' {", ".join(map(str, steps))}); the newest: {problems[steps[0]]}'
        ' Nothing was changed. Put the checkpoints right, or train anew in'
        ' another --run-dir.'
      )
    return None

  def _report(self, problems: dict[int, str], restored: int) -> None:
    for step, problem in problems.items():
      _log.warning(
        'Checkpoint %d in %s cannot be read (%s); used that of step %d.',
        step,
        self.directory,
        problem,
        restored,
      )

  def _restore(self, step: int, abstract: TrainState) -> TrainState:
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract._asdict())
      ),
    )
    return TrainState(**restored['state'])

  def _check_facts(self, step: int, facts: dict[str, Any]) -> None:
    try:
      saved = self._manager.restore(
        step, args=ocp.args.Composite(facts=ocp.args.JsonRestore())
      )['facts']
    except Exception:  # damaged: found out again, and said, by _restore
      return
    differing = [k for k in facts if saved.get(k) != facts[k]]
    if differing:
      what = '; '.join(
        f'{k}: {saved.get(k)!r} there, {facts[k]!r} here' for k in differing
      )
      raise RunError(
        f'Checkpoint {step} in {self.directory} does not fit: {what}. Use the'
        ' settings it was made with, or another --run-dir.'
      )

  def _set_aside(self, steps: Iterable[int]) -> None:
    aside = self.directory.with_name(f'{self.directory.name}-damaged')
    for step in steps:
      if jax.process_index() == 0:
        aside.mkdir(exist_ok=True)
        damaged = self.directory / str(step)
        damaged.rename(aside / f'{step}-{len(list(aside.iterdir()))}')
    self._manager.reload()


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
  """Makes an OSError of a full disk, which tensorstore tells in words."""
  try:
    yield
  except ValueError as error:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
      if os.strerror(number) in str(error):
        raise OSError(number, os.strerror(number)) from None
    raise


def _accuracy(metrics: dict[str, float]) -> float:
  return metrics['test_accuracy']
