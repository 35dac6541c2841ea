"""Whether a map adds up to what it explains."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.metrics.checks import (
  ApplyFn,
  check_choice,
  checked_attribution,
  checked_case,
)
from bort_jax.metrics.scores import Score, score_of
from bort_jax.metrics.substrate import Baseline, check_baseline, substrate


class Completeness(NamedTuple):
  """What a map adds up to, what it should, and by how much it is off."""

  total: jax.Array  # (N,) Σ a
  difference: jax.Array  # (N,) f(x) − f(baseline)
  delta: jax.Array  # (N,) total − difference; 0 is complete


def completeness(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  attribution: ArrayLike,
  *,
  baseline: Baseline = 0.0,
  score: Score = 'logit',
) -> Completeness:
  """By how much a map's sum misses f(x) − f(baseline).

  There is no verdict: what rounding alone leaves depends on the network, so the
  delta is given and the reader compares it with the difference.

  Args:
    apply_fn: ``apply_fn(params, x)`` returns logits (N, K), each of a picture
      alone.
    params: its parameters.
    x: pictures (N, H, W, C), floats.
    target: (N,) int.
    attribution: (N, H, W), (N, H, W, 1) or (N, H, W, C), signed.
    baseline: what the map starts from, see :func:`deletion`.
    score: ``'logit'`` or ``'softmax'``: what the map explains.

  Returns:
    The sums and their difference.

  Raises:
    MetricError: for maps of another shape, targets that do not exist, or a
      setting that is not known.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> apply_fn = lambda params, x: x.reshape(len(x), -1) @ params
    >>> params = jnp.array([[3.0, 0.0], [1.0, 0.0]])
    >>> x = jnp.ones((1, 1, 2, 1))
    >>> metrics.completeness(apply_fn, params, x, jnp.array([0]), 2 * x).delta
    Array([0.], dtype=float32)

  References:
    Sundararajan et al., `Axiomatic Attribution for Deep Networks
    <https://arxiv.org/abs/1703.01365>`_, 2017
  """
  x, target = checked_case(apply_fn, params, x, target)
  maps = checked_attribution(attribution, x.shape)
  check_choice('score', score, ('logit', 'softmax'))
  check_baseline(baseline, x.shape)
  return _completeness(
    apply_fn, score, params, x, target, maps, substrate(baseline, x)
  )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _completeness(
  apply_fn, score, params, x, target, maps, base
) -> Completeness:
  scored = lambda x: score_of(apply_fn(params, x), target, score)
  total = jnp.sum(maps, axis=(1, 2, 3))
  difference = scored(x) - scored(base)
  return Completeness(total, difference, total - difference)
