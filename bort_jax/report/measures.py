"""What metrics say of methods, beside a control of random maps."""

import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax import metrics, plots
from bort_jax.report.html import Table
from bort_jax.report.method import Method
from bort_jax.report.png import encode_figure
from bort_jax.report.shown import Shown, attempt
from bort_jax.report.subject import Logits, Subject

_STEPS = 32  # of deletion and insertion, at most
_PIXELS = 4  # of a step, at least
_SUBSETS = 50  # of pixels
_MARK = '†'
_NOTHING: Mapping[str, str] = types.MappingProxyType({})
_NO_RANKING = 'A picture in colours ranks no pixels.'


class Measured(NamedTuple):
  """Of one method and network, over the pictures."""

  deletion: metrics.PerturbationCurve
  insertion: metrics.PerturbationCurve
  faithfulness: jax.Array  # (N,)
  sparseness: jax.Array  # (N,)
  randomized: jax.Array | None  # (N,); None for the control
  envelope: (
    metrics.Envelope | None
  )  # of deletion, where the network has a bound


class Case(NamedTuple):
  """On what methods are measured."""

  subject: Subject
  weights: Any
  forgotten: Any  # parameters that have learned nothing
  x: jax.Array  # (N, H, W, C)
  target: jax.Array  # (N,) what the network predicts
  lipschitz: jax.Array | None  # () of the network, if one is certain


def measure(
  methods: Sequence[Method], case: Case, left_out: Mapping[str, str] = _NOTHING
) -> dict[str, Measured | str]:
  """What all metrics say of each method, and of random maps last.

  Args:
    methods: the methods.
    case: the network and pictures.
    left_out: why, by the names of methods that are not measured.

  Returns:
    The measures by the name of the method, or why there are none; under
    ``metrics.CONTROL`` those of random maps.
  """
  found = {
    m.name: left_out.get(m.name) or attempt(_measure_method, m, case)
    for m in methods
  }
  random = metrics.random_attribution(jax.random.key(3), case.x)
  return {**found, metrics.CONTROL: _measure_maps(case, random, None)}


def _measure_method(method: Method, case: Case) -> Measured:
  explain = lambda weights: method.explain(
    case.subject, weights, case.x, case.target
  )
  maps = explain(case.weights)
  others = explain((case.forgotten, case.weights[1]))
  return _measure_maps(case, maps, _likeness(case, maps, others))


def _likeness(case: Case, maps: jax.Array, others: jax.Array) -> jax.Array:
  """(N,) of maps before and after all parameters forget what they learned.

  The maps are made beforehand, by what is compiled already, and stand for the
  parameters that they are of.
  """
  found = metrics.parameter_randomization(
    _recorded,
    _LogitsOfRecorded(case.subject.logits),
    {'maps': maps, 'weights': case.weights},
    {'maps': others, 'weights': case.weights},
    ['maps'],
    case.x,
    case.target,
  )
  return found.spearman_absolute[:, 0]


class _LogitsOfRecorded(NamedTuple):
  """The network, of parameters that stand beside recorded maps."""

  logits: Logits

  def __call__(self, recorded: Any, x: jax.Array) -> jax.Array:
    """Logits (N, classes)."""
    return self.logits(recorded['weights'], x)


def _recorded(apply_fn: Any, recorded: Any, x: Any, target: Any) -> jax.Array:
  """The maps of all pictures, as a method; they come in one pass."""
  del apply_fn, x, target
  return recorded['maps']


