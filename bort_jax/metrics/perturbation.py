"""Deletion and insertion: how a class's score follows the ranked pixels."""

import dataclasses
import functools
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.metrics import conventions as conv
from bort_jax.metrics.checks import (
  ApplyFn,
  check_choice,
  undefined_if_not_finite,
)
from bort_jax.metrics.chunks import over_pairs, within_memory
from bort_jax.metrics.plan import Plan, make_plan
from bort_jax.metrics.ranking import pixel_ranks
from bort_jax.metrics.scores import score_of
from bort_jax.metrics.substrate import Baseline

_static = {'static': True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PerturbationCurve:
  """A class's score while pixels go or come, and how that was computed."""

  fractions: jax.Array  # (S + 1,) of the pixels that are changed, 0 … 1
  scores: jax.Array  # (N, S + 1)
  auc: jax.Array  # (N,) area under scores over fractions
  direction: conv.Direction = dataclasses.field(metadata=_static)
  convention: conv.Convention = dataclasses.field(metadata=_static)
  score: str = dataclasses.field(metadata=_static)  # softmax, logit …
  baseline: str = dataclasses.field(metadata=_static)  # substrate, in words
  ties: conv.Ties = dataclasses.field(metadata=_static)
  first: conv.First = dataclasses.field(metadata=_static)

  @property
  def published_auc(self) -> jax.Array:
    """(N,) the area as the convention's own code defines it.

    For ``'rise'`` and ``'xplique'`` steps count alike, also where they are not;
    for ``'quantus'`` they count as 1 and the whole picture is left out; for
    ``'logit_ratio'`` it is the mean of the scores.
    """
    return conv.published_area(self.scores, self.convention)


def deletion(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  attribution: ArrayLike,
  *,
  steps: int | None = None,
  pixels_per_step: int | None = None,
  convention: conv.Convention = 'rise',
  score: str | None = None,
  baseline: Baseline | None = None,
  ties: conv.Ties | None = None,
  first: conv.First = 'largest',
  chunk: int | None = None,
) -> PerturbationCurve:
  """The score of a class while the pixels that a map ranks first are deleted.

  A faithful map makes it fall fast: less area is better. With
  ``first='smallest'`` the least important go first, as B-cos networks are
  judged: the score should stay, and more area is better. Pixels go with all
  their channels. A convention sets what is not given:

  ============ =========== ======================= ====== ====================
  convention   score       substrate (insertion)   ties   steps
  ============ =========== ======================= ====== ====================
  rise         softmax     0 (blur)                high   of W pixels each
  xplique      logit       0 (0)                   high   10, cut to integers
  quantus      softmax     min (min)               low    of one pixel each
  logit_ratio  logit_ratio 0 (blur)                high   of 10 pixels each
  ============ =========== ======================= ====== ====================

  ``'logit_ratio'`` is that of Bort's authors; from 224×224 on it takes 8 rows a
  step and a kernel of 31 pixels. Quantus counts channels as features of their
  own: C·k of its ``features_in_step`` are k pixels here, and it has no point
  for the whole picture.

  ``auc`` is over true fractions in every convention, so that curves compare;
  ``published_auc`` is each tool's own number.

  Args:
    apply_fn: ``apply_fn(params, x)`` returns logits (N, K), each of a picture
      alone (no batch statistics).
    params: its parameters.
    x: pictures (N, H, W, C), floats.
    target: (N,) int, 0 … K − 1. The published protocols take what the network
      predicts for x.
    attribution: (N, H, W), (N, H, W, 1) or (N, H, W, C), signed; channels are
      summed.
    steps: S, equal up to rounding.
    pixels_per_step: pixels of a step, instead; the last may be shorter.
    convention: which tool's.
    score: ``'softmax'``, ``'logit'``, or ``'logit_ratio'``, the logit over that
      of the whole picture.
    baseline: what stands for deleted pixels: a number or an array that
      broadcasts to x; ``'blur'`` (:func:`blurred`; ``'blur31'`` of 31 pixels);
      ``'mean'`` of each channel of a picture; ``'min'``, its least number.
    ties: which of equal pixels goes first, that of lowest or highest index,
      row by row. Of a constant map this is all that is judged.
    first: which end of the ranking goes first, that of the ``'largest'`` or the
      ``'smallest'`` numbers.
    chunk: pictures in one pass; by default N. Results do not depend on it.

  Returns:
    The curve; its first score is of x, its last of the substrate. NaN for a
    picture whose map is not finite, and for ratios to a logit of 0.

  Raises:
    MetricError: for maps of another shape, targets that do not exist, more
      steps than pixels, a setting that is not known, or too little memory.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> apply_fn = lambda params, x: x.reshape(len(x), -1) @ params
    >>> params = jnp.array([[3.0, 0.0], [1.0, 0.0]])
    >>> x = jnp.ones((1, 1, 2, 1))
    >>> curve = metrics.deletion(
    ...   apply_fn,
    ...   params,
    ...   x,
    ...   jnp.array([0]),
    ...   jnp.array([[[3.0, 1.0]]]),
    ...   steps=2,
    ...   score='logit',
    ... )
    >>> curve.scores.tolist(), curve.auc.tolist()
    ([[4.0, 1.0, 0.0]], [1.5])

  References:
    Petsiuk et al., `RISE: Randomized Input Sampling for Explanation of
    Black-box Models <https://arxiv.org/abs/1806.07421>`_, 2018; Samek et al.,
    `Evaluating the visualization of what a deep neural network has learned
    <https://arxiv.org/abs/1509.06321>`_, 2015; Böhle et al., `B-cos Networks:
    Alignment is All We Need for Interpretability
    <https://arxiv.org/abs/2205.10268>`_, 2022
  """
  check_choice('first', first, get_args(conv.First))
  case = apply_fn, params, x, target, attribution
  options = steps, pixels_per_step, convention, score, baseline, ties, chunk
  return _curve('deletion', first, *case, *options)


def insertion(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  attribution: ArrayLike,
  *,
  steps: int | None = None,
  pixels_per_step: int | None = None,
  convention: conv.Convention = 'rise',
  score: str | None = None,
  baseline: Baseline | None = None,
  ties: conv.Ties | None = None,
  chunk: int | None = None,
) -> PerturbationCurve:
  """The score of a class while the pixels a map ranks first are put back.

  A faithful map makes it rise fast: more area is better. The first score is of
  the substrate, the last of the whole picture.

  Args:
    apply_fn: see :func:`deletion`, like all that follows.
    params: see there.
    x: see there.
    target: see there.
    attribution: see there.
    steps: see there.
    pixels_per_step: see there.
    convention: see there.
    score: see there.
    baseline: what the pixels are put on.
    ties: see there.
    chunk: see there.

  Returns:
    The curve.

  Raises:
    MetricError: as for :func:`deletion`.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> apply_fn = lambda params, x: x.reshape(len(x), -1) @ params
    >>> params = jnp.array([[3.0, 0.0], [1.0, 0.0]])
    >>> x = jnp.ones((1, 1, 2, 1))
    >>> curve = metrics.insertion(
    ...   apply_fn,
    ...   params,
    ...   x,
    ...   jnp.array([0]),
    ...   jnp.array([[[3.0, 1.0]]]),
    ...   steps=2,
    ...   score='logit',
    ...   baseline=0.0,
    ... )
    >>> curve.scores.tolist(), curve.auc.tolist()
    ([[0.0, 3.0, 4.0]], [2.5])

  References:
    Petsiuk et al., `RISE: Randomized Input Sampling for Explanation of
    Black-box Models <https://arxiv.org/abs/1806.07421>`_, 2018
  """
  case = apply_fn, params, x, target, attribution
  options = steps, pixels_per_step, convention, score, baseline, ties, chunk
  return _curve('insertion', 'largest', *case, *options)


def _curve(
  direction, first, apply_fn, params, x, target, attribution, *options
) -> PerturbationCurve:
  plan, case = make_plan(
    direction, apply_fn, params, x, target, attribution, *options
  )
  if first == 'smallest':
    case = case._replace(maps=-case.maps)
  found = within_memory(
    _measured, apply_fn, plan, params, *case, chunk=plan.chunk
  )
  return PerturbationCurve(
    found.fractions,
    found.scores,
    found.auc,
    plan.direction,
    plan.convention,
    plan.score,
    plan.baseline,
    plan.ties,
    first,
  )


class _Measured(NamedTuple):
  fractions: jax.Array
  scores: jax.Array
  auc: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1))
def _measured(apply_fn, plan: Plan, params, x, target, maps, base) -> _Measured:
  ranks = pixel_ranks(maps, plan.ties)
  counts = jnp.asarray(plan.counts)
  kept, put = (x, base) if plan.direction == 'deletion' else (base, x)

  def score(step, picture):
    changed = ranks[picture] < counts[step][:, None, None]
    mixed = jnp.where(changed[..., None], put[picture], kept[picture])
    kind = 'softmax' if plan.score == 'softmax' else 'logit'
    return score_of(apply_fn(params, mixed), target[picture], kind)

  scores = over_pairs(score, len(plan.counts), len(x), plan.chunk)
  if plan.score == 'logit_ratio':
    whole = scores[:, :1] if plan.direction == 'deletion' else scores[:, -1:]
    scores = jnp.where(whole == 0, jnp.nan, scores / whole)
  scores = undefined_if_not_finite(scores, maps)
  fractions = jnp.asarray(plan.fractions, scores.dtype)
  return _Measured(fractions, scores, conv.true_area(scores, fractions))
