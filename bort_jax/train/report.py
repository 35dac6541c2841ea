"""What finished or stopped runs have to say."""

import dataclasses
import math
import pathlib
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from bort_jax.train.checkpoint import Checkpoints
from bort_jax.train.comparison import network_of
from bort_jax.train.config import TrainConfig
from bort_jax.train.errors import RunError
from bort_jax.train.kernels import largest_error
from bort_jax.train.loop import Evaluate, Trainer, make_evaluate
from bort_jax.train.metrics import Epoch, Step, read_metrics, read_paces
from bort_jax.train.network import Network
from bort_jax.train.optimizer import make_optimizer
from bort_jax.train.parallel import make_parallel
from bort_jax.train.run_dir import read_config
from bort_jax.train.source import Source, make_source
from bort_jax.train.step import evaluated


class Evaluation(NamedTuple):
  """A checkpoint measured anew."""

  network: str
  step: int
  test_loss: float
  test_accuracy: float
  orthogonality_error: float  # largest of all kernels


class History(NamedTuple):
  """What one network of a run has written."""

  run_dir: pathlib.Path
  network: str
  config: TrainConfig
  steps: list[Step]
  epochs: list[Epoch]
  images_per_second: float | None  # median over the run

  @property
  def best_accuracy(self) -> float:
    """The highest test accuracy of all epochs."""
    return max(epoch.test_accuracy for epoch in self.epochs)

  @property
  def orthogonality_error(self) -> float | None:
    """The largest of all kernels, at the last measurement."""
    measured = [epoch.kernels for epoch in self.epochs if epoch.kernels]
    if not measured:
      return None
    return max(k.orthogonality_error for k in measured[-1].values())


class Restored(NamedTuple):
  """The networks of a run, as its checkpoints have them."""

  config: TrainConfig  # of the run, on this machine
  source: Source
  network: Network
  evaluate: Evaluate
  steps: dict[str, int]  # of each network's checkpoint
  weights: dict[str, tuple[Any, Any]]  # parameters and statistics of each


def restore_run(
  config: TrainConfig, which: Literal['latest', 'best'] = 'latest'
) -> Restored:
  """The networks of a run, from their checkpoints.

  Args:
    config: the settings of the run, as
      :func:`bort_jax.train.run_dir.read_config` gives them.
    which: the newest checkpoint, or that of the highest test accuracy.

  Returns:
    Every network of the run that has a checkpoint, and what evaluates it.

  Raises:
    RunError: if there is no checkpoint, or it cannot be used.
  """
  config = _on_this_machine(config)
  assert config.run_dir is not None
  parallel, source = make_parallel(config), make_source(config)
  network = network_of(config, source, parallel)
  evaluate = make_evaluate(network, source, parallel, config.loss)
  num_steps = config.num_epochs * source.steps_per_epoch
  steps, weights = {}, {}
  for name, constrained in config.networks.items():
    directory = config.run_dir / 'checkpoints' / name
    if not directory.is_dir():
      continue
    tx = make_optimizer(config, num_steps, constrained)
    trainer = Trainer(
      name, network, tx, source, parallel, evaluate, config, config.run_dir
    )
    with Checkpoints(directory, config.keep) as checkpoints:
      step = checkpoints.best() if which == 'best' else None
      state = checkpoints.restore(trainer.abstract_state(), trainer.facts, step)
    if state is not None:
      steps[name], weights[name] = int(state.step), evaluated(state)
  if not weights:
    raise RunError(f'The run in {config.run_dir} has no checkpoint.')
  return Restored(config, source, network, evaluate, steps, weights)


def evaluate_run(
  config: TrainConfig, which: Literal['latest', 'best'] = 'latest'
) -> list[Evaluation]:
  """Evaluates the checkpoints of a run on the test pictures.

  Args:
    config: the settings of the run, as
      :func:`bort_jax.train.run_dir.read_config` gives them.
    which: the newest checkpoint, or that of the highest test accuracy.

  Returns:
    An evaluation of every network of the run that has a checkpoint.

  Raises:
    RunError: if there is no checkpoint, or it cannot be used.
  """
  run = restore_run(config, which)
  return [
    Evaluation(
      name,
      run.steps[name],
      *run.evaluate(params, stats),
      largest_error(params, run.config.amplitude),
    )
    for name, (params, stats) in run.weights.items()
  ]


def _on_this_machine(config: TrainConfig) -> TrainConfig:
  """The settings with as many of these devices as divide the batch."""
  devices = math.gcd(config.batch_size, jax.device_count())
  return dataclasses.replace(config, parallel='jit', fsdp=1, devices=devices)


def read_runs(run_dirs: list[pathlib.Path]) -> list[History]:
  """What every network of some runs has written.

  Args:
    run_dirs: the runs' directories.

  Returns:
    A history for every network that has finished an epoch.

  Raises:
    RunError: if there is none, one is not that of a run, or nothing is written
      yet.
  """
  if not run_dirs:
    raise RunError(
      'compare needs at least one run: give the run directories, as in bort-jax'
      ' compare RUN RUN.'
    )
  histories = []
  for run_dir in run_dirs:
    config = read_config(run_dir)
    for network in config.networks:
      steps, epochs = read_metrics(run_dir, network)
      if epochs:
        pace = _median_pace(run_dir, network)
        histories.append(History(run_dir, network, config, steps, epochs, pace))
  if not histories:
    raise RunError('None of these runs has finished an epoch.')
  return histories


def _median_pace(run_dir: pathlib.Path, network: str) -> float | None:
  rates = [p.images_per_second for p in read_paces(run_dir, network)]
  return float(np.median(rates)) if rates else None
