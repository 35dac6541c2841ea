"""The linear map in an affine function, its transpose and singular values."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bort_jax import loops
from bort_jax.norms import greatest


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

  Golub–Kahan bidiagonalization. Both lie inside the true range of the singular
  values that are not zero and come closer with every step; the greatest is good
  to a few per cent after ten.

  Args:
    affine: the map.
    steps: number of steps.

  Returns:
    (2,) least and greatest.
  """
  affine = widened(affine)
  steps = min(steps, math.prod(affine.like.shape), affine.offset.size)
  start, _ = _normalized(_without_pattern(affine.offset))
  zeros = jnp.zeros(affine.like.shape, affine.like.dtype)
  small = jnp.sqrt(jnp.finfo(zeros.dtype).eps)

  def step(state, _):  # the only copy of the map: copies take long to compile
    u, v, beta, first = state
    v, alpha = _normalized(affine.transpose(u) - beta * v)
    first = jnp.where(first > 0, first, alpha)
    # The space is exhausted: what is left is rounding, and is not measured.
    alpha, v = _unless(alpha < small * first, alpha, v)
    u, beta = _normalized(affine.apply(v) - alpha * u)
    beta, u = _unless(beta < small * first, beta, u)
    return (u, v, beta, first), (alpha, beta)

  state = (start, zeros, jnp.sum(zeros), jnp.sum(zeros))
  _, (alphas, betas) = loops.scan(step, state, length=steps)
  row = jnp.zeros((1, steps), alphas.dtype)
  bidiagonal = jnp.concatenate([jnp.diag(alphas), row])
  bidiagonal += jnp.concatenate([row, jnp.diag(betas)])
  values = jnp.linalg.svd(bidiagonal, compute_uv=False)
  real = values > 1e-4 * values[0]
  return jnp.stack([jnp.min(jnp.where(real, values, jnp.inf)), values[0]])


def slope_range(affine: AffineMap) -> jax.Array:
  """The same of a map that scales each number by itself: exact."""
  affine = widened(affine)
  slopes = jnp.abs(affine.apply(jnp.ones_like(affine.offset)))
  least = jnp.min(jnp.where(slopes > 0, slopes, jnp.inf))
  return jnp.stack([least, greatest(slopes)])


def _without_pattern(like: jax.Array) -> jax.Array:
  """Numbers as good as random here, of a few operations that compile fast."""
  places = jnp.arange(like.size, dtype=jnp.float32)
  return jnp.sin(jnp.square(places + 1)).reshape(like.shape).astype(like.dtype)


def _unless(ended: jax.Array, *arrays: jax.Array) -> list[jax.Array]:
  return [jnp.where(ended, 0, a) for a in arrays]


def _normalized(v: jax.Array) -> tuple[jax.Array, jax.Array]:
  norm = jnp.sqrt(jnp.sum(jnp.square(v)))
  return v / jnp.where(norm > 0, norm, 1), norm
