"""The two networks that several experiments compare."""

import dataclasses
import pathlib
import tempfile
from typing import NamedTuple

import jax
from flax import nnx

from bort_jax.train import TrainConfig, train
from bort_jax.train.comparison import network_of
from bort_jax.train.parallel import make_parallel
from bort_jax.train.source import make_source
from bort_jax.train.step import to_unit_range


class Trained(NamedTuple):
  """Networks of one run, and pictures that none of them was trained on."""

  plain: nnx.Module
  bort: nnx.Module
  pictures: jax.Array  # (N, H, W, C) in 0 … 1
  accuracies: dict[str, float]  # on all test pictures


def train_both(config: TrainConfig, pictures: int) -> Trained:
  """Trains with and without Bort, in a run directory that is not kept."""
  with tempfile.TemporaryDirectory() as scratch:
    run_dir = pathlib.Path(scratch, 'run')
    comparison = train(dataclasses.replace(config, run_dir=run_dir))
  source = make_source(config)
  network = network_of(config, source, make_parallel(config))
  plain, bort = (
    network.merge(comparison.fits[name].params, comparison.fits[name].stats)
    for name in (config.optimizer, 'bort')
  )
  accuracies = {row.network: row.test_accuracy for row in comparison.rows}
  shown = to_unit_range(source.pictures(pictures))
  return Trained(plain, bort, shown, accuracies)


def untrained(config: TrainConfig, init: str) -> nnx.Module:
  """The network as it is before training."""
  config = dataclasses.replace(config, init=init)
  source = make_source(config)
  network = network_of(config, source, make_parallel(config))
  return network.merge(*network.init())
