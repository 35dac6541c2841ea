"""Training the same network with and without Bort."""

import json
import math
import pathlib
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from bort_jax import nn, spectrum
from bort_jax.train.config import TrainConfig
from bort_jax.train.data import Dataset, load_dataset
from bort_jax.train.errors import RunError
from bort_jax.train.loop import Fit, Step, evaluate, fit
from bort_jax.train.optimizer import make_optimizers
from bort_jax.train.reconstruction import (
  ReconstructionError,
  reconstruct,
  reconstruction_error,
)
from bort_jax.train.run_dir import RunDir
from bort_jax.train.step import count_correct, to_unit_range

_PICTURES = 256  # test pictures that are reconstructed
CONTROL = 'untrained'


class Row(NamedTuple):
  """One network in the table of a comparison."""

  network: str
  test_accuracy: float  # share of the test pictures
  orthogonality_error: float  # largest of all kernels
  raw_error: float  # mean relative error of the reconstructions
  fitted_error: float  # the same after the best scale of each picture
  seconds: float  # of training, compilation included


class Comparison(NamedTuple):
  """What came out: ``adamw``, ``bort``, and ``untrained``, the control."""

  run_dir: pathlib.Path
  rows: tuple[Row, ...]
  fits: dict[str, Fit]  # of the two trained networks
  pictures: np.ndarray  # (N, H, W, C) test pictures in 0 … 1
  reconstructions: dict[str, np.ndarray]  # of each network, like the pictures
  errors: dict[str, ReconstructionError]  # of each network, (N,) arrays


class Listener:
  """Hears how a comparison goes; this one does nothing with it."""

  def started(
    self,
    run_dir: pathlib.Path,
    num_steps: int,
    findings: tuple[spectrum.Finding, ...],
  ) -> None:
    """Training starts: where it writes, and what is amiss in its settings."""

  def stepped(self, network: str, steps: list[Step]) -> None:
    """Some steps of a network are done."""


def train(config: TrainConfig, listener: Listener | None = None) -> Comparison:
  """Trains a network twice, with plain AdamW and with Bort.

  Both start from the same weights and see the same batches; only the constraint
  differs. The control is the untrained network with orthogonal kernels: what it
  reconstructs, no training brought about.

  Args:
    config: the settings.
    listener: hears how it goes.

  Returns:
    The comparison. Settings, metrics and checkpoints are in its run directory.

  Raises:
    RunError: for settings or data that cannot be used, before anything is
      written; and when training diverges.

  Examples:
    >>> import pathlib, tempfile
    >>> from bort_jax.train import TrainConfig, train
    >>> with tempfile.TemporaryDirectory() as directory:
    ...   run_dir = pathlib.Path(directory, 'run')
    ...   result = train(TrainConfig(run_dir=run_dir, epochs=1))
    >>> [row.network for row in result.rows]
    ['adamw', 'bort', 'untrained']
  """
  listener = listener or Listener()
  dataset = load_dataset(config.data, config.data_dir)
  num_steps = _num_steps(config, dataset)
  optimizers = make_optimizers(config, num_steps)
  model = make_network(config, dataset)
  apply_fn, start = nn.functional(model)
  findings = _check_constraint(config, start)
  run = RunDir(config)
  listener.started(run.path, num_steps, findings)
  fits = {}
  for network, tx in optimizers.items():
    on_steps = lambda steps, network=network: listener.stepped(network, steps)
    fits[network] = fit(
      network, apply_fn, start, tx, dataset, config, run, on_steps
    )
  comparison = _compare(run.path, model, dataset, config, fits)
  table = json.dumps([row._asdict() for row in comparison.rows], indent=2)
  (run.path / 'results.json').write_text(table + '\n')
  return comparison


def make_network(config: TrainConfig, dataset: Dataset) -> nn.SimpleCNN:
  """The network at its start, the same for the same seed."""
  init = (
    nnx.initializers.orthogonal(math.sqrt(config.amplitude))
    if config.init == 'orthogonal'
    else nnx.initializers.lecun_normal()
  )
  image_shape = dataset.train_images.shape[1:]
  sizes = (5, 4, 3) if min(image_shape[:2]) >= 16 else (3, 3, 3)
  try:
    return nn.SimpleCNN(
      image_shape,
      dataset.num_classes,
      widths=config.widths,
      kernel_sizes=config.kernel_sizes or sizes,
      activation=config.activation,
      logit_scale=config.logit_scale,
      kernel_init=init,
      rngs=nnx.Rngs(config.seed),
    )
  except ValueError as error:
    raise RunError(f'Data set {dataset.name!r}: {error}') from None


def _num_steps(config: TrainConfig, dataset: Dataset) -> int:
  per_epoch = len(dataset.train_labels) // config.batch_size
  if per_epoch == 0:
    raise RunError(
      f'batch_size {config.batch_size} is more than the'
      f' {len(dataset.train_labels)} training pictures of {dataset.name!r}.'
    )
  return per_epoch * config.num_epochs


def _check_constraint(config: TrainConfig, params: Any):
  if config.constraint == 'hard':
    return ()
  return spectrum.check(
    params,
    config.learning_rate,
    config.gamma,
    config.amplitude,
    config.weight_decay,
  )


def _compare(
  run_dir: pathlib.Path,
  model: nn.SimpleCNN,
  dataset: Dataset,
  config: TrainConfig,
  fits: dict[str, Fit],
) -> Comparison:
  graphdef, start = nnx.split(model)
  params = {network: result.params for network, result in fits.items()}
  params[CONTROL] = spectrum.polish(start, amplitude=config.amplitude)
  pictures = to_unit_range(dataset.test_images[:_PICTURES])
  run_back = jax.jit(lambda p, x: reconstruct(nnx.merge(graphdef, p), x))
  apply_fn, _ = nn.functional(model)
  correct_fn = jax.jit(partial(count_correct, apply_fn))
  rows, reconstructions, errors = [], {}, {}
  for network, p in params.items():
    reconstructions[network] = run_back(p, pictures)
    errors[network] = reconstruction_error(pictures, reconstructions[network])
    off = spectrum.orthogonality_error(p, amplitude=config.amplitude)
    row = Row(
      network,
      evaluate(correct_fn, p, dataset, config.batch_size),
      max(map(float, jax.tree.leaves(off))),
      float(errors[network].raw.mean()),
      float(errors[network].scale_fitted.mean()),
      fits[network].seconds if network in fits else 0.0,
    )
    rows.append(row)
  to_numpy = lambda tree: jax.tree.map(np.asarray, tree)
  return Comparison(
    run_dir,
    tuple(rows),
    fits,
    to_numpy(pictures),
    to_numpy(reconstructions),
    to_numpy(errors),
  )
