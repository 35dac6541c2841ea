"""Fitting one network, from its start or from where it stopped."""

import contextlib
import errno
import pathlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bort_jax import spectrum
from bort_jax.selection import path_name
from bort_jax.train.checkpoint import Checkpoints
from bort_jax.train.config import TrainConfig
from bort_jax.train.divergence import check_losses, check_params
from bort_jax.train.errors import PreemptedError, RunError
from bort_jax.train.metrics import (
  Epoch,
  MetricsLog,
  Pace,
  Spread,
  Step,
  read_metrics,
)
from bort_jax.train.network import Network
from bort_jax.train.parallel import Parallel
from bort_jax.train.preemption import Preemption
from bort_jax.train.source import Source
from bort_jax.train.step import (
  Counts,
  Metrics,
  StepOptions,
  TrainState,
  evaluation_step,
  init_state,
  train_step,
)

_LOOK_EVERY = 20  # steps between two looks at the metrics, which wait for them


class Fit(NamedTuple):
  """A fitted network and how it came about."""

  network: Network
  state: TrainState
  steps: list[Step]
  epochs: list[Epoch]
  seconds: float  # of training, compilation included; of this process alone

  @property
  def params(self) -> Any:
    """The parameters it is evaluated with."""
    return evaluated_params(self.state)


class Trainer:
  """What stays the same while one network is fitted.

  Args:
    name: the network's name in the run directory.
    network: its pure functions.
    tx: its optimizer.
    source: the data.
    parallel: the devices.
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
    config: TrainConfig,
    run_dir: pathlib.Path,
  ):
    self.name, self.config, self.source = name, config, source
    self.network, self.parallel, self.run_dir = network, parallel, run_dir
    ema = config.ema
    options = StepOptions(
      config.augment,
      config.label_smoothing,
      None if ema is None else ema ** (1 / config.accumulate),
      parallel.axis_name,
    )
    self.start = partial(init_state, network, tx, ema is not None)
    self.step = parallel.step(partial(train_step, network, tx, options))
    self.evaluate = partial(
      evaluate,
      parallel.evaluation(
        partial(evaluation_step, network, parallel.axis_name)
      ),
      source,
      parallel,
    )
    self.num_steps = config.num_epochs * source.steps_per_epoch
    self.facts = checkpoint_facts(config, source)

  def fit(self, on_steps: Callable[[list[Step], Pace], None]) -> Fit:
    """Trains to the end, and writes metrics and checkpoints as it goes.

    Args:
      on_steps: called every few steps with what is known of them.

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
        return self._fit(checkpoints, on_steps)
    except (jax.errors.JaxRuntimeError, TimeoutError) as error:
      if jax.process_count() == 1:
        raise
      raise _lost_process_error(self.run_dir, error) from None
    except OSError as error:
      raise _write_error(self.run_dir, error) from None

  def _fit(self, checkpoints, on_steps) -> Fit:
    begin = time.perf_counter()
    state, log, steps, epochs = self._open(checkpoints)
    done = int(state.step)
    key = jax.random.key(self.config.seed)
    run = _Progress(self, checkpoints, log, steps, epochs, on_steps)
    batches = self.source.train(done)
    with contextlib.closing(log), Preemption() as preemption:
      if not epochs:
        run.end_epoch(state)
      while done < self.num_steps:
        batch = self.parallel.batch(*next(batches))
        state, metrics = self.step(state, *batch, key)
        done += 1
        run.add(metrics, done)
        stops = preemption.stops_at(done) and done < self.num_steps
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
    seconds = time.perf_counter() - begin
    return Fit(self.network, state, steps, epochs, seconds)

  def _open(self, checkpoints: Checkpoints):
    """The state, the log and the history to start with."""
    writes = jax.process_index() == 0
    if self.config.resume:
      abstract = self.parallel.abstract(self.start)
      state = checkpoints.restore(abstract, self.facts)
      if state is not None:
        log = MetricsLog(self.run_dir, self.name, int(state.step), writes)
        return state, log, *read_metrics(self.run_dir, self.name)
    log = MetricsLog(self.run_dir, self.name, None, writes)
    return self.parallel.init(self.start), log, [], []

  def _saves_at(self, step: int) -> bool:
    every = self.config.checkpoint_steps
    return every is not None and step % every == 0


