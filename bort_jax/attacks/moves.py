"""Changes of pictures that keep within their limits to the last bit."""

import math
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax.norms import l2_norm, unit
from bort_jax.validation import is_known

Norm: TypeAlias = Literal['linf', 'l2']
Bounds: TypeAlias = tuple[float | jax.Array, float | jax.Array]


def wide(dtype: jax.typing.DTypeLike) -> jnp.dtype:
  """The type that changes are summed in: steps may be below half's rounding."""
  return jnp.promote_types(dtype, jnp.float32)


def moved(x: jax.Array, change: jax.Array, bounds: Bounds) -> jax.Array:
  """Moves pictures by a change between the bounds, rounded towards x.

  No number moves further than its change, in exact arithmetic too.

  Args:
    x: the pictures, of any shape, within the bounds.
    change: of the same shape, in the wide type of x.
    bounds: least and greatest pixel, of the type of x.

  Returns:
    The new pictures, in the type of x.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.attacks.moves import moved
    >>> x = jnp.array([0.7], jnp.bfloat16)
    >>> x + 0.003, moved(x, jnp.array([0.003]), (0.0, 1.0))
    (Array([0.703125], dtype=bfloat16), Array([0.699219], dtype=bfloat16))

  References:
    Knuth, The Art of Computer Programming, volume 2, section 4.2.2: the error
    of a sum, as a number of its own
  """
  start = x.astype(change.dtype)
  # the compiler would take the sum of constants apart again
  total = jax.lax.optimization_barrier(start + change)
  part = total - start
  error = (start - (total - part)) + (change - part)
  rounded = _as_rounded(total, x.dtype)
  excess = (rounded - total) - error
  near = rounded.astype(x.dtype)
  new = jnp.where(excess * jnp.sign(change) > 0, jnp.nextafter(near, x), near)
  return jnp.clip(new, *bounds)


def start_in_ball(
  key: jax.Array, norm: Norm, radius: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
  """Changes drawn uniformly from a ball.

  Args:
    key: a random key.
    norm: of the ball.
    radius: (N,).
    shape: (N, H, W, C).

  Returns:
    The changes, in the type of the radius.
  """
  if norm == 'linf':
    cube = jax.random.uniform(key, shape, radius.dtype, -1, 1)
    return per_picture(radius) * cube
  direction_key, length_key = jax.random.split(key)
  direction = unit(jax.random.normal(direction_key, shape, radius.dtype))
  length = jax.random.uniform(length_key, radius.shape, radius.dtype)
  length = length ** (1 / max(1, math.prod(shape[1:])))
  return per_picture(radius * length) * direction


def within_ball(change: jax.Array, norm: Norm, radius: jax.Array) -> jax.Array:
  """The nearest changes of at most some norm.

  Args:
    change: (N, H, W, C).
    norm: which norm.
    radius: (N,), of the same type.

  Returns:
    The changes. Their L2 norm stays below the radius by what a sum of so many
    squares may be off by.
  """
  limit = per_picture(radius)
  if norm == 'linf':
    return jnp.clip(change, -limit, limit)
  slack = 2 * jnp.finfo(change.dtype).eps * math.prod(change.shape[1:]) ** 0.5
  limit = limit * (1 - slack)
  length = per_picture(l2_norm(change))
  scale = limit / jnp.where(length > 0, length, 1)
  return change * jnp.where(length > limit, scale, 1).astype(change.dtype)


def within_bounds(x: jax.Array, change: jax.Array, bounds: Bounds) -> jax.Array:
  """The changes that leave x + change between the bounds, up to rounding.

  Unlike :func:`moved` it keeps changes too small for the type of x, so that
  they add up.

  Args:
    x: the pictures, of any shape.
    change: of the same shape, in the wide type of x.
    bounds: least and greatest pixel, of the type of x.

  Returns:
    The changes.
  """
  start = x.astype(change.dtype)
  low, high = (jnp.asarray(bound, change.dtype) for bound in bounds)
  return jnp.clip(change, low - start, high - start)


def steepest(gradient: jax.Array, norm: Norm) -> jax.Array:
  """The change of norm one along which a function rises most; 0 for 0."""
  return jnp.sign(gradient) if norm == 'linf' else unit(gradient)


def per_picture(values: jax.Array) -> jax.Array:
  """(N,) as (N, 1, 1, 1)."""
  return values[:, None, None, None]


def rounded_down(value: Any, dtype: jax.typing.DTypeLike, n: int) -> jax.Array:
  """A number, or one per picture, as (N,) that is never greater.

  Args:
    value: a number ≥ 0 or an array (N,) of them.
    dtype: float32 or float64.
    n: N.

  Returns:
    The numbers in the dtype.
  """
  if is_known(value):
    exact = np.asarray(value, np.float64)
    exact = np.minimum(exact, np.finfo(dtype).max)
    near = exact.astype(dtype)
    down = np.where(near > exact, np.nextafter(near, near.dtype.type(0)), near)
  else:
    exact = value.astype(jnp.promote_types(value.dtype, dtype))
    rounded = _as_rounded(exact, dtype)
    near = rounded.astype(dtype)
    below = jnp.nextafter(near, jnp.zeros_like(near))
    down = jnp.where(rounded > exact, below, near)
  return jnp.broadcast_to(jnp.asarray(down, dtype), (n,))


def _as_rounded(x: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
  # A cast to the type and back may be compiled to nothing; this is not.
  info = jnp.finfo(dtype)
  return jax.lax.reduce_precision(x, info.nexp, info.nmant)
