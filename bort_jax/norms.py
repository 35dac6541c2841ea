"""Norms of each of a batch, also where squares would be out of range."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def l2_norm(x: jax.Array) -> jax.Array:
  """(N,) L2 norms of N arrays.

  Args:
    x: (N, ...) floats.

  Returns:
    The norms, in the type of x; 0 of arrays of no numbers.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.norms import l2_norm
    >>> l2_norm(jnp.array([[3e30, 4e30], [0.0, 0.0]]))
    Array([5.e+30, 0.e+00], dtype=float32)
  """
  size = linf_norm(x)
  return size * _root_of_squares(x / _nonzero(size, x))


def linf_norm(x: jax.Array) -> jax.Array:
  """(N,) greatest absolute values of (N, ...); 0 of no numbers."""
  return greatest(jnp.abs(x), _each(x))


def greatest(x: jax.Array, axis: Sequence[int] | None = None) -> jax.Array:
  """The greatest of numbers >= 0 along axes; 0 of none, NaN if one is NaN.

  On a CPU, XLA's maximum of some thousand numbers leaves NaN out, so that the
  error of weights that are all NaN would be zero.

  Args:
    x: numbers >= 0.
    axis: along which; by default all.

  Returns:
    The greatest, in the type of x.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.norms import greatest
    >>> greatest(jnp.ones((100, 100)).at[3, 7].set(jnp.nan))
    Array(nan, dtype=float32)
  """
  unknown = jnp.any(jnp.isnan(x), axis=axis)
  return jnp.where(unknown, jnp.nan, jnp.max(x, axis=axis, initial=0))


def unit(x: jax.Array) -> jax.Array:
  """(N, ...), each scaled to L2 norm one, and 0 for 0."""
  scaled = x / _nonzero(linf_norm(x), x)
  return scaled / _nonzero(_root_of_squares(scaled), x)


def _root_of_squares(x: jax.Array) -> jax.Array:
  return jnp.sqrt(jnp.sum(jnp.square(x), axis=_each(x)))


def _each(x: jax.Array) -> tuple[int, ...]:
  return tuple(range(1, x.ndim))


def _nonzero(norms: jax.Array, x: jax.Array) -> jax.Array:
  """(N,) as (N, 1, ...), which x can be divided by."""
  return jnp.where(norms > 0, norms, 1).reshape(-1, *[1] * (x.ndim - 1))
