"""What a survey comes to, layer by layer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from bort_jax.inversion import Layer
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.neurons.consistency import chance, consistency
from bort_jax.metrics.neurons.found import PairSurvey, Survey


class LayerSummary(NamedTuple):
  """One layer. Consistencies are means over the units that have one of each.

  That of both is not to be held against chance as it is: a picture and its
  adversarial one are of one class, and agree for nothing where both are on top.
  """

  layer: Layer
  units: int
  defined: int  # units with top pictures, real, adversarial, and of both
  real: float  # consistency on real pictures
  adversarial: float
  both: float
  chance: float  # real, of as many random pictures as each unit has top ones
  adversarial_chance: float  # the same of adversarial ones
  pictures: float  # top pictures that a unit has, real, mean; k at most
  adversarial_pictures: float
  cosine: float  # of what the layer makes of both, mean over the pairs
  relative_distance: float
  drift: float  # ‖φ(x) − φ(x*)‖, mean
  bound: float  # L ‖x − x*‖, mean; NaN if no L was given
  of_bound: float  # the drift that came nearest to its bound, over it


def summarize(
  found: PairSurvey, affinity: ArrayLike, bounds: ArrayLike | None = None
) -> list[LayerSummary]:
  """Consistency, likeness and drift of each layer.

  Args:
    found: of :func:`survey_pairs`.
    affinity: (K, K), see :func:`consistency`.
    bounds: (layers,) Lipschitz constants, see :func:`layer_bounds`.

  Returns:
    A summary of each layer, in order. Numbers that are not defined are NaN.

  Raises:
    MetricError: if the affinity or the bounds do not fit.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics import neurons
    >>> outputs = lambda params, x: {'twice': 2 * x.reshape(len(x), -1)}
    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]]).reshape(2, 1, 2, 1)
    >>> found = neurons.survey_pairs(
    ...   outputs, None, [(x, x[::-1], jnp.arange(2))], num_classes=2, count=1
    ... )
    >>> rows = neurons.summarize(found, jnp.eye(2), jnp.array([2.0]))
    >>> print(neurons.summary_table(rows).splitlines()[2])
    | twice | 2 of 2 | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 0 | 1 | 2.83 | 2.83 | 1 |
  """
  layers = found.real.layers
  if bounds is not None and np.shape(bounds) != (len(layers),):
    raise MetricError(
      f'bounds must be of shape ({len(layers)},), one for each layer surveyed,'
      f' got {np.shape(bounds)}: give layer_bounds the same layers.'
    )
  constants = np.full(len(layers), np.nan) if bounds is None else bounds
  both = found.both
  return [
    _summary(found, both, i, affinity, float(constant))
    for i, constant in enumerate(np.asarray(constants, np.float64))
  ]


def _summary(
  found: PairSurvey,
  both: Survey,
  i: int,
  affinity: ArrayLike,
  constant: float,
) -> LayerSummary:
  layer = found.real.layers[i]
  kinds = (found.real, found.adversarial)
  scores = [consistency(s[layer], affinity) for s in (*kinds, both)]
  defined = np.all(np.isfinite(np.stack(scores)), axis=0)
  each = [*scores, *(expected(s, layer, affinity) for s in kinds)]
  each += [jnp.sum(s[layer].fired, axis=1) for s in kinds]
  likeness = found.likeness[i]
  stretch = float(likeness.greatest_stretch)
  return LayerSummary(
    layer,
    len(defined),
    int(defined.sum()),
    *(_mean(np.asarray(values)[defined]) for values in each),
    cosine=float(likeness.cosine.average),
    relative_distance=float(likeness.relative_distance),
    drift=float(likeness.distance.average),
    bound=constant * float(found.change.average),
    of_bound=stretch / constant if constant > 0 else np.nan,
  )


def _mean(values: np.ndarray) -> float:
  return float(values.mean()) if len(values) else np.nan


def expected(survey: Survey, layer: Layer, affinity: ArrayLike) -> jax.Array:
  """(U,) the consistency of as many random pictures as each unit has."""
  fired = jnp.sum(survey[layer].fired, axis=1)
  return chance(survey.counts, affinity, fired)


def summary_table(rows: list[LayerSummary]) -> str:
  """The summaries as a Markdown table.

  Examples:
    >>> from bort_jax.metrics import neurons
    >>> print(neurons.summary_table([]).splitlines()[0][:40])
    | layer | units | consistency, real | ad
  """
  lines = [
    f'| {" | ".join(SUMMARY_HEADINGS)} |',
    '| --- |' + ' ---: |' * (len(SUMMARY_HEADINGS) - 1),
  ]
  lines += [f'| {" | ".join(summary_cells(row))} |' for row in rows]
  return '\n'.join(lines)


SUMMARY_HEADINGS = (
  'layer',
  'units',
  'consistency, real',
  'adversarial',
  'both',
  'chance, real',
  'chance, adversarial',
  'top pictures, real',
  'top pictures, adversarial',
  'cosine',
  'relative distance',
  'drift',
  'bound',
  'greatest share of it',
)


def summary_cells(row: LayerSummary) -> list[str]:
  """A summary as texts, under ``SUMMARY_HEADINGS``.

  Args:
    row: of :func:`summarize`.

  Returns:
    A text for each heading; '–' is not defined.

  Examples:
    >>> from bort_jax.metrics import neurons
    >>> row = neurons.LayerSummary('act1', 8, 7, 0.5, *(11 * [float('nan')]))
    >>> neurons.summary_cells(row)[:4]
    ['act1', '7 of 8', '0.5', '–']
  """
  number = lambda value: f'{value:.3g}' if np.isfinite(value) else _odd(value)
  return [
    str(row.layer),
    f'{row.defined} of {row.units}',
    *map(number, row[3:]),
  ]


def _odd(value: float) -> str:
  return '–' if np.isnan(value) else '∞'


def lost_consistency(found: PairSurvey, layer: Layer, affinity) -> jax.Array:
  """How much consistency each unit loses on adversarial pictures.

  What counts is consistency above :func:`chance`: a unit that fewer adversarial
  pictures activate than real ones gains by that alone.

  Args:
    found: of :func:`survey_pairs`.
    layer: one that was surveyed.
    affinity: (K, K), see :func:`consistency`.

  Returns:
    (U,) that on real pictures less that on adversarial ones, each less what as
    many random pictures get; NaN where one is not defined.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics import neurons
    >>> outputs = lambda params, x: {'sum': x.sum((1, 2))}
    >>> x = jnp.array([0.0, 2.0, 3.0]).reshape(3, 1, 1, 1)
    >>> found = neurons.survey_pairs(
    ...   outputs,
    ...   None,
    ...   [(x, x[::-1], jnp.array([0, 1, 1]))],
    ...   num_classes=2,
    ...   count=2,
    ... )
    >>> neurons.lost_consistency(found, 'sum', jnp.eye(2))
    Array([0.5], dtype=float32)
  """
  real, adversarial = (
    consistency(survey[layer], affinity) - expected(survey, layer, affinity)
    for survey in (found.real, found.adversarial)
  )
  return real - adversarial
