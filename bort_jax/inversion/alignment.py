"""Upper bounds of how far layers stretch that scale by an angle."""

import math

import jax
import jax.numpy as jnp
from jax.extend import core

from bort_jax.inversion.operator_norm import (
  convolution_norm,
  dense_norm,
  norm_bound,
)
from bort_jax.inversion.program import read, variables
from bort_jax.inversion.segments import Constants, Piece
from bort_jax.norms import greatest

_ADDED = 1e-6  # to |cos|, by layers that must not take a power of zero


def aligned_bound(
  layer: Piece, b: float, constants: Constants, frequencies: int
) -> jax.Array | None:
  r"""A Lipschitz constant of a B-cos layer.

  With y the linear output, n the norm of the patch and c = \|y\|/n of each
  unit, no more than m, the largest norm of a row of W, the output is
  :math:`y c^{B-1}`, and

  .. math:: d = B c^{B-1} dy - (B - 1) c^B dn \, \mathrm{sgn}(y)

  Summed over patches, dy is bounded by the norm of the convolution; c by that
  of W as a matrix, at each patch; and dn by the change of the patch, which sees
  each pixel as often as there are patches over it. So

  .. math::
    L \le m^{B-1} \left(
      B \|\mathrm{conv}\| + (B - 1) \|W\| \sqrt{\mathrm{patches}} \right)

  The largest of several units is no steeper than they are.

  Args:
    layer: the operations of one layer.
    b: its B.
    constants: the values that do not depend on x.
    frequencies: see :func:`convolution_norm`.

  Returns:
    The bound; None if there is not exactly one product with a kernel, or if
    something is made of it that is not of such a layer.
  """
  if math.isnan(b):
    return None  # two claims that differ
  products = [
    (eqn, side)
    for eqn in layer.eqns
    for side, moving in enumerate(eqn.invars)
    if moving is layer.invar and _is_product(eqn, side)
  ]
  if not products and b == 1 and all(_selects(eqn) for eqn in layer.eqns):
    return jnp.float32(1)  # the largest of units, of which each is bounded
  if len(products) != 1:
    return None
  ((eqn, side),) = products
  if _is_changed(eqn, layer, constants):
    return None
  kernel = read(constants, eqn.invars[1 - side])
  if eqn.primitive.name == 'dot_general':
    linear, patches = dense_norm(eqn, side, kernel), 1
    rows = _dense_rows(eqn, 1 - side, kernel)
  else:
    linear = convolution_norm(eqn, kernel, frequencies)
    patches = most_patches(
      [kernel.shape[a] for a in eqn.params['dimension_numbers'].rhs_spec[2:]],
      eqn.params['window_strides'],
      eqn.params['rhs_dilation'],
    )
    rows = _patch_rows(eqn, kernel)
  longest = jnp.sqrt(greatest(jnp.sum(jnp.square(rows), axis=-1))) + _ADDED
  along = norm_bound(rows) * math.sqrt(patches)
  return longest ** (b - 1) * (b * linear + (b - 1) * along)


_PRODUCTS = {'dot_general', 'conv_general_dilated'}
_SELECTIONS = {
  *('reshape', 'squeeze', 'expand_dims', 'slice', 'transpose'),
  *(
    'broadcast_in_dim',
    'max',
    'reduce_max',
    'select_n',
    'convert_element_type',
  ),
  *('eq', 'ne', 'gt', 'ge', 'lt', 'le', 'and', 'or', 'not'),
}


def _selects(eqn: core.JaxprEqn) -> bool:
  """Whether an operation only chooses among numbers and arranges them."""
  return eqn.primitive.name in _SELECTIONS


def _is_changed(
  product: core.JaxprEqn, layer: Piece, constants: Constants
) -> bool:
  """Whether the product is multiplied, or added to, by what does not move.

  A layer scales it by itself and by the norm of its patch; a second kernel, a
  gain or a bias would not be in the bound.
  """
  made: set[core.Var] = set(product.outvars)
  for eqn in layer.eqns:
    of_it = [a for a in variables(eqn) if a in made]
    if eqn is product or not of_it:
      continue
    name = eqn.primitive.name
    if name in _PRODUCTS:
      return True
    fixed = [a for a in eqn.invars if isinstance(a, core.Literal)]
    given = [a for a in variables(eqn) if a in constants]
    if name in ('mul', 'div') and (fixed or given):
      return True
    if name in ('add', 'sub') and given:
      return True
    made.update(eqn.outvars)
  return False


def most_patches(sides, strides, dilations) -> int:
  """In how many patches of a picture, or windows, a pixel can be."""
  return math.prod(
    side if dilation > 1 else -(-side // stride)
    for side, stride, dilation in zip(sides, strides, dilations, strict=True)
  )


def _is_product(eqn: core.JaxprEqn, side: int) -> bool:
  """Whether an operand is multiplied with a kernel that does not move."""
  name = eqn.primitive.name
  if len(set(variables(eqn))) == 1 and len(eqn.invars) > 1:
    return False  # x times itself
  return name == 'dot_general' or (
    name == 'conv_general_dilated'
    and side == 0
    and eqn.params['batch_group_count'] == 1
  )


def _dense_rows(eqn: core.JaxprEqn, side: int, kernel: jax.Array) -> jax.Array:
  """(matrices, units, inputs) of the kernel of a dense layer."""
  contracting, batch = (axes[side] for axes in eqn.params['dimension_numbers'])
  free = [a for a in range(kernel.ndim) if a not in (*batch, *contracting)]
  kernel = jnp.transpose(kernel, (*batch, *free, *contracting))
  stack = math.prod(kernel.shape[: len(batch)])
  inputs = math.prod(kernel.shape[kernel.ndim - len(contracting) :])
  return kernel.reshape(stack, -1, inputs)


def _patch_rows(eqn: core.JaxprEqn, kernel: jax.Array) -> jax.Array:
  """(groups, units, inputs) of the kernel of a convolution."""
  kernel = jnp.transpose(kernel, eqn.params['dimension_numbers'].rhs_spec)
  groups = eqn.params['feature_group_count']
  return kernel.reshape(groups, kernel.shape[0] // groups, -1)
