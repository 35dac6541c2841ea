"""From a run to the page of its units."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax import plots
from bort_jax.metrics import neurons
from bort_jax.report import gather, html
from bort_jax.report.attacked import AttackKind, attacked
from bort_jax.report.run import summary_of
from bort_jax.report.shown import attempt
from bort_jax.report.strips import strip
from bort_jax.report.subject import Outputs
from bort_jax.report.units_page import (
  UNITS_PAGE,
  LayerUnits,
  NetworkUnits,
  Unit,
  UnitsContent,
  render_units,
)
from bort_jax.report.write import check_place, write_whole
from bort_jax.train.adversarial import check_epsilon
from bort_jax.train.config import TrainConfig
from bort_jax.train.errors import RunError
from bort_jax.train.report import Restored, restore_run
from bort_jax.train.run_dir import read_config
from bort_jax.train.step import to_unit_range

_BATCH = 256
_REMOVED_ON = 32  # pictures on which units are removed


class Asked(NamedTuple):
  """What is asked of a run."""

  attack: AttackKind = 'pgd'
  epsilon: float = 0.1
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
  config = read_config(run_dir)
  if data_dir is not None:
    config = dataclasses.replace(config, data_dir=data_dir)
  output = output or run_dir / UNITS_PAGE
  check_place(output)
  _check(asked)
  tell('restoring the networks')
  run = restore_run(config, checkpoint)
  write_whole(output, render_units(_content(run, asked, tell)))
  return output


def _check(asked: Asked) -> None:
  check_epsilon(asked.epsilon)
  for name in ('pictures', 'count', 'units'):
    if getattr(asked, name) < 1:
      raise RunError(f'{name} must be at least 1, got {getattr(asked, name)}.')


class _Case(NamedTuple):
  """What is the same for all networks of a run."""

  asked: Asked
  pixels: np.ndarray  # (N, H, W, C) uint8
  labels: np.ndarray  # (N,)
  names: Sequence[str]  # of the classes
  affinity: Any  # (K, K)


def _content(
  run: Restored, asked: Asked, tell: Callable[[str], None]
) -> UnitsContent:
  names = gather.class_names(run.config, run.source.num_classes)
  affinity, nearness = _affinity(run.config, names, asked.tree)
  test = gather.first_test_pictures(run.source, asked.pictures)
  case = _Case(asked, test.pixels, test.labels, names, affinity)
  x = to_unit_range(test.pixels)
  networks = []
  for name, weights in run.weights.items():
    label = plots.label_of(name, run.config.constraint)
    tell(f'{label}: adversarial pictures')
    made, success = attacked(
      run, name, x, test.labels, asked.attack, asked.epsilon
    )
    tell(f'{label}: units')
    networks.append(_network(run, case, label, name, weights, made, success))
  assert run.config.run_dir is not None
  return UnitsContent(
    f'Units of {run.config.run_dir.resolve().name}',
    summary_of(run),
    _foreword(case, nearness),
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


def _foreword(case: _Case, nearness: str) -> list[str]:
  asked = case.asked
  how = {
    'pgd': f'PGD, 10 steps, ε = {asked.epsilon:g}, on each network itself',
    'fgsm': f'FGSM, ε = {asked.epsilon:g}, on each network itself',
    'ensemble': 'one attack on all networks of the run at once, towards the'
    ' least likely class',
  }
  return [
    f'{len(case.labels)} test pictures, the {asked.count} that activate a unit'
    f' most; adversarial pictures by {how[asked.attack]}. Classes are near each'
    f' other by {nearness}. Units are sorted by how much consistency they lose'
    ' on adversarial pictures.',
    'After Dong et al., Towards Interpretable Deep Neural Networks by'
    ' Leveraging Adversarial Examples (arXiv 1901.09035 and 1708.05493), of'
    ' which only abstracts and descriptions were at hand: the formulas and'
    ' constants are a reading of them, not the published ones.',
  ]


def _network(
  run: Restored, case: _Case, label, name, weights, made, success
) -> NetworkUnits:
  outputs, asked = Outputs(run.network), case.asked
  x = to_unit_range(case.pixels)
  layers = list(asked.layers) or None
  found = neurons.survey_pairs(
    outputs,
    weights,
    (
      (x[i : i + _BATCH], made[i : i + _BATCH], case.labels[i : i + _BATCH])
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
  text = [_on_attack(label, success, asked.attack)]
  if isinstance(bounds, str):
    text.append(f'There are no bounds: {bounds}')
  shown = _Shown(case, outputs, weights, x, made, found)
  return NetworkUnits(
    name,
    label,
    text,
    _table(label, rows),
    [_layer(shown, row) for row in rows],
  )


def _on_attack(label: str, success: float, attack: AttackKind) -> str:
  what = 'make it see the class that was sought'
  if attack != 'ensemble':
    what = 'are not seen as what they are'
  return f'{success:.1%} of the adversarial pictures {what}, by {label}.'


def _table(label: str, rows: Sequence[neurons.LayerSummary]) -> html.Table:
  cells = [neurons.summary_cells(row) for row in rows]
  return html.Table(f'Layers of {label}', neurons.SUMMARY_HEADINGS, {'': cells})


class _Shown(NamedTuple):
  """What the units of one network are drawn from."""

  case: _Case
  outputs: Outputs
  weights: Any
  x: jax.Array
  made: np.ndarray
  found: neurons.PairSurvey


def _layer(shown: _Shown, row: neurons.LayerSummary) -> LayerUnits:
  layer, affinity = row.layer, shown.case.affinity
  kinds = (shown.found.real, shown.found.adversarial, shown.found.both)
  scores = np.stack([neurons.consistency(s[layer], affinity) for s in kinds])
  lost = scores[0] - scores[1]
  order = [u for u in np.argsort(-lost, kind='stable') if np.isfinite(lost[u])]
  order = order[: shown.case.asked.units]
  matters = _matters(shown, layer)
  units = [_unit(shown, layer, int(u), scores[:, u], matters) for u in order]
  rest = f', of which {len(order)} are shown' if len(order) < row.units else ''
  text = (
    f'{row.units} units{rest}; consistency {row.real:.2f} on real, '
    f'{row.adversarial:.2f} on adversarial pictures, chance {row.chance:.2f}'
  )
  return LayerUnits(str(layer), text, units)


def _matters(shown: _Shown, layer) -> np.ndarray | None:
  """(U,) what the predicted class loses without each unit, mean."""
  x = shown.x[:_REMOVED_ON]
  logits = shown.outputs(shown.weights, x).get('logits')
  if logits is None or layer == 'logits':
    return None
  target = jnp.argmax(logits, axis=-1)
  remove = lambda: neurons.influence(
    shown.outputs, shown.weights, x, target, layer=layer
  )
  found = attempt(remove)
  return None if isinstance(found, str) else np.asarray(found).mean(axis=0)


def _unit(
  shown: _Shown,
  layer: Any,
  unit: int,
  scores: np.ndarray,
  matters: np.ndarray | None,
) -> Unit:
  before, after, both = map(float, scores)
  text = (
    f'Consistency {before:.2f} on real pictures, {after:.2f} on adversarial'
    f' ones, {both:.2f} on both: it loses {before - after:.2f}.'
  )
  if matters is not None:
    text += (
      f' Without it the logit of the class that is predicted falls by'
      f' {matters[unit]:.3g}.'
    )
  changed = np.round(255 * shown.made).astype(np.uint8)
  real, adversarial = shown.found.real, shown.found.adversarial
  return Unit(
    unit,
    _strip(real, layer, unit, shown.case.pixels),
    _strip(adversarial, layer, unit, changed),
    _seen(real, layer, unit, shown.case.names),
    _seen(adversarial, layer, unit, shown.case.names),
    text,
  )


def _strip(survey: neurons.Survey, layer, unit: int, pixels: np.ndarray) -> str:
  units = survey[layer]
  fired = np.asarray(units.fired[unit])
  numbers = np.asarray(units.pictures[unit])
  places = survey.places(layer)[unit]
  grid = np.asarray(survey.maps[survey.layers.index(layer)])
  marks = np.full((len(numbers), 2), np.nan)
  if places.shape[1] == 2:
    marks = (places + 0.5) / grid
  pictures = [
    pixels[number] if fires else None
    for number, fires in zip(numbers, fired, strict=True)
  ]
  return strip(pictures, marks)


def _seen(survey: neurons.Survey, layer, unit: int, names) -> list[str]:
  units = survey[layer]
  labels = np.asarray(units.labels[unit])[np.asarray(units.fired[unit])]
  return [names[label] for label in labels]
