"""Fitting one network, from its start or from where it stopped."""

import contextlib
import errno
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
import optax

from bort_jax.train.checkpoint import Checkpoints
from bort_jax.train.config import TrainConfig
from bort_jax.train.errors import PreemptedError, RunError
from bort_jax.train.losses import Loss
from bort_jax.train.metrics import (
  Epoch,
  MetricsLog,
  Pace,
  Step,
  read_metrics,
  read_paces,
  training_seconds,
)
from bort_jax.train.network import Network
from bort_jax.train.parallel import Parallel
from bort_jax.train.preemption import Preemption
from bort_jax.train.progress import Progress
from bort_jax.train.source import Source
from bort_jax.train.step import (
  Counts,
  StepOptions,
  TrainState,
  evaluated,
  evaluation_step,
  first_state,
  train_step,
)

# params, stats -> mean loss, accuracy
Evaluate: TypeAlias = Callable[[Any, Any], tuple[float, float]]


class Fit(NamedTuple):
  """A fitted network and how it came about."""

  network: Network
  params: Any  # with which it is evaluated: the average, where there is one
  stats: Any  # likewise
  steps: list[Step]
  epochs: list[Epoch]
  seconds: float  # of its steps, in all sessions; no compilation, no evaluation


class Trainer:
  """What stays the same while one network is fitted.

  Args:
    name: the network's name in the run directory.
    network: its pure functions.
    tx: its optimizer.
    source: the data.
    parallel: the devices.
    evaluate: of :func:`make_evaluate`; may be shared.
    config: the settings.
    run_dir: where to write.
  """

  def __init__(
    self,
    name: str,
    network: Network,
    tx: optax.GradientTransformation,
    source: Source,
    parallel: Parallel,
    evaluate: Evaluate,
    config: TrainConfig,
    run_dir: pathlib.Path,
  ):
    self.name, self.config, self.source = name, config, source
    self.network, self.parallel, self.run_dir = network, parallel, run_dir
    options = StepOptions(
      config.augment,
      config.label_smoothing,
      None if config.ema is None else config.ema ** (1 / config.accumulate),
      parallel.axis_name,
      config.adversarial,
      config.loss,
    )
    self.start = partial(first_state, tx, config.ema is not None)
    self.step = parallel.step(partial(train_step, network, tx, options))
    self.evaluate = evaluate
    self.num_steps = config.num_epochs * source.steps_per_epoch
    self.facts = checkpoint_facts(config, source)

  def fit(
    self,
    on_steps: Callable[[list[Step], Pace | None], None],
    preemption: Preemption,
  ) -> Fit:
    """Trains to the end, and writes metrics and checkpoints as it goes.

    Args:
      on_steps: called every few steps with what is known of them.
      preemption: the word to stop; its context is entered.

    Returns:
      The fitted network.

    Raises:
      DivergedError: if a loss or a parameter stops being finite; the last
        checkpoint stays.
      PreemptedError: after a SIGTERM; the state is saved.
      RunError: if nothing can be written, or another process has ended.
    """
    try:
      with Checkpoints(
        self.run_dir / 'checkpoints' / self.name, self.config.keep
      ) as checkpoints:
        return self._fit(checkpoints, on_steps, preemption)
    except (RuntimeError, ValueError, TimeoutError) as error:
      if jax.process_count() == 1 or not _tells_of_loss(error):
        raise
      raise _lost_process_error(self.run_dir, error) from None
    except OSError as error:
      raise _system_error(self.run_dir, error) from None

  def _fit(self, checkpoints, on_steps, preemption) -> Fit:
    state, log, history = self._open(checkpoints)
    done = int(state.step)
    key = jax.random.key(self.config.seed)
    run = Progress(self, checkpoints, log, history, on_steps)
    batches = self.source.train(done)
    with contextlib.closing(log):
      if not run.epochs:
        run.end_epoch(state)
      while done < self.num_steps:
        batch = self.parallel.batch(*next(batches))
        state, metrics = self.step(state, *batch, key)
        done += 1
        run.add(metrics, done)
        stops = preemption.stops()
        if done % self.source.steps_per_epoch == 0:
          run.end_epoch(state)
        elif stops or self._saves_at(done):
          run.save(state)
        if stops:
          checkpoints.wait()
          raise PreemptedError(
            f'Stopped by SIGTERM after step {done} of {self.num_steps} of'
            f' {self.name!r}; go on with --resume --run-dir {self.run_dir}.'
          )
    seconds = training_seconds(run.paces)
    return Fit(self.network, *evaluated(state), run.steps, run.epochs, seconds)

  def _open(self, checkpoints: Checkpoints):
    """The state, the log and the history to start with."""
    writes = jax.process_index() == 0
    if self.config.resume:
      state = checkpoints.restore(
        self.abstract_state(), self.facts, sets_aside=True
      )
      if state is not None:
        log = MetricsLog(self.run_dir, self.name, int(state.step), writes)
        where = self.run_dir, self.name
        return state, log, (*read_metrics(*where), read_paces(*where))
    log = MetricsLog(self.run_dir, self.name, None, writes)
    weights = self.parallel.init(self.network.init)
    return self.parallel.init(self.start, *weights), log, ([], [], [])

  def abstract_state(self) -> TrainState:
    """Shapes, dtypes and shardings of the state."""
    return self.parallel.abstract(lambda: self.start(*self.network.init()))

  def _saves_at(self, step: int) -> bool:
    every = self.config.checkpoint_steps
    return every is not None and step % every == 0


def make_evaluate(
  network: Network,
  source: Source,
  parallel: Parallel,
  loss: Loss,
) -> Evaluate:
  """Mean loss and accuracy over the test pictures, each counted once."""
  count = parallel.evaluation(
    partial(evaluation_step, network, parallel.axis_name, loss=loss)
  )

  def evaluate(params, stats):
    counts: list[Counts] = [
      count(params, stats, *parallel.batch(*batch)) for batch in source.test()
    ]
    sums = [np.sum(x, dtype=np.float64) for x in zip(*counts, strict=True)]
    loss, correct, pictures = sums
    return float(loss / pictures), float(correct / pictures)

  return evaluate


def checkpoint_facts(config: TrainConfig, source: Source) -> dict[str, Any]:
  """What a checkpoint must agree on to be of use."""
  return {
    'model': config.model,
    'model_options': list(config.model_options),
    'image_shape': list(source.image_shape),
    'num_classes': source.num_classes,
  }


def _tells_of_loss(error: Exception) -> bool:
  # Of no type of its own: whatever waits for the lost process finds out.
  signs = ('gloo', 'barrier', 'coordination', 'heartbeat', 'unavailable')
  return any(sign in str(error).lower() for sign in signs)


def _lost_process_error(run_dir: pathlib.Path, error: Exception) -> RunError:
  return RunError(
    'Another process of the run has ended, or cannot be reached'
    f' ({str(error).splitlines()[0]}). Start all processes again with --resume'
    f' --run-dir {run_dir}; training goes on from the last checkpoint.'
  )


def _system_error(run_dir: pathlib.Path, error: OSError) -> RunError:
  is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
  remedy = 'Free some space' if is_full else 'Put it right'
  return RunError(
    f'The run in {run_dir} has stopped: {error}. {remedy}, then go on with'
    ' --resume.'
  )
