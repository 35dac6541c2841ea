"""The linear map in an affine function, its transpose and singular values."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class AffineMap(NamedTuple):
  """v ↦ A v + b, matrix-free."""

  apply: Callable[[jax.Array], jax.Array]  # A
  transpose: Callable[[jax.Array], jax.Array]  # Aᵀ
  offset: jax.Array  # b
  like: jax.ShapeDtypeStruct  # of v


def affine_map(
  function: Callable[[jax.Array], jax.Array], like: jax.ShapeDtypeStruct
) -> AffineMap:
  """The parts of an affine function.

  Args:
    function: an affine function of one array.
    like: shape and dtype of its argument.

  Returns:
    Its parts. Of a function that is not affine, those of its tangent at 0.
  """
  return tangent_map(function, jnp.zeros(like.shape, like.dtype))


def tangent_map(
  function: Callable[[jax.Array], jax.Array], x: jax.Array
) -> AffineMap:
  """The derivative of a function at x, as a map; its offset is f(x)."""
  like = jax.ShapeDtypeStruct(x.shape, x.dtype)
  out, tangent = jax.linearize(function, x)
  transpose = jax.linear_transpose(tangent, like)
  return AffineMap(tangent, lambda y: transpose(y)[0], out, like)


def masked(affine: AffineMap, known: jax.Array) -> AffineMap:
  """The map to those numbers of the result that are known."""
  keep = lambda y: jnp.where(known, y, 0)
  return AffineMap(
    lambda v: keep(affine.apply(v)),
    lambda y: affine.transpose(keep(y)),
    keep(affine.offset),
    affine.like,
  )


def widened(affine: AffineMap) -> AffineMap:
  """The map between the widest floats that are enabled.

  Solvers want more digits than networks compute with (and lineax's LSMR mixes
  types where 64 bits are enabled and not used).
  """
  wide, narrow = jax.dtypes.canonicalize_dtype(float), affine.like.dtype
  out = affine.offset.dtype
  return AffineMap(
    lambda v: affine.apply(v.astype(narrow)).astype(wide),
    lambda y: affine.transpose(y.astype(out)).astype(wide),
    affine.offset.astype(wide),
    jax.ShapeDtypeStruct(affine.like.shape, wide),
  )


def singular_value_range(affine: AffineMap, steps: int) -> jax.Array:
  """Least and greatest singular value that some Lanczos steps find.

  Golub–Kahan bidiagonalization from a random vector in the map's range. Both
  lie inside the true range of the singular values that are not zero and come
  closer with every step; the greatest is good to a few per cent after ten.

  Args:
    affine: the map.
    steps: number of steps.

  Returns:
    (2,) least and greatest.
  """
  steps = min(steps, math.prod(affine.like.shape), affine.offset.size)
  noise = jax.random.normal(jax.random.key(0), affine.like.shape)
  start, _ = _normalized(affine.apply(noise.astype(affine.like.dtype)))
  first, alpha = _normalized(affine.transpose(start))
  negligible = jnp.sqrt(jnp.finfo(first.dtype).eps) * alpha

  def step(state, _):
    u, v, alpha = state
    u, beta = _normalized(affine.apply(v) - alpha * u)
    v, next_alpha = _normalized(affine.transpose(u) - beta * v)
    # The space is exhausted: what is left is rounding, and is not measured.
    ended = (beta < negligible) | (next_alpha < negligible)
    next_alpha = jnp.where(ended, 0, next_alpha)
    return (jnp.where(ended, 0, u), v, next_alpha), (alpha, beta)

  state = (start, first, alpha)
  _, (alphas, betas) = jax.lax.scan(step, state, length=steps)
  bidiagonal = jnp.zeros((steps + 1, steps), alphas.dtype)
  places = jnp.arange(steps)
  bidiagonal = bidiagonal.at[places, places].set(alphas)
  bidiagonal = bidiagonal.at[places + 1, places].set(betas)
  values = jnp.linalg.svd(_as_float(bidiagonal), compute_uv=False)
  real = values > 1e-4 * values[0]
  return jnp.stack([jnp.min(jnp.where(real, values, jnp.inf)), values[0]])


def _as_float(a: jax.Array) -> jax.Array:
  """The array in float32 or wider, as decompositions want it."""
  return a.astype(jnp.promote_types(a.dtype, jnp.float32))


def _normalized(v: jax.Array) -> tuple[jax.Array, jax.Array]:
  norm = jnp.sqrt(jnp.sum(jnp.square(v)))
  return v / jnp.where(norm > 0, norm, 1), norm
