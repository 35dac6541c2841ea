"""Networks trained once and kept: arms of an experiment, by their settings."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flax import nnx
from trained import untrained

from bort_jax.train import TrainConfig, train
from bort_jax.train.run_dir import read_config

# What an arm changes, of the settings that all share; None is not trained.
ARMS: dict[str, dict[str, Any]] = {
  'untrained, lecun': {'init': 'lecun', 'trained': False},
  'untrained, orthogonal': {'trained': False},
  'plain from lecun': {'init': 'lecun', 'constraint': 'none'},
  'plain from orthogonal': {'constraint': 'none'},
  'Bort from lecun': {'init': 'lecun'},
  'Bort from orthogonal': {},
  'hard form': {'constraint': 'hard'},
}


class Arm(NamedTuple):
  """A network and what it reached."""

  module: nnx.Module
  accuracy: float | None  # on all test pictures; None if it was not trained


def arm(name: str, config: TrainConfig, seed: int, runs: pathlib.Path) -> Arm:
  """Trains an arm, or finds it trained with the same settings.

  Args:
    name: key of ``ARMS``.
    config: what all arms share.
    seed: of the weights and of the order of the pictures.
    runs: where the runs are kept.

  Returns:
    The network.

  Raises:
    SystemExit: if the run that is there was made with other settings.
  """
  changes = dict(ARMS[name])
  is_trained = changes.pop('trained', True)
  config = dataclasses.replace(config, seed=seed, compare=False, **changes)
  if not is_trained:
    return Arm(untrained(config, config.init), None)
  where = f'{config.data}-{config.model}-{name}-{seed}'.replace(' ', '_')
  run_dir = runs / where
  config = dataclasses.replace(config, run_dir=run_dir, resume=True)
  if (run_dir / 'config.json').exists():
    refuse_another(read_config(run_dir), config)
  comparison = train(config)
  (fit,) = comparison.fits.values()
  module = fit.network.merge(fit.params, fit.stats)
  return Arm(module, comparison.rows[0].test_accuracy)


def accuracies(
  rows: Sequence[Mapping[str, Any]], by: str
) -> dict[str, dict[int, float]]:
  """Of every network that was trained, by its name in a column and by seed."""
  found: dict[str, dict[int, float]] = {}
  for row in rows:
    if row['accuracy'] is not None:
      found.setdefault(row[by], {})[row['seed']] = row['accuracy']
  return found


def refuse_another(found: TrainConfig, config: TrainConfig) -> None:
  """Ends if a run that is there was made with other settings."""
  places = {'run_dir': None, 'data_dir': None, 'resume': False}
  one, other = (
    dataclasses.asdict(dataclasses.replace(c, **places))
    for c in (found, config)
  )
  apart = [name for name in one if one[name] != other[name]]
  if apart:
    raise SystemExit(
      f'{found.run_dir} was made with another {", ".join(apart)}. Remove it, or'
      ' give another --runs.'
    )
