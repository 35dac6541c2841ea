"""How much nearer each row is to its own class than to the next."""

import functools

import jax
import jax.numpy as jnp

from bort_jax.metrics.checks import wide


@functools.partial(jax.jit, static_argnames='num_classes')
def silhouette(
  features: jax.Array,
  labels: jax.Array,
  num_classes: int,
  *,
  where: jax.Array | None = None,
) -> jax.Array:
  """The silhouette (b − a) / max(a, b) of each row, of Euclidean distances.

  a is the mean distance to the other rows of its class, b the mean distance to
  those of the nearest other class. N² distances are computed.

  Args:
    features: (N, D) floats.
    labels: (N,) int, 0 … num_classes − 1.
    num_classes: how many classes there may be.
    where: (N,) bool, which rows count; by default all.

  Returns:
    (N,) in −1 … 1; 0 for the only row of its class, as published; NaN where
    there is no second class or the row does not count.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> x = jnp.array([[0.0], [0.0], [4.0], [4.0]])
    >>> metrics.silhouette(x, jnp.array([0, 0, 1, 1]), 2).tolist()
    [1.0, 1.0, 1.0, 1.0]

  References:
    Rousseeuw, `Silhouettes: a graphical aid to the interpretation and
    validation of cluster analysis
    <https://doi.org/10.1016/0377-0427(87)90125-7>`_, 1987
  """
  rows = features.astype(wide(features.dtype))
  counts = jnp.ones(len(rows), bool) if where is None else where
  is_of = jax.nn.one_hot(labels, num_classes, dtype=rows.dtype)
  is_of = is_of * counts[:, None]
  size = jnp.sum(is_of, axis=0)
  apart = _distances(rows, counts)
  totals = jnp.matmul(apart, is_of, precision=jax.lax.Precision.HIGHEST)
  own = is_of > 0
  own_size = jnp.sum(is_of * size[None], axis=1)
  within = jnp.sum(jnp.where(own, totals, 0), axis=1)
  within = within / jnp.maximum(own_size - 1, 1)
  means = totals / jnp.maximum(size, 1)[None]
  other = jnp.where(own | (size == 0)[None], jnp.inf, means)
  nearest = jnp.min(other, axis=1)
  largest = jnp.maximum(within, nearest)
  score = (nearest - within) / jnp.where(largest > 0, largest, 1)
  score = jnp.where(own_size > 1, score, 0)
  return jnp.where(counts & jnp.isfinite(nearest), score, jnp.nan)


def _distances(rows: jax.Array, counts: jax.Array) -> jax.Array:
  """(N, N) Euclidean, of rows around their mean: there least cancels."""
  kept = jnp.where(counts[:, None], rows, 0)
  mean = jnp.sum(kept, axis=0) / jnp.maximum(jnp.sum(counts), 1)
  centred = jnp.where(counts[:, None], rows - mean[None], 0)
  norms = jnp.sum(centred**2, axis=1)
  inner = jnp.matmul(centred, centred.T, precision=jax.lax.Precision.HIGHEST)
  squared = norms[:, None] + norms[None] - 2 * inner
  squared = jnp.where(jnp.eye(len(rows), dtype=bool), 0, squared)
  # NaN stays: maximum with 0 keeps it
  return jnp.sqrt(jnp.maximum(squared, 0))
