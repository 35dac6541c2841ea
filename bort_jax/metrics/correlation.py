"""Correlation of numbers and of their ranks, for each of a batch."""

import jax
import jax.numpy as jnp

from bort_jax.metrics.order import in_order


@jax.jit
def pearson(a: jax.Array, b: jax.Array) -> jax.Array:
  """Pearson's correlation of rows.

  Args:
    a: (N, M) floats.
    b: (N, M) floats.

  Returns:
    (N,) in −1 … 1; NaN where one of the rows is constant or not finite.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics.correlation import pearson
    >>> a = jnp.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    >>> pearson(a, -a).tolist()
    [-1.0, nan]
  """
  # by its values: the mean is rounded, so a constant less it may not be zero
  constant = (jnp.ptp(a, axis=1) == 0) | (jnp.ptp(b, axis=1) == 0)
  a, b = _centred(a), _centred(b)
  norms = jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1)
  correlation = jnp.clip(jnp.sum(a * b, axis=1) / norms, -1, 1)
  return jnp.where(constant, jnp.nan, correlation)


@jax.jit
def spearman(a: jax.Array, b: jax.Array) -> jax.Array:
  """Spearman's correlation of rows: that of their ranks, ties averaged.

  Args:
    a: (N, M) floats.
    b: (N, M) floats.

  Returns:
    (N,) in −1 … 1; NaN where one of the rows is constant or not finite.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics.correlation import spearman
    >>> a = jnp.array([[0.1, 5.0, 9.0]])
    >>> round(float(spearman(a, a**3)[0]), 6)
    1.0
  """
  return pearson(average_ranks(a), average_ranks(b))


@jax.jit
def average_ranks(values: jax.Array) -> jax.Array:
  """Ranks within each row.

  Args:
    values: (N, M) floats.

  Returns:
    (N, M) ranks, the least 1; equal numbers share the mean of theirs. NaN for
    all of a row in which one is not finite.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics.correlation import average_ranks
    >>> average_ranks(jnp.array([[3.0, 1.0, 3.0]])).tolist()
    [[2.5, 1.0, 2.5]]
  """
  words = in_order(values)
  ordered = jnp.sort(words, axis=1)
  find = lambda side: jax.vmap(
    lambda row, word: jnp.searchsorted(row, word, side=side)
  )(ordered, words)
  ranks = (find('left') + find('right') + 1).astype(values.dtype) / 2
  finite = jnp.all(jnp.isfinite(values), axis=1, keepdims=True)
  return jnp.where(finite, ranks, jnp.nan)


def _centred(rows: jax.Array) -> jax.Array:
  """Less the mean, and of greatest 1, so that no square is out of range."""
  greatest = jnp.max(jnp.abs(rows), axis=1, keepdims=True)
  rows = rows / jnp.where(greatest > 0, greatest, 1)
  rows = rows - jnp.mean(rows, axis=1, keepdims=True)
  greatest = jnp.max(jnp.abs(rows), axis=1, keepdims=True)
  return rows / jnp.where(greatest > 0, greatest, 1)