class _Progress:
  """The history of a fit, and what is written of it."""

  def __init__(self, trainer, checkpoints, log, steps, epochs, on_steps):
    self.trainer, self.checkpoints, self.log = trainer, checkpoints, log
    self.steps, self.epochs, self.on_steps = steps, epochs, on_steps
    self.pending: list[Metrics] = []
    self.done = steps[-1].step if steps else 0
    self.since = time.perf_counter()

  def add(self, metrics: Metrics, done: int) -> None:
    self.pending.append(metrics)
    self.done = done
    if len(self.pending) == _LOOK_EVERY:
      self.look()

  def look(self) -> None:
    """Waits for the pending metrics, and writes and tells them."""
    if not self.pending:
      return
    losses, accuracies = jax.device_get(tuple(zip(*self.pending, strict=True)))
    first = self.done - len(self.pending) + 1
    new = [
      Step(first + i, float(loss), float(accuracy))
      for i, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True))
    ]
    now = time.perf_counter()
    seconds = (now - self.since) / len(new)
    rate = self.trainer.config.batch_size / seconds
    pace = Pace(self.done, seconds, rate, _peak_bytes())
    self.since, self.pending = now, []
    self.steps += new
    self.log.write_steps([step for step in new if np.isfinite(step.loss)])
    self.log.write_pace(pace)
    self.on_steps(new, pace)
    check_losses(self.trainer.name, new, self.epochs, self.trainer.config)

  def end_epoch(self, state: TrainState) -> None:
    self._settle(state)
    trainer = self.trainer
    params = evaluated_params(state)
    number = self.done // trainer.source.steps_per_epoch
    loss, accuracy = trainer.evaluate(params, state.stats)
    measured = number % trainer.config.measure_every == 0
    kernels = (
      measure_kernels(params, trainer.config.amplitude) if measured else {}
    )
    epoch = Epoch(number, self.done, loss, accuracy, kernels)
    self.epochs.append(epoch)
    self.log.write_epoch(epoch)
    self.checkpoints.save(self.done, state, trainer.facts, accuracy)
    self.since = time.perf_counter()

  def save(self, state: TrainState) -> None:
    self._settle(state)
    self.checkpoints.save(self.done, state, self.trainer.facts)

  def _settle(self, state: TrainState) -> None:
    self.look()
    trainer = self.trainer
    check_params(
      trainer.name, state.params, self.done, self.epochs, trainer.config
    )


def evaluated_params(state: TrainState) -> Any:
  """The average of the parameters where there is one, else the parameters."""
  return state.params if state.ema is None else state.ema


def evaluate(
  count: Callable[..., Counts],
  source: Source,
  parallel: Parallel,
  params: Any,
  stats: Any,
) -> tuple[float, float]:
  """Mean loss and accuracy over the test pictures, each counted once."""
  counts = [
    count(params, stats, *parallel.batch(*batch)) for batch in source.test()
  ]
  sums = [np.sum(x, dtype=np.float64) for x in zip(*counts, strict=True)]
  loss, correct, pictures = sums
  return float(loss / pictures), float(correct / pictures)


def checkpoint_facts(config: TrainConfig, source: Source) -> dict[str, Any]:
  """What a checkpoint must agree on to be of use."""
  return {
    'model': config.model,
    'model_options': list(config.model_options),
    'image_shape': list(source.image_shape),
    'num_classes': source.num_classes,
  }


def measure_kernels(params: Any, amplitude: float) -> dict[str, Spread]:
  """The spread of every kernel's singular values, by its path."""
  spreads = jax.device_get(_spreads(params, amplitude))
  return {path: Spread(*map(float, spread)) for path, spread in spreads.items()}


@partial(jax.jit, static_argnums=1)
def _spreads(params: Any, amplitude: float) -> dict[str, tuple[jax.Array, ...]]:
  errors = spectrum.orthogonality_error(params, amplitude=amplitude)
  error_of = dict(_by_path(errors))
  return {
    path: (values.min(), jnp.median(values), values.max(), error_of[path])
    for path, values in _by_path(spectrum.singular_values(params))
  }


def _by_path(tree: Any) -> Iterator[tuple[str, jax.Array]]:
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    yield path_name(path), leaf


def _peak_bytes() -> int | None:
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get('peak_bytes_in_use')


def _lost_process_error(run_dir: pathlib.Path, error: Exception) -> RunError:
  return RunError(
    'Another process of the run has ended, or cannot be reached'
    f' ({str(error).splitlines()[0]}). Start all processes again with --resume'
    f' --run-dir {run_dir}; training goes on from the last checkpoint.'
  )


def _write_error(run_dir: pathlib.Path, error: OSError) -> RunError:
  remedy = (
    'Free some space, then go on with --resume.'
    if error.errno in (errno.ENOSPC, errno.EDQUOT)
    else 'What was written before is kept.'
  )
  return RunError(
    f'The run in {run_dir} cannot be written: {error.strerror}. {remedy}'
  )
