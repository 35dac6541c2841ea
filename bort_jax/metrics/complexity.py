"""How few numbers of a map carry it."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.metrics.checks import checked_maps, rows_of, with_channels
from bort_jax.metrics.order import ascending


def sparseness(attribution: ArrayLike) -> jax.Array:
  """The Gini index of the absolute values of each map.

  Σ (2i − n − 1) v_i / (n Σ v) for the n values v = |a| in ascending order.

  Args:
    attribution: maps (N, H, W) or (N, H, W, C); every number counts.

  Returns:
    (N,) from 0, all numbers alike, to 1 − 1/n, one alone. NaN for maps that are
    0 or not finite.

  Raises:
    MetricError: if it is no maps.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> maps = jnp.array([[1.0, 1, 1, 1], [0, 0, -5, 0]]).reshape(2, 2, 2, 1)
    >>> metrics.sparseness(maps).tolist()
    [0.0, 0.75]

  References:
    Chalasani et al., `Concise Explanations of Neural Networks using Adversarial
    Training <https://arxiv.org/abs/1810.06583>`_, 2018
  """
  return _gini(checked_maps(attribution))


def complexity(attribution: ArrayLike) -> jax.Array:
  """The entropy of the shares |a| / Σ|a| of each map, in nats.

  Args:
    attribution: maps (N, H, W) or (N, H, W, C); every number counts.

  Returns:
    (N,) from 0, one number alone, to log n, all alike. NaN for maps that are 0
    or not finite.

  Raises:
    MetricError: if it is no maps.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> maps = jnp.array([[1.0, 1, 1, 1], [0, 0, -5, 0]]).reshape(2, 2, 2, 1)
    >>> [round(float(entropy), 4) for entropy in metrics.complexity(maps)]
    [1.3863, 0.0]

  References:
    Bhatt et al., `Evaluating and Aggregating Feature-based Model Explanations
    <https://arxiv.org/abs/2005.00631>`_, 2020, definition 6
  """
  return _entropy(checked_maps(attribution))


@jax.jit
def _gini(maps: jax.Array) -> jax.Array:
  rows = _magnitudes(maps)
  n = rows.shape[1]
  weights = 2 * jnp.arange(1, n + 1, dtype=rows.dtype) - n - 1
  weighted = jnp.sum(weights[None] * ascending(rows), axis=1)
  return weighted / (n * jnp.sum(rows, axis=1))


@jax.jit
def _entropy(maps: jax.Array) -> jax.Array:
  rows = _magnitudes(maps)
  shares = rows / jnp.sum(rows, axis=1, keepdims=True)
  return jnp.sum(jax.scipy.special.entr(shares), axis=1)


def _magnitudes(maps: jax.Array) -> jax.Array:
  """(N, n) absolute values of greatest 1, whose sum is in range."""
  rows = jnp.abs(rows_of(with_channels(maps)))
  greatest = jnp.max(rows, axis=1, keepdims=True, initial=0)
  return rows / greatest  # 0 / 0 is NaN, and so is what comes of it
