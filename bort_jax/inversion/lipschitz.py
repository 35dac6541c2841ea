"""Upper bounds of how far a segment can stretch a distance."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend import core

from bort_jax.inversion.alignment import aligned_bound, most_patches
from bort_jax.inversion.elementwise import greatest_slope
from bort_jax.inversion.linear_map import affine_map
from bort_jax.inversion.operations import (
  aval_of,
  is_elementwise,
  is_float,
  source_of,
)
from bort_jax.inversion.operator_norm import convolution_norm, dense_norm
from bort_jax.inversion.program import Program, apply, read, variables
from bort_jax.inversion.segments import Constants, Piece
from bort_jax.norms import greatest


class Bound(NamedTuple):
  """A Lipschitz constant in the 2-norm, or why there is none."""

  value: jax.Array  # (), infinite if none is known
  unbounded_by: str | None  # the operation, and where it is


_Bounds: TypeAlias = dict[core.Var, jax.Array | None]  # None: none is known

_SUMS = ('add', 'add_any', 'sub')
# Of the numbers of several operands each result is one.
_SELECTIONS = ('concatenate', 'max', 'min', 'select_n')
_UNCHANGED = (
  'clamp',
  'convert_element_type',
  'neg',
  'optimization_barrier',
  'reduce_max',
  'reduce_min',
  'reduce_precision',
  'sharding_constraint',
  'sort',
  'split',
)
# Linear with entries 0 and 1.
_STRUCTURAL = (
  'broadcast_in_dim',
  'copy',
  'copy_p',
  'cumsum',
  'dynamic_slice',
  'expand_dims',
  'gather',
  'pad',
  'reduce_sum',
  'reduce_window_sum',
  'reshape',
  'rev',
  'slice',
  'squeeze',
  'transpose',
)


def upper_bound(
  piece: Piece, program: Program, constants: Constants, frequencies: int
) -> Bound:
  """A Lipschitz constant of a segment, from its operations one by one.

  Sums add constants, compositions multiply them; an elementwise function counts
  by its greatest slope. So it holds everywhere, and is not tight.

  Args:
    piece: the segment.
    program: the program it is cut from.
    constants: the values that do not depend on x.
    frequencies: see :func:`convolution_norm`.

  Returns:
    The bound.
  """
  bounds: _Bounds = {piece.invar: jnp.float32(1)}
  for eqn in piece.eqns:
    bound = _claimed(eqn, piece, program, bounds, constants, frequencies)
    if bound is None:
      bound = _linear(eqn, bounds, constants, frequencies)
    if bound is None:
      bound = _elementwise(eqn, piece, program, bounds)
    bounds.update((v, bound) for v in eqn.outvars)
  value = bounds[piece.outvar]
  if value is None:
    return Bound(jnp.float32(jnp.inf), _culprit(piece, bounds))
  return Bound(value, None)


def _culprit(piece: Piece, bounds: _Bounds) -> str:
  """The first operation on the way to the result that has no bound."""
  makers = {v: eqn for eqn in piece.eqns for v in eqn.outvars}
  var = piece.outvar
  while True:
    unknown = [v for v in variables(makers[var]) if bounds.get(v, 0) is None]
    if not unknown:
      return f'{makers[var].primitive.name} ({source_of(makers[var])})'
    var = unknown[0]


def _claimed(
  eqn: core.JaxprEqn,
  piece: Piece,
  program: Program,
  bounds: _Bounds,
  constants: Constants,
  frequencies: int,
) -> jax.Array | None:
  """Of a layer that says what it is."""
  b = program.exponents.get(eqn.outvars[0])
  layer = None if b is None else _cone(eqn, piece, lambda _: True)
  start = None if layer is None else bounds[layer.invar]
  if b is None or layer is None or start is None:
    return None
  bound = aligned_bound(layer, b, constants, frequencies)
  return None if bound is None else bound * start


def _linear(
  eqn: core.JaxprEqn, bounds: _Bounds, constants: Constants, frequencies: int
) -> jax.Array | None:
  """Of sums, products with constants, and maxima."""
  name = eqn.primitive.name
  moving = [v for v in variables(eqn) if v in bounds]
  entering = [_spread(v, eqn, bounds[v]) for v in moving if is_float(v)]
  known = [bound for bound in entering if bound is not None]
  if len(known) < len(moving):
    return None
  if name in _SUMS:
    return jnp.sum(jnp.stack(known))
  if name in _SELECTIONS:
    if name == 'select_n' and eqn.invars[0] in moving:
      return None  # which it is depends on x
    return jnp.linalg.norm(jnp.stack(known))
  if len(moving) > 1:
    return None
  (bound,) = known
  fixed = [read(constants, a) for a in eqn.invars if a is not moving[0]]
  if name in _UNCHANGED:
    return bound
  if name in ('mul', 'div') and fixed:
    if name == 'div' and eqn.invars[0] is not moving[0]:
      return None
    sizes = jnp.abs(fixed[0])
    return bound * greatest(sizes if name == 'mul' else 1 / sizes)
  if name == 'dot_general':
    return bound * dense_norm(eqn, int(eqn.invars[0] is moving[0]), fixed[0])
  if name == 'conv_general_dilated' and eqn.invars[0] is moving[0]:
    return bound * convolution_norm(eqn, fixed[0], frequencies)
  if name == 'reduce_window_max':
    names = 'window_dimensions', 'window_strides', 'window_dilation'
    return bound * most_patches(*(eqn.params[name] for name in names)) ** 0.5
  if name in _STRUCTURAL:
    return bound * _structural(eqn, moving[0], constants)
  return None


def _spread(
  var: core.Var, eqn: core.JaxprEqn, bound: jax.Array | None
) -> jax.Array | None:
  """The bound of an operand as it enters: one number may stand for many."""
  size = math.prod(aval_of(eqn.outvars[0]).shape)
  counted = eqn.primitive.name in _STRUCTURAL
  if bound is None or counted or aval_of(var).shape or size == 1:
    return bound
  return bound * math.sqrt(size)


def _structural(
  eqn: core.JaxprEqn, moving: core.Var, constants: Constants
) -> jax.Array:
  """√(largest column sum · largest row sum), for entries that are not < 0."""
  operand = aval_of(moving)
  values = [
    None if atom is moving else read(constants, atom) for atom in eqn.invars
  ]
  fill = lambda v: [v if value is None else value for value in values]
  affine = affine_map(
    lambda v: apply(eqn, fill(v))[0],
    jax.ShapeDtypeStruct(operand.shape, operand.dtype),
  )
  rows = affine.apply(jnp.ones(operand.shape, operand.dtype))
  columns = affine.transpose(jnp.ones_like(affine.offset))
  return jnp.sqrt(greatest(rows) * greatest(columns))


def _elementwise(
  eqn: core.JaxprEqn, piece: Piece, program: Program, bounds: _Bounds
) -> jax.Array | None:
  """Of the scalar function that ends here, wherever it starts."""
  cone = _cone(eqn, piece, is_elementwise)
  start = None
  if cone is not None:
    start = _spread(cone.invar, eqn, bounds[cone.invar])
  if cone is None or start is None:
    return None
  slope = greatest_slope(cone, program)
  return None if slope is None else slope * start


def _cone(
  eqn: core.JaxprEqn, piece: Piece, allowed: Callable[[core.JaxprEqn], bool]
) -> Piece | None:
  """The operations from the nearest single value to a result."""
  places = {v: i for i, e in enumerate(piece.eqns) for v in e.outvars}
  places[piece.invar] = -1
  if not allowed(eqn):
    return None
  used = {eqn.outvars[0]: eqn}
  frontier = {v for v in variables(eqn) if v in places}
  while len(frontier) > 1:
    last = max(frontier, key=lambda v: places[v])
    maker = piece.eqns[places[last]]
    if not allowed(maker):
      return None
    used[last] = maker
    frontier.remove(last)
    frontier.update(v for v in variables(maker) if v in places)
  (start,) = frontier
  inside = sorted(used.values(), key=lambda e: places[e.outvars[0]])
  return Piece('elementwise', tuple(inside), start, eqn.outvars[0])
