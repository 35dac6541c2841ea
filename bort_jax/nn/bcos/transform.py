"""The B-cos transform: what a layer does beside its linear operation."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from bort_jax.nn.bcos.names import dynamic

# Added to |cos| before a power other than 1 or 2, as published: its slope at
# zero would be infinite.
_EPSILON = 1e-6


def wide(x: jax.Array) -> jax.Array:
  """At least float32, in which norms are summed."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def unit_rows(kernel: jax.Array) -> jax.Array:
  """Divides the weights of each output, the last axis, by their norm.

  Args:
    kernel: (..., outputs), floats.

  Returns:
    The same shape and dtype, float32 at least. Outputs of which all weights
    are zero stay zero, with a gradient of zero.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.nn.bcos.transform import unit_rows
    >>> unit = unit_rows(jnp.array([[3.0, 0.0], [4.0, 0.0]]))
    >>> [round(float(x), 4) for x in unit.ravel()]
    [0.6, 0.0, 0.8, 0.0]
  """
  kernel = wide(kernel)
  axes = tuple(range(kernel.ndim - 1))
  square = jnp.sum(kernel**2, axis=axes, keepdims=True)
  there = square > 0
  return jnp.where(there, kernel / jnp.sqrt(jnp.where(there, square, 1)), 0)


def max_out(y: jax.Array, units: int) -> jax.Array:
  """The largest of each ``units`` neighbours along the last axis.

  Of equal ones the first is picked, and it alone has the gradient; which one is
  picked is dynamic.

  Args:
    y: (..., outputs · units), the unit moving fastest.
    units: units of one output.

  Returns:
    (..., outputs).

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.nn.bcos.transform import max_out
    >>> max_out(jnp.array([1.0, 5.0, 2.0, -3.0]), 2).tolist()
    [5.0, 2.0]
  """
  if units == 1:
    return y
  y = y.reshape(*y.shape[:-1], -1, units)
  largest = y[..., 0]
  for unit in range(1, units):
    other = y[..., unit]
    keep = (largest >= other) | jnp.isnan(largest)
    largest = jnp.where(keep, largest, other)
  return largest


def align(y: jax.Array, norm: jax.Array, b: float) -> jax.Array:
  r"""Scales a linear output by :math:`|\cos|^{B-1}`.

  .. math:: y \cdot |y / n|^{B-1}

  with n the norm of the inputs. The scale is dynamic. As published, B = 2 has
  a formula of its own and any other B > 1 adds 1e-6 to :math:`|y/n|`.

  Args:
    y: what the linear operation gave, floats.
    norm: n > 0, of a shape that broadcasts to that of y, float32 or wider.
    b: B ≥ 1; B = 1 changes nothing.

  Returns:
    The scaled y, in its shape and dtype.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.nn.bcos.transform import align
    >>> out = align(jnp.array([3.0, -1.0]), jnp.array([5.0, 2.0]), 2.0)
    >>> [round(float(x), 4) for x in out]
    [1.8, -0.5]
  """
  if b == 1:
    return y
  cosine = jnp.abs(wide(y)) / norm
  scale = cosine if b == 2 else (cosine + _EPSILON) ** (b - 1)
  return (dynamic(scale) * y).astype(y.dtype)


def check_layer(b: Any, units: Any, scale: Any) -> None:
  """Refuses settings of a layer that mean nothing.

  Raises:
    ValueError: if b is below 1 or not finite, ``max_out`` no integer of at
      least 1, or the scale not finite or zero or below.
  """
  if not (math.isfinite(b) and b >= 1):
    raise ValueError(
      f'b must be a finite number >= 1, got {b!r}; b=1 is a linear layer.'
    )
  if not isinstance(units, int) or units < 1:
    raise ValueError(f'max_out must be an integer >= 1, got {units!r}.')
  if not (math.isfinite(scale) and scale > 0):
    raise ValueError(f'scale must be a finite number > 0, got {scale!r}.')


def published_scale(kernel_size: tuple[int, ...], features: int) -> float:
  """The divisor of the first publication's layers: k·√channels/100.

  Args:
    kernel_size: sides of the kernel; k is √(product) in two dimensions.
    features: input channels.

  Returns:
    A number for ``scale=`` of :class:`BcosConv`.

  Examples:
    >>> from bort_jax.nn.bcos import published_scale
    >>> round(published_scale((3, 3), 6), 7)
    0.0734847
  """
  return math.sqrt(math.prod(kernel_size) * features) / 100
