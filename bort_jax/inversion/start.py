"""Where the search for a preimage starts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bort_jax.inversion.linear_map import tangent_map


def start_of(
  function: Callable[[jax.Array], jax.Array],
  like: jax.ShapeDtypeStruct,
  y: jax.Array,
) -> jax.Array:
  """Where Gauss–Newton starts: y itself, or the scaled transpose of it.

  Powers of x are flat at 0 and would never move from there: numbers of x that
  have no gradient at 0 start from 1 instead, where they have one there.

  Args:
    function: f.
    like: shape and dtype of its argument.
    y: what came out.

  Returns:
    y, where it has the shape of x. Otherwise the best point along the gradient
    of ‖f(x) − y‖²; of each sample, where the first axes of both agree.
  """
  if like.shape == y.shape:
    return y.astype(like.dtype)
  start, moves = _steepest(function, jnp.zeros(like.shape, like.dtype), y)
  other, moves_there = _steepest(function, jnp.ones(like.shape, like.dtype), y)
  return jnp.where(~moves & moves_there, other, start)


def _steepest(
  function: Callable[[jax.Array], jax.Array], x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The best point along the gradient from x, and which numbers have one."""
  tangent = tangent_map(function, x)
  miss = y - tangent.offset
  back = tangent.transpose(miss)
  forth = tangent.apply(back)
  energy, along = _sum(jnp.square(forth), x), _sum(forth * miss, x)
  scale = along / jnp.where(energy > 0, energy, 1)
  if scale.ndim:
    scale = scale.reshape(-1, *(1,) * (x.ndim - 1))
  return x + (back * scale).astype(x.dtype), back != 0


def _sum(values: jax.Array, x: jax.Array) -> jax.Array:
  """Of each sample, where there are as many as in x; else of all."""
  samples = values.ndim and x.ndim and len(values) == len(x)
  return jnp.sum(values, axis=tuple(range(1, values.ndim)) if samples else None)
