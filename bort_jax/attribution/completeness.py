"""How far attributions are from adding up to what they explain."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.attribution.batches import in_blocks, run
from bort_jax.attribution.checks import (
  ApplyFn,
  check_finite,
  checked,
  checked_like_x,
)
from bort_jax.attribution.errors import AttributionError
from bort_jax.attribution.scores import class_scores


def completeness_delta(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  attribution: ArrayLike,
  *,
  baseline: ArrayLike = 0.0,
  chunk: int | None = None,
) -> jax.Array:
  """The sum of an attribution less the change of the logit that it explains.

  Args:
    apply_fn: ``apply_fn(params, x)`` returns logits (N, K).
    params: its parameters.
    x: pictures (N, H, W, C).
    target: (N,) int classes.
    attribution: (N, H, W, C), of any method.
    baseline: what the pictures are compared with: a number or an array that
      broadcasts to x.
    chunk: how many pictures go through the network at once; by default N.

  Returns:
    (N,) Σ attribution − (logit(x) − logit(baseline)): zero for a complete one.

  Raises:
    AttributionError: for what does not fit, and where memory does not suffice.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import attribution
    >>> apply_fn = lambda params, x: params * x.sum((1, 2))
    >>> x, target = jnp.ones((1, 2, 2, 1)), jnp.array([0])
    >>> maps = attribution.gradient_times_input(apply_fn, 2.0, x, target)
    >>> attribution.completeness_delta(apply_fn, 2.0, x, target, maps)
    Array([0.], dtype=float32)
  """
  x, target = checked(apply_fn, params, x, target, chunk)
  attribution = jnp.asarray(attribution)
  if attribution.shape != x.shape:
    raise AttributionError(
      f'attribution must have the shape of x, {x.shape}, got'
      f' {attribution.shape}.'
    )
  check_finite({'attribution': attribution})
  baseline = checked_like_x('baseline', baseline, x)
  change = run(difference_from, apply_fn, chunk, params, x, target, baseline)
  return jnp.sum(attribution, (1, 2, 3), dtype=change.dtype) - change


@functools.partial(jax.jit, static_argnums=(0, 1))
def difference_from(apply_fn, chunk, params, x, target, baseline) -> jax.Array:
  """(N,) logit(x) − logit(baseline) of each class, in float32 at least."""

  def logit(x, target):
    logits = class_scores(apply_fn, params, x[None], target)[0]
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

  change = lambda x, baseline, t: logit(x, t) - logit(baseline, t)
  return in_blocks(change, chunk, x, baseline, target)
