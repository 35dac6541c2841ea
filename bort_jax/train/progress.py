"""The history of a fit as it goes on, and what is written of it."""

import time

import jax
import numpy as np

from bort_jax.train.divergence import check_losses, check_params
from bort_jax.train.kernels import measure_kernels
from bort_jax.train.metrics import Epoch, Pace, Step
from bort_jax.train.step import Metrics, TrainState, evaluated

_LOOK_EVERY = 20  # steps between two looks at the metrics, which wait for them


class Progress:
  """The history of a fit, and what is written of it.

  Args:
    trainer: the :class:`bort_jax.train.loop.Trainer`.
    checkpoints: where states are saved.
    log: where metrics are written.
    history: steps, epochs and paces so far; they grow.
    on_steps: see :meth:`bort_jax.train.loop.Trainer.fit`.
  """

  def __init__(self, trainer, checkpoints, log, history, on_steps):
    self.trainer, self.checkpoints, self.log = trainer, checkpoints, log
    self.steps, self.epochs, self.paces = history
    self.on_steps = on_steps
    self.pending: list[Metrics] = []
    self.done = self.steps[-1].step if self.steps else 0
    self.untimed = self.done + 1  # the first step of a session is compiled
    self.start_clock()

  def start_clock(self) -> None:
    """Counts the seconds of steps from now on."""
    self.since = time.perf_counter()

  def add(self, metrics: Metrics, done: int) -> None:
    """Takes up a step, the ``done``-th, which may still be computed."""
    self.pending.append(metrics)
    self.done = done
    if done == self.untimed:
      jax.block_until_ready(metrics)
      self.start_clock()
    # Those of the last steps are left to be computed meanwhile.
    if len(self.pending) == 2 * _LOOK_EVERY:
      self.look(_LOOK_EVERY)

  def look(self, count: int | None = None) -> None:
    """Waits for the first pending metrics, or all; writes and tells them."""
    if not self.pending:
      return
    looked_at = self.pending[:count]
    first = self.done - len(self.pending) + 1
    self.pending = self.pending[len(looked_at) :]
    losses, accuracies = jax.device_get(tuple(zip(*looked_at, strict=True)))
    new = [
      Step(first + i, float(loss), float(accuracy))
      for i, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True))
    ]
    pace = self._pace(new)
    self.steps += new
    self.log.write_steps([step for step in new if np.isfinite(step.loss)])
    if pace is not None:
      self.paces.append(pace)
      self.log.write_pace(pace)
    self.on_steps(new, pace)
    check_losses(self.trainer.name, new, self.epochs, self.trainer.config)

  def _pace(self, new: list[Step]) -> Pace | None:
    since, count = self.since, sum(step.step != self.untimed for step in new)
    self.start_clock()
    if count == 0:
      return None
    seconds = (self.since - since) / count
    rate = self.trainer.config.batch_size / seconds
    return Pace(new[-1].step, seconds, rate, _peak_bytes())

  def end_epoch(self, state: TrainState) -> None:
    """Evaluates, measures and saves a state."""
    self._settle(state)
    trainer = self.trainer
    params, stats = evaluated(state)
    number = self.done // trainer.source.steps_per_epoch
    loss, accuracy = trainer.evaluate(params, stats)
    measured = number % trainer.config.measure_every == 0
    kernels = (
      measure_kernels(params, trainer.config.amplitude) if measured else {}
    )
    epoch = Epoch(number, self.done, loss, accuracy, kernels)
    self.epochs.append(epoch)
    self.log.write_epoch(epoch)
    whole = trainer.parallel.to_save(state)
    self.checkpoints.save(self.done, whole, trainer.facts, accuracy)
    self.start_clock()

  def save(self, state: TrainState) -> None:
    """Saves a state within an epoch."""
    self._settle(state)
    whole = self.trainer.parallel.to_save(state)
    self.checkpoints.save(self.done, whole, self.trainer.facts)
    self.start_clock()

  def _settle(self, state: TrainState) -> None:
    self.look()
    trainer = self.trainer
    check_params(
      trainer.name, state.params, self.done, self.epochs, trainer.config
    )


def _peak_bytes() -> int | None:
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get('peak_bytes_in_use')
