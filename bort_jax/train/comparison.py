"""A run: one network, or the same one with and without Bort."""

import json
import pathlib
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from bort_jax import spectrum
from bort_jax.inversion import reconstruct, until
from bort_jax.metrics import ReconstructionError, reconstruction_error
from bort_jax.nn import PatchNet, SimpleCNN, functional
from bort_jax.train.config import TrainConfig
from bort_jax.train.consistent import check_layers
from bort_jax.train.kernels import largest_error
from bort_jax.train.loop import Evaluate, Fit, Trainer, make_evaluate
from bort_jax.train.metrics import Pace, Step
from bort_jax.train.network import Network, make_model, make_network
from bort_jax.train.optimizer import make_optimizer
from bort_jax.train.parallel import Parallel, make_parallel
from bort_jax.train.preemption import Preemption
from bort_jax.train.run_dir import check_run_dir, open_run_dir
from bort_jax.train.source import Source, make_source
from bort_jax.train.step import to_unit_range

_PICTURES = 256  # test pictures that are reconstructed
# The last features before pooling, of networks with a published backward rule.
_FEATURES = {SimpleCNN: 'act3', PatchNet: 'features'}
CONTROL = 'untrained'


class Row(NamedTuple):
  """One network in the table of a comparison."""

  network: str
  test_accuracy: float  # share of the test pictures
  orthogonality_error: float  # largest of all kernels
  raw_error: float | None  # mean relative error of the reconstructions
  fitted_error: float | None  # the same after the best scale of each picture
  seconds: float  # of its training steps, as Fit has them


class Comparison(NamedTuple):
  """What came out.

  The networks are ``bort``, the plain one by its optimizer's name, and
  ``untrained``, the control, where both were trained. Reconstructions are those
  of SimpleCNN and PatchNet; for other networks there are none.
  """

  run_dir: pathlib.Path
  rows: tuple[Row, ...]
  fits: dict[str, Fit]  # of the trained networks
  pictures: np.ndarray  # (N, H, W, C) test pictures in 0 … 1
  reconstructions: dict[str, np.ndarray]  # of each network, like the pictures
  errors: dict[str, ReconstructionError]  # of each network, (N,) arrays
  config: TrainConfig

  def __repr__(self) -> str:
    # Whoever prints it wants the table, not a thousand lines of arrays.
    rows = ''.join(f'\n  {row},' for row in self.rows)
    return f'Comparison(run_dir={str(self.run_dir)!r}, rows=({rows}\n))'


class Start(NamedTuple):
  """What is known when training starts."""

  run_dir: pathlib.Path
  networks: tuple[str, ...]  # in the order of their training
  num_steps: int  # of each
  findings: tuple[spectrum.Finding, ...]  # what is amiss in the settings


class Listener:
  """Hears how a run goes; this one does nothing with it."""

  def started(self, start: Start) -> None:
    """Training starts."""

  def stepped(self, network: str, steps: list[Step], pace: Pace | None) -> None:
    """Some steps of a network are done; the first one alone has no pace."""


def train(config: TrainConfig, listener: Listener | None = None) -> Comparison:
  """Trains a network, by default twice: without Bort and with it.

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
      written; when training diverges; and when it is preempted.

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
  check_run_dir(config)  # before anything that takes long
  parallel = make_parallel(config)
  source = make_source(config)
  network = network_of(config, source, parallel)
  check_layers(config.adversarial, network, source.image_shape)
  num_steps = config.num_epochs * source.steps_per_epoch
  optimizers = {
    name: make_optimizer(config, num_steps, constrained)
    for name, constrained in config.networks.items()
  }
  evaluate = make_evaluate(network, source, parallel, config.loss)
  findings = _findings(config, network, parallel)
  run_dir = open_run_dir(config)
  listener.started(Start(run_dir, tuple(optimizers), num_steps, findings))
  trainers = {
    name: Trainer(
      name, network, tx, source, parallel, evaluate, config, run_dir
    )
    for name, tx in optimizers.items()
  }
  with Preemption() as preemption:
    fits = {
      name: trainer.fit(partial(listener.stepped, name), preemption)
      for name, trainer in trainers.items()
    }
  comparison = _compare(
    run_dir, network, source, config, parallel, evaluate, fits
  )
  if jax.process_index() == 0:
    table = json.dumps([row._asdict() for row in comparison.rows], indent=2)
    (run_dir / 'results.json').write_text(table + '\n')
  return comparison


def network_of(
  config: TrainConfig, source: Source, parallel: Parallel
) -> Network:
  """The network of a run as pure functions."""
  return make_network(
    partial(
      make_model,
      config,
      source.image_shape,
      source.num_classes,
      parallel.axis_name,
    )
  )


def _findings(
  config: TrainConfig, network: Network, parallel: Parallel
) -> tuple[spectrum.Finding, ...]:
  if config.constraint != 'soft' or config.optimizer == 'lamb':
    return ()
  params, _ = parallel.init(network.init)
  return spectrum.check(
    params,
    config.learning_rate,
    config.gamma,
    config.amplitude,
    config.weight_decay,
    config.momentum if config.optimizer == 'sgd' else 0.0,
    mode=config.mode,
    every=config.every,
  )


def _compare(
  run_dir: pathlib.Path,
  network: Network,
  source: Source,
  config: TrainConfig,
  parallel: Parallel,
  evaluate: Evaluate,
  fits: dict[str, Fit],
) -> Comparison:
  # Bort is trained first, for its settings can fail, and stands last.
  weights = {
    name: (fit.params, fit.stats) for name, fit in reversed(fits.items())
  }
  if len(fits) > 1:
    params, stats = parallel.init(network.init)
    polish = partial(spectrum.polish, amplitude=config.amplitude)
    weights[CONTROL] = jax.jit(polish)(params), stats
  pictures, results, errors = _reconstructions(network, weights, source)
  rows = []
  for name, (params, stats) in weights.items():
    error = errors.get(name)
    row = Row(
      name,
      fits[name].epochs[-1].test_accuracy
      if name in fits
      else evaluate(params, stats)[1],
      largest_error(params, config.amplitude),
      None if error is None else float(error.raw.mean()),
      None if error is None else float(error.scale_fitted.mean()),
      fits[name].seconds if name in fits else 0.0,
    )
    rows.append(row)
  to_numpy = lambda tree: jax.tree.map(np.asarray, tree)
  return Comparison(
    run_dir,
    tuple(rows),
    dict(reversed(fits.items())),
    to_numpy(pictures),
    to_numpy(results),
    to_numpy(errors),
    config,
  )


def _reconstructions(network: Network, weights, source: Source):
  """Some pictures, what each network makes of them, and the errors, by name."""
  model = type(network.merge(*jax.eval_shape(network.init)))
  if model not in _FEATURES:
    return np.zeros((0, *source.image_shape)), {}, {}
  pictures = to_unit_range(source.pictures(_PICTURES))

  @jax.jit
  def run_back(params, stats, pictures):
    outputs, values = functional(network.merge(params, stats), 'intermediates')
    features = until(outputs, _FEATURES[model])
    return reconstruct(features, values, pictures, method='published').x

  results = {
    name: run_back(*arrays, pictures) for name, arrays in weights.items()
  }
  errors = {
    name: reconstruction_error(pictures, result)
    for name, result in results.items()
  }
  return pictures, results, errors
