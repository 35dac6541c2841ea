"""Curves of deletion and insertion."""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from matplotlib.figure import Figure

from bort_jax.metrics import CONTROL
from bort_jax.plots.colors import OKABE_ITO

# No divisor in common with the colours: of 21 lines none look alike.
_DASHES = ('-', '-.', ':')


class Curve(Protocol):
  """What :func:`bort_jax.metrics.deletion` returns."""

  @property
  def fractions(self) -> Any:
    """(S+1,) shares of the pixels that are changed."""

  @property
  def scores(self) -> Any:
    """(N, S+1) the class's score at each share."""

  @property
  def auc(self) -> Any:
    """(N,) area under each curve."""


class Envelope(Protocol):
  """What :func:`bort_jax.metrics.certified_envelope` returns."""

  @property
  def fractions(self) -> Any:
    """(S+1,) shares of the pixels that are changed."""

  @property
  def lower(self) -> Any:
    """(N, S+1) below which no score is."""

  @property
  def upper(self) -> Any:
    """(N, S+1) above which no score is."""


def perturbation_curves(
  deletion: Mapping[str, Curve],
  insertion: Mapping[str, Curve],
  *,
  envelope: Envelope | None = None,
  score: str = 'probability of the class',
) -> Figure:
  """Mean curves of deletion and insertion, with their standard errors.

  Means, errors and areas are over the pictures for which a score is defined. A
  control of random maps, under the name that ``metrics.compare`` gives it,
  ``metrics.CONTROL``, is drawn grey and dashed.

  Args:
    deletion: curves by the name of their method; they should fall fast.
    insertion: likewise; they should rise fast.
    envelope: certified bounds of the scores of deletion; their means are drawn.
    score: what the scores are, for the axis.

  Returns:
    The figure, deletion left and insertion right.

  Raises:
    ValueError: if there are no curves.

  Examples:
    >>> import types
    >>> import numpy as np
    >>> from bort_jax import plots
    >>> curve = types.SimpleNamespace(
    ...   fractions=np.array([0.0, 1.0]),
    ...   scores=np.array([[1.0, 0.0]]),
    ...   auc=np.array([0.5]),
    ... )
    >>> figure = plots.perturbation_curves({'a': curve}, {'a': curve})
    >>> [panel.get_title() for panel in figure.axes]
    ['deletion', 'insertion']
  """
  if not deletion or not insertion:
    raise ValueError(
      'Give at least one curve of deletion and one of insertion.'
    )
  figure = Figure(figsize=(8, 3), layout='constrained')
  panels = figure.subplots(1, 2, sharey=True)
  looks = _looks([*deletion, *insertion])
  for panel, heading, curves in zip(
    panels, ('deletion', 'insertion'), (deletion, insertion), strict=True
  ):
    panel.set(title=heading, xlabel='share of the pixels', xlim=(0, 1))
    for name, curve in curves.items():
      _draw(panel, name, curve, looks[name])
  panels[0].set_ylabel(score)
  if envelope is not None:
    _draw_envelope(panels[0], envelope)
  for panel in panels:
    panel.legend(frameon=False, fontsize=8)
  return figure


class _Look(NamedTuple):
  color: str
  dashes: str


def _looks(names: list[str]) -> dict[str, _Look]:
  """What each line looks like, wherever it is drawn."""
  methods = [name for name in dict.fromkeys(names) if name != CONTROL]
  looks = map(_Look, itertools.cycle(OKABE_ITO), itertools.cycle(_DASHES))
  return dict(zip(methods, looks, strict=False)) | {
    CONTROL: _Look('0.45', '--')
  }


def _draw(panel, name: str, curve: Curve, look: _Look) -> None:
  fractions = np.asarray(curve.fractions)
  mean, error = _mean_and_error(np.asarray(curve.scores, np.float64))
  area, _ = _mean_and_error(np.asarray(curve.auc, np.float64)[:, None])
  label = f'{name}: AUC {area.item():.3f}'
  panel.plot(fractions, mean, look.dashes, color=look.color, label=label)
  panel.fill_between(
    fractions,
    mean - error,
    mean + error,
    color=look.color,
    alpha=0.15,
    linewidth=0,
  )


def _mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Of the rows that are defined; NaN where there are none."""
  defined = values[np.all(np.isfinite(values), axis=1)]
  if not len(defined):
    unknown = np.full(values.shape[1:], np.nan)
    return unknown, unknown
  spread = defined.std(0, ddof=1) if len(defined) > 1 else 0 * defined[0]
  return defined.mean(0), spread / np.sqrt(len(defined))


def _draw_envelope(panel, envelope: Envelope) -> None:
  limits = panel.get_ylim()
  low, high = (
    _mean_and_error(np.asarray(bound, np.float64))[0]
    for bound in (envelope.lower, envelope.upper)
  )
  panel.fill_between(
    np.asarray(envelope.fractions),
    low,
    high,
    color='0.8',
    alpha=0.5,
    label='certified bounds',
    zorder=0,
  )
  panel.set_ylim(limits)  # bounds are far off: the curves are what is looked at
