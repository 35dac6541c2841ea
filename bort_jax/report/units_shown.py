"""The units of a layer as the page shows them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax.metrics import neurons
from bort_jax.report.shown import attempt
from bort_jax.report.strips import strip
from bort_jax.report.subject import Outputs
from bort_jax.report.units_page import LayerUnits, Unit

_REMOVED_ON = 32  # pictures on which units are removed


class Case(NamedTuple):
  """What is the same for all networks of a run."""

  shown: int  # units of each layer
  pixels: np.ndarray  # (N, H, W, C) uint8
  labels: np.ndarray  # (N,)
  names: Sequence[str]  # of the classes
  affinity: Any  # (K, K)


class Shown(NamedTuple):
  """What the units of one network are drawn from."""

  case: Case
  outputs: Outputs
  weights: Any
  x: jax.Array  # (N, H, W, C) pictures in 0 … 1
  changed: np.ndarray  # (N, H, W, C) uint8, adversarial ones
  found: neurons.PairSurvey
  both: neurons.Survey


def shown_layer(shown: Shown, row: neurons.LayerSummary) -> LayerUnits:
  """Those units of a layer that lose most consistency."""
  layer, affinity = row.layer, shown.case.affinity
  kinds = (shown.found.real, shown.found.adversarial, shown.both)
  scores = np.stack([neurons.consistency(s[layer], affinity) for s in kinds])
  lost = np.asarray(neurons.lost_consistency(shown.found, layer, affinity))
  order = [u for u in np.argsort(-lost, kind='stable') if np.isfinite(lost[u])]
  order = order[: shown.case.shown]
  matters = _matters(shown, layer, order)
  units = [
    _unit(
      shown, layer, int(u), [*scores[:, u].tolist(), float(lost[u])], matter
    )
    for u, matter in zip(order, matters, strict=True)
  ]
  rest = f', of which {len(order)} are shown' if len(order) < row.units else ''
  text = (
    f'{row.units} units{rest}; consistency {row.real:.2f} on real, '
    f'{row.adversarial:.2f} on adversarial pictures, chance {row.chance:.2f}'
    f' and {row.adversarial_chance:.2f}'
  )
  return LayerUnits(str(layer), text, units)


def _matters(
  shown: Shown, layer, units: Sequence[int]
) -> Sequence[float | None]:
  """What the predicted class loses without each of some units, mean."""
  unknown = [None] * len(units)
  x = shown.x[:_REMOVED_ON]
  logits = shown.outputs(shown.weights, x).get('logits')
  if logits is None or layer == 'logits' or not units:
    return unknown
  target = jnp.argmax(logits, axis=-1)
  remove = lambda: neurons.influence(
    shown.outputs, shown.weights, x, target, layer=layer, units=units
  )
  found = attempt(remove)
  if isinstance(found, str):
    return unknown
  return np.asarray(found).mean(axis=0).tolist()


def _unit(
  shown: Shown,
  layer: Any,
  unit: int,
  scores: Sequence[float],
  matter: float | None,
) -> Unit:
  before, after, both, lost = map(float, scores)
  text = (
    f'Consistency {before:.2f} on real pictures, {after:.2f} on adversarial'
    f' ones, {both:.2f} on both: it loses {lost:.2f}.'
  )
  if matter is not None:
    text += (
      f' Without it the logit of the class that is predicted falls by'
      f' {matter:.3g}.'
    )
  real, adversarial = shown.found.real, shown.found.adversarial
  return Unit(
    unit,
    _strip(real, layer, unit, shown.case.pixels),
    _strip(adversarial, layer, unit, shown.changed),
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
