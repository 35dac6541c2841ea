"""Layers undone by a scaled transpose: the published rule and the right one."""

import math
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend import core

from bort_jax.inversion.linear_map import AffineMap, affine_map
from bort_jax.inversion.program import read
from bort_jax.inversion.segments import Constants, Piece

Scaling: TypeAlias = Literal['published', 'transpose']

_EPSILON = 1e-8  # the published guard against a zero weight


def undo_layer(
  layer: Piece, constants: Constants, y: jax.Array, scaling: Scaling
) -> jax.Array:
  """One layer undone: a convolution, a dense one, or a simple operation.

  Args:
    layer: an affine piece that is not made of smaller ones.
    constants: the values that do not depend on x.
    y: what came out.
    scaling: ``'published'`` divides each output channel of a convolution by the
      squared norm of its kernel, and a dense layer by nothing;
      ``'transpose'`` divides by the amplitude a, which inverts a tall
      orthogonal layer. Both average where patches overlap.

  Returns:
    What went in, where that can be.
  """
  eqn = layer.eqns[0]
  kernel = None
  if len(layer.eqns) == 1 and eqn.primitive.name in _KERNEL_AXES:
    kernel = _kernel(layer, constants)
  affine = affine_map(lambda v: layer(constants, v), layer.like)
  if kernel is None:
    return _undo_simple(affine, y)
  if eqn.primitive.name == 'dot_general':
    y = affine.transpose(y)
    if scaling == 'published':
      return y
    side = int(eqn.invars[0] is layer.invar)
    return y / _amplitude(kernel, *_dense_sizes(eqn, side, kernel))
  return _undo_convolution(layer, affine, kernel, y, scaling)


_KERNEL_AXES = ('conv_general_dilated', 'dot_general')


def _kernel(layer: Piece, constants: Constants) -> jax.Array | None:
  """The kernel, if the layer is a product of what goes in with one."""
  left, right = layer.eqns[0].invars
  if layer.eqns[0].primitive.name == 'conv_general_dilated':
    groups = layer.eqns[0].params['batch_group_count']
    return (
      read(constants, right) if left is layer.invar and groups == 1 else None
    )
  return read(constants, right if left is layer.invar else left)


def _undo_simple(affine: AffineMap, y: jax.Array) -> jax.Array:
  """Sums, shifts, scalings, reshapes and pads: rows that are orthogonal."""
  energy = affine.apply(affine.transpose(jnp.ones_like(y)))
  safe = jnp.where(energy != 0, energy, 1)
  return affine.transpose(jnp.where(energy != 0, (y - affine.offset) / safe, 0))


def _undo_convolution(
  layer: Piece,
  affine: AffineMap,
  kernel: jax.Array,
  y: jax.Array,
  scaling: Scaling,
) -> jax.Array:
  options = layer.eqns[0].params
  numbers = options['dimension_numbers']
  out_axis, in_axis, *space = numbers.rhs_spec
  if scaling == 'published':
    norms = jnp.sum(kernel**2, axis=(in_axis, *space)) + _EPSILON
    shape = [1] * y.ndim
    shape[numbers.out_spec[1]] = norms.size
    y = y / norms.reshape(shape)
  else:
    groups = options['feature_group_count']
    num_in = math.prod(kernel.shape[a] for a in (in_axis, *space))
    y = y / _amplitude(kernel, kernel.shape[out_axis] // groups, num_in, groups)
  return affine.transpose(y) / jnp.maximum(_overlaps(layer, kernel), 1)


def _overlaps(layer: Piece, kernel: jax.Array) -> jax.Array:
  """How many patches each pixel is in."""
  eqn = layer.eqns[0]
  numbers = eqn.params['dimension_numbers']
  one = lambda shape, axes: tuple(
    1 if i in axes else n for i, n in enumerate(shape)
  )
  like = jax.ShapeDtypeStruct(
    one(layer.like.shape, numbers.lhs_spec[:2]), layer.like.dtype
  )
  ones = jnp.ones(one(kernel.shape, numbers.rhs_spec[:2]), kernel.dtype)
  options = {**eqn.params, 'feature_group_count': 1}
  count = affine_map(lambda v: eqn.primitive.bind(v, ones, **options), like)
  return count.transpose(jnp.ones_like(count.offset))


def _dense_sizes(
  eqn: core.JaxprEqn, side: int, kernel: jax.Array
) -> tuple[int, int, int]:
  """Outputs and inputs of a dense kernel, and how many matrices it is."""
  contracting, batch = eqn.params['dimension_numbers']
  num_in = math.prod(kernel.shape[a] for a in contracting[side])
  stack = math.prod(kernel.shape[a] for a in batch[side])
  return kernel.size // (num_in * stack), num_in, stack


def _amplitude(
  kernel: jax.Array, num_out: int, num_in: int, stack: int
) -> jax.Array:
  """The a of W Wᵀ = aI or WᵀW = aI: the mean squared singular value."""
  energy = jnp.sum(jnp.square(kernel))
  return energy / (stack * min(num_out, num_in))
