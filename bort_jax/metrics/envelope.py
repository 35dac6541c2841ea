"""What a Lipschitz constant guarantees of a deletion curve."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from bort_jax.inversion.certificate import certificate
from bort_jax.metrics import conventions as conv
from bort_jax.metrics.checks import ApplyFn, undefined_if_not_finite, wide
from bort_jax.metrics.plan import Plan, make_plan
from bort_jax.metrics.ranking import pixel_ranks
from bort_jax.metrics.scores import score_of
from bort_jax.metrics.substrate import Baseline
from bort_jax.validation import check_number, is_known

_ROUNDINGS = 100  # as many as the certificate allows for


class Envelope(NamedTuple):
  """Between what the scores of a curve are certain to lie."""

  fractions: jax.Array  # (S + 1,) of the pixels that are changed
  lower: jax.Array  # (N, S + 1)
  upper: jax.Array  # (N, S + 1)
  distance: jax.Array  # (N, S + 1) ‖x − x_masked‖ in the 2-norm
  lipschitz: jax.Array  # () of the logits, in the 2-norm


def certified_envelope(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  attribution: ArrayLike,
  *,
  direction: conv.Direction = 'deletion',
  lipschitz: ArrayLike | None = None,
  steps: int | None = None,
  pixels_per_step: int | None = None,
  convention: conv.Convention = 'rise',
  score: str | None = None,
  baseline: Baseline | None = None,
  ties: conv.Ties | None = None,
) -> Envelope:
  r"""Bounds of a deletion or insertion curve, without computing it.

  A logit moves by at most L·d, d = ‖x − x_masked‖. The log-odds of a class,
  z_t − log Σ e^z of the others, have a gradient of norm ≤ √2 in z, so they move
  by at most √2·L·d, and the probability stays between the sigmoids of both
  ends. The products that L is made of are far from tight for deep networks.

  The bounds are widened by what rounding is taken to do to a pass: 100 times
  that of a number as large as the logits.

  Args:
    apply_fn: see :func:`deletion`.
    params: see there.
    x: see there.
    target: see there.
    attribution: see there.
    direction: of which curve.
    lipschitz: L, ≥ 0 and infinite if need be; by default
      ``inversion.certificate(apply_fn, params, x).upper``.
    steps: see :func:`deletion`, like all that follows.
    pixels_per_step: see there.
    convention: see there.
    score: see there.
    baseline: see there.
    ties: see there.

  Returns:
    The bounds at the points of the curve. They are wide open where L is
    infinite, and NaN where the curve is.

  Raises:
    MetricError: as for :func:`deletion`.
    InversionError: for a function that the certificate cannot read.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> apply_fn = lambda params, x: x.reshape(len(x), -1) @ params
    >>> params = jnp.array([[0.6, 0.0], [0.8, 0.0]])
    >>> x, target = jnp.ones((1, 1, 2, 1)), jnp.array([0])
    >>> case = apply_fn, params, x, target, x
    >>> bounds = metrics.certified_envelope(*case, steps=2, score='logit')
    >>> curve = metrics.deletion(*case, steps=2, score='logit')
    >>> bool(jnp.all(bounds.lower <= curve.scores))
    True
    >>> [round(float(bound), 2) for bound in bounds.lower[0]]
    [1.4, 0.4, -0.01]
  """
  options = steps, pixels_per_step, convention, score, baseline, ties, None
  plan, case = make_plan(
    direction, apply_fn, params, x, target, attribution, *options
  )
  if lipschitz is None:
    lipschitz = certificate(apply_fn, params, case.x).upper
  elif is_known(lipschitz):
    finite = np.minimum(np.asarray(lipschitz, float), 1)  # infinity passes
    check_number('lipschitz', finite)
  return _envelope(apply_fn, plan, params, *case, jnp.asarray(lipschitz))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _envelope(
  apply_fn, plan: Plan, params, x, target, maps, base, lipschitz
) -> Envelope:
  logits = apply_fn(params, x)
  dtype = wide(logits.dtype)
  rounding = _ROUNDINGS * float(jnp.finfo(logits.dtype).eps)
  logits = logits.astype(dtype)
  distance = _distances(plan, x, base, maps).astype(dtype)
  lipschitz = lipschitz.astype(dtype)
  # of no distance nothing moves, whatever the constant
  reach = jnp.where(distance == 0, 0, lipschitz * distance)
  largest = jnp.max(jnp.abs(logits), axis=1, keepdims=True)
  rounded = rounding * (1 + largest + reach)
  start = score_of(logits, target, 'logit')[:, None]
  match plan.score:
    case 'softmax':
      odds = _log_odds(logits, target)[:, None]
      lower, upper = _chances(odds, 2**0.5 * reach + 2 * rounded)
    case 'logit':
      lower, upper = start - reach - rounded, start + reach + rounded
    case _:
      least = jnp.maximum(jnp.abs(start) - rounded, 0)
      part = (reach + 2 * rounded) / least
      part = jnp.where(start == 0, jnp.nan, part)
      lower, upper = 1 - part, 1 + part
  lower, upper = (undefined_if_not_finite(b, maps) for b in (lower, upper))
  fractions = jnp.asarray(plan.fractions, dtype)
  return Envelope(fractions, lower, upper, distance, lipschitz)


def _chances(odds: jax.Array, reach: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The least and greatest probability of log-odds that move so far."""
  slack = _ROUNDINGS * float(jnp.finfo(odds.dtype).eps)
  lower = jax.nn.sigmoid(odds - reach) - slack
  upper = jax.nn.sigmoid(odds + reach) + slack
  return jnp.clip(lower, 0, 1), jnp.clip(upper, 0, 1)


def _log_odds(logits: jax.Array, target: jax.Array) -> jax.Array:
  """(N,) log p / (1 − p) of the target."""
  chosen = jnp.arange(logits.shape[1])[None] == target[:, None]
  others = jnp.where(chosen, -jnp.inf, logits)
  return score_of(logits, target, 'logit') - jax.nn.logsumexp(others, axis=1)


def _distances(
  plan: Plan, x: jax.Array, base: jax.Array, maps: jax.Array
) -> jax.Array:
  """(N, S + 1) from each picture to itself with its pixels replaced."""
  dtype = wide(x.dtype)
  change = x.astype(dtype) - base.astype(dtype)
  energy = jnp.sum(jnp.square(change), axis=-1)
  ranks = pixel_ranks(maps, plan.ties)
  order = jnp.argsort(ranks.reshape(len(x), plan.counts[-1]), axis=1)
  energy = jnp.take_along_axis(
    energy.reshape(len(x), plan.counts[-1]), order, axis=1
  )
  if plan.direction == 'insertion':  # what is not yet there is far
    energy = energy[:, ::-1]
  total = jnp.cumsum(jnp.pad(energy, ((0, 0), (1, 0))), axis=1)
  counts = jnp.asarray(plan.counts)
  if plan.direction == 'insertion':
    counts = plan.counts[-1] - counts
  slack = 1 + _ROUNDINGS * float(jnp.finfo(dtype).eps)
  return slack * jnp.sqrt(total[:, counts])
