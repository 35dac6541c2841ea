"""From a run to the page of its units."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax import plots
from bort_jax.metrics import neurons
from bort_jax.report import gather, html
from bort_jax.report.attacked import Attacked, AttackKind, attacked
from bort_jax.report.run import summary_of
from bort_jax.report.shown import attempt
from bort_jax.report.subject import Outputs
from bort_jax.report.units_page import (
  UNITS_PAGE,
  NetworkUnits,
  UnitsContent,
  render_units,
)
from bort_jax.report.units_shown import Case, Shown, shown_layer
from bort_jax.report.write import check_place, write_whole
from bort_jax.train.adversarial import check_epsilon
from bort_jax.train.config import TrainConfig
from bort_jax.train.errors import RunError
from bort_jax.train.report import Restored, restore_run
from bort_jax.train.run_dir import read_config
from bort_jax.train.step import to_unit_range

_BATCH = 256


class Asked(NamedTuple):
  """What is asked of a run."""

  attack: AttackKind = 'pgd'
  epsilon: float | None = None  # by default that of the run's training
  pictures: int = 1000
  count: int = 9
  units: int = 12
  layers: Sequence[str] = ()
  tree: pathlib.Path | None = None


def survey_run(
  run_dir: pathlib.Path,
  asked: Asked,
  *,
  output: pathlib.Path | None = None,
  checkpoint: Literal['latest', 'best'] = 'latest',
  data_dir: pathlib.Path | None = None,
  tell: Callable[[str], None] = lambda text: None,
) -> pathlib.Path:
  """Writes the page of a run's units: one file that needs no other.

  Args:
    run_dir: the run's directory.
    asked: what is shown of it.
    output: where to write; by default ``neurons.html`` in the run's directory.
    checkpoint: the newest one, or that of the highest test accuracy.
    data_dir: TFDS directory, if it is no longer where the run found it.
    tell: hears what is being done.

  Returns:
    Where the page is. It is there as a whole or not at all.

  Raises:
    RunError: if there is no run or checkpoint, a number is out of range, or
      the page cannot be written.
    MetricError: for a layer that does not exist, or a tree that does not cover
      the classes.
  """
  config = read_config(run_dir, data_dir)
  output = output or run_dir / UNITS_PAGE
  check_place(output)
  epsilon = asked.epsilon
  epsilon = config.adversarial.epsilon if epsilon is None else epsilon
  _check(asked, epsilon)
  tell('restoring the networks')
  run = restore_run(config, checkpoint)
  write_whole(output, render_units(_content(run, asked, epsilon, tell)))
  return output


def _check(asked: Asked, epsilon: float) -> None:
  check_epsilon(epsilon)
  for name in ('pictures', 'count', 'units'):
    if getattr(asked, name) < 1:
      raise RunError(f'{name} must be at least 1, got {getattr(asked, name)}.')


def _content(
  run: Restored, asked: Asked, epsilon: float, tell: Callable[[str], None]
) -> UnitsContent:
  names = gather.class_names(run.config, run.source.num_classes)
  affinity, nearness = _affinity(run.config, names, asked.tree)
  test = gather.first_test_pictures(run.source, asked.pictures)
  case = Case(asked.units, test.pixels, test.labels, names, affinity)
  x = to_unit_range(test.pixels)
  networks = []
  tell('adversarial pictures')
  for attack in attacked(run, x, test.labels, asked.attack, epsilon):
    tell(f'{attack.name}: units')
    networks.append(_network(run, asked, case, x, attack))
    tell('adversarial pictures')
  assert run.config.run_dir is not None
  return UnitsContent(
    f'Units of {run.config.run_dir.resolve().name}',
    summary_of(run),
    _foreword(asked, epsilon, len(x), nearness),
    networks,
  )


def _affinity(
  config: TrainConfig, names: Sequence[str], tree: pathlib.Path | None
) -> tuple[jax.Array, str]:
  """How near the classes are, and where that is from."""
  if tree is not None:
    links = neurons.read_class_tree(tree)
    distances = neurons.class_distances(links, names)
    return neurons.affinity(distances), f'the class tree {tree.name}'
  found = attempt(neurons.class_affinity, config.data)
  if isinstance(found, str):
    return jnp.eye(len(names)), 'each class by itself, for want of a tree'
  return found, f'the class tree of {config.data} that comes with bort_jax'


def _foreword(
  asked: Asked, epsilon: float, pictures: int, nearness: str
) -> list[str]:
  how = {
    'pgd': f'PGD, 10 steps, ε = {epsilon:g}, on each network itself',
    'fgsm': f'FGSM, ε = {epsilon:g}, on each network itself',
    'ensemble': 'one attack on all networks of the run at once, towards the'
    ' least likely class',
  }
  return [
    f'{pictures} test pictures, the {asked.count} that activate a unit'
    f' most; adversarial pictures by {how[asked.attack]}. Classes are near each'
    f' other by {nearness}. Units are sorted by how much consistency they lose'
    ' on adversarial pictures, above that of as many random ones.',
    'After Dong et al., Towards Interpretable Deep Neural Networks by'
    ' Leveraging Adversarial Examples (arXiv 1901.09035 and 1708.05493), of'
    ' which only abstracts and descriptions were at hand: the formulas and'
    ' constants are a reading of them, not the published ones.',
  ]


def _network(
  run: Restored, asked: Asked, case: Case, x: jax.Array, attack: Attacked
) -> NetworkUnits:
  outputs, weights = Outputs(run.network), run.weights[attack.name]
  label = plots.label_of(attack.name, run.config.constraint)
  layers = list(asked.layers) or None
  found = neurons.survey_pairs(
    outputs,
    weights,
    (
      (x[i : i + _BATCH], attack.x[i : i + _BATCH], case.labels[i : i + _BATCH])
      for i in range(0, len(x), _BATCH)
    ),
    num_classes=len(case.names),
    layers=layers,
    count=asked.count,
    allow_empty=True,
  )
  names = found.real.layers
  bounds = attempt(neurons.layer_bounds, outputs, weights, x[:1], names)
  known = None if isinstance(bounds, str) else bounds
  rows = neurons.summarize(found, case.affinity, known)
  text = [_on_attack(label, attack.success, asked.attack)]
  if isinstance(bounds, str):
    text.append(f'There are no bounds: {bounds}')
  changed = np.round(255 * attack.x).astype(np.uint8)
  shown = Shown(case, outputs, weights, x, changed, found, found.both)
  return NetworkUnits(
    attack.name,
    label,
    text,
    _table(label, rows),
    [shown_layer(shown, row) for row in rows],
  )


def _on_attack(label: str, success: float, attack: AttackKind) -> str:
  what = 'make it see the class that was sought'
  if attack != 'ensemble':
    what = 'are not seen as what they are'
  return f'{success:.1%} of the adversarial pictures {what}, by {label}.'


def _table(label: str, rows: Sequence[neurons.LayerSummary]) -> html.Table:
  cells = [neurons.summary_cells(row) for row in rows]
  return html.Table(f'Layers of {label}', neurons.SUMMARY_HEADINGS, {'': cells})