def _measure_maps(
  case: Case, maps: jax.Array, randomized: jax.Array | None
) -> Measured:
  args = case.subject.logits, case.weights, case.x, case.target, maps
  chunk = case.subject.chunk
  steps = min(_STEPS, math.prod(case.x.shape[1:3]) // _PIXELS)
  correlated = metrics.faithfulness_correlation(
    *args, key=jax.random.key(4), runs=_SUBSETS, chunk=chunk
  )
  envelope = None
  if case.lipschitz is not None:
    envelope = metrics.certified_envelope(
      *args, steps=steps, lipschitz=case.lipschitz
    )
  return Measured(
    metrics.deletion(*args, steps=steps, chunk=chunk),
    metrics.insertion(*args, steps=steps, chunk=chunk),
    correlated.correlation,
    metrics.sparseness(jnp.sum(maps, axis=-1)),
    randomized,
    envelope,
  )


COLUMNS = (
  'deletion AUC ↓',
  'insertion AUC ↑',
  'faithfulness ↑',
  'after randomizing ↓',
  'sparseness',
)


def measure_table(
  methods: Sequence[Method],
  measured: Mapping[str, Mapping[str, Measured | str]],
  count: int,
) -> Table:
  """A row for each method in a group for each network.

  Args:
    methods: the methods.
    measured: by the label of the network, what :func:`measure` returns.
    count: of the pictures.

  Returns:
    The table.
  """
  labels = {m.name: m.label for m in methods} | {
    metrics.CONTROL: metrics.CONTROL
  }
  groups = {
    network: [
      _row(labels[name], values, by_name[metrics.CONTROL])
      for name, values in by_name.items()
    ]
    for network, by_name in measured.items()
  }
  caption = (
    f'Mean ± standard error over {count} test pictures, of the class that the'
    f' network predicts. {_MARK} no better than random maps.'
  )
  return Table(caption, ('method', *COLUMNS), groups, metrics.CONTROL)


def _row(label: str, values: Measured | str, control: Any) -> list[str]:
  if isinstance(values, str):
    return [label, *(['–'] * len(COLUMNS))]
  chance = [-control.deletion.auc, control.insertion.auc, control.faithfulness]
  mine = [-values.deletion.auc, values.insertion.auc, values.faithfulness]
  weak = [
    label != metrics.CONTROL and not _mean(one) > _mean(other)
    for one, other in zip(mine, chance, strict=True)
  ]
  return [
    label,
    *(
      _number(value) + (_MARK if is_weak else '')
      for value, is_weak in zip(
        (values.deletion.auc, values.insertion.auc, values.faithfulness),
        weak,
        strict=True,
      )
    ),
    '–' if values.randomized is None else _number(values.randomized),
    _number(values.sparseness),
  ]


def _defined(values: Any) -> np.ndarray:
  values = np.asarray(values, np.float64)
  return values[np.isfinite(values)]


def _mean(values: Any) -> float:
  defined = _defined(values)
  return float(defined.mean()) if len(defined) else float('nan')


def _number(values: Any) -> str:
  """The mean of what is defined and its standard error."""
  defined = _defined(values)
  if not len(defined):
    return 'not defined'
  mean = f'{defined.mean():.3f}'
  if len(defined) == 1:
    return mean
  return f'{mean} ± {defined.std(ddof=1) / len(defined) ** 0.5:.3f}'


def curve_figures(
  methods: Sequence[Method], measured: Mapping[str, Measured | str]
) -> dict[str, Shown]:
  """Each method's curves beside those of random maps.

  Args:
    methods: the methods.
    measured: what :func:`measure` returns for a network.

  Returns:
    A figure for each method, or why there is none.
  """
  control = measured[metrics.CONTROL]
  assert isinstance(control, Measured)
  return {
    method.name: _curves(
      method, measured.get(method.name, _NO_RANKING), control
    )
    for method in methods
  }


def _curves(method: Method, values: Measured | str, control: Measured) -> Shown:
  if isinstance(values, str):
    return Shown(why=values)
  figure = plots.perturbation_curves(
    {method.label: values.deletion, metrics.CONTROL: control.deletion},
    {method.label: values.insertion, metrics.CONTROL: control.insertion},
    envelope=values.envelope,
  )
  caption = (
    f'Deletion AUC {_number(values.deletion.auc)}, insertion AUC'
    f' {_number(values.insertion.auc)}; random maps'
    f' {_number(control.deletion.auc)} and {_number(control.insertion.auc)}.'
  )
  return Shown(encode_figure(figure), caption=caption)
