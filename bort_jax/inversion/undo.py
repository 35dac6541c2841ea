"""One segment run backwards, by the method that fits its kind."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from bort_jax import loops
from bort_jax.inversion.elementwise import main_branch, undo_elementwise
from bort_jax.inversion.errors import InversionError
from bort_jax.inversion.iterations import Newton, fixed_point, gauss_newton
from bort_jax.inversion.layer_rules import undo_layer
from bort_jax.inversion.least_squares import least_squares
from bort_jax.inversion.linear_map import (
  AffineMap,
  affine_map,
  masked,
)
from bort_jax.inversion.program import Program, read
from bort_jax.inversion.segments import Constants, Piece
from bort_jax.inversion.start import start_of

Method: TypeAlias = Literal['auto', 'least_squares', 'published', 'transpose']
Rule: TypeAlias = Callable[..., jax.Array]


class Setting(NamedTuple):
  """What holds for all segments of an inversion."""

  program: Program
  method: Method
  constants: Constants
  recorded: Constants | None  # the values that x brings about, if x is given
  tolerance: float
  max_steps: int
  newton: Newton
  rules: Mapping[str, Rule]

  def function(self, piece: Piece) -> Callable[[jax.Array], jax.Array]:
    """A segment of its input alone; maxima stay where x had them, if given."""
    if piece.switches and self.recorded is not None:
      recorded = self.recorded
      return lambda v: piece.switched(self.constants, v, recorded)
    return lambda v: piece(self.constants, v)


class Undone(NamedTuple):
  """A segment run backwards."""

  x: jax.Array
  known: jax.Array | None = None  # where x is the only preimage; None: all over
  steps: Any = 0
  newton_steps: Any = 0  # of these
  contraction: Any = jnp.nan
  one_to_one: bool = True  # whether the segment is, as far as is known


def undo(
  piece: Piece, setting: Setting, y: jax.Array, known: jax.Array | None
) -> Undone:
  """Runs a segment backwards.

  Args:
    piece: the segment.
    setting: what holds for all segments.
    y: what came out.
    known: which numbers of y are known; None for all.

  Returns:
    What went in.
  """
  # no finer than what the segment computes with
  setting = setting._replace(tolerance=max(setting.tolerance, piece.rounding))
  eqn = piece.eqns[0]
  if len(piece.eqns) == 1 and eqn.primitive.name in setting.rules:
    return _by_rule(piece, setting, y)
  match piece.kind:
    case 'elementwise':
      return _undo_elementwise(piece, setting, y)
    case 'affine':
      return _undo_affine(piece, setting, y, known)
    case 'pooling':
      return _undo_pooling(piece, setting, y, known)
  if piece.switches and setting.recorded is None:
    raise _needs_x(piece)
  function = setting.function(piece)
  if piece.kind == 'residual':
    return _undo_residual(function, setting, y, known)
  start = start_of(function, piece.like, y)
  x, steps = gauss_newton(
    function, y, start, known, setting.tolerance, setting.newton
  )
  # not one-to-one as far as is known
  return Undone(x, steps=steps, newton_steps=steps, one_to_one=False)


def run_back(
  pieces: Sequence[Piece], setting: Setting, z: jax.Array
) -> list[Undone]:
  """Runs all segments backwards, from last to first.

  Args:
    pieces: the segments, in order.
    setting: what holds for all.
    z: what came out of the last.

  Returns:
    What went into each, in order.
  """
  undone: list[Undone] = []
  value, known = z, None
  for piece in reversed(pieces):
    undone.append(undo(piece, setting, value, known))
    value, known = undone[-1].x, undone[-1].known
  return undone[::-1]


def default_tolerance(dtype) -> float:
  """The relative residual at which iterations stop: a few roundings."""
  return _ROUNDINGS * float(jnp.finfo(dtype).eps)


_ROUNDINGS = 20


def _by_rule(piece: Piece, setting: Setting, y: jax.Array) -> Undone:
  eqn = piece.eqns[0]
  constants = [
    read(setting.constants, a) for a in eqn.invars if a is not piece.invar
  ]
  rule = setting.rules[eqn.primitive.name]
  x = rule(y, piece.like, *constants, **eqn.params)
  if x.shape != piece.like.shape:
    raise InversionError(
      f'The rule for {eqn.primitive.name!r} gave shape {x.shape}, but what went'
      f' in has shape {piece.like.shape}.'
    )
  return Undone(x)


def _undo_elementwise(piece: Piece, setting: Setting, y: jax.Array) -> Undone:
  branch = main_branch(piece, setting.program)
  passes = branch.identity and not branch.one_to_one
  if setting.method == 'published' and passes:
    # as published for ReLU; of other functions the published rule says nothing
    x, known = y.astype(piece.like.dtype), None
  else:
    x, known = undo_elementwise(piece, setting.constants, branch, y)
  return Undone(x, known, one_to_one=branch.one_to_one)


def _undo_affine(
  piece: Piece, setting: Setting, y: jax.Array, known: jax.Array | None
) -> Undone:
  constants = setting.constants
  if setting.method in ('published', 'transpose'):
    return _layer_by_layer(piece, setting, y)
  affine = affine_map(lambda v: piece(constants, v), piece.like)
  affine, y = _of_known(affine, y, known)
  if setting.method == 'least_squares':
    return _solved(affine, setting, y)
  return _transposed_or_solved(piece, affine, setting, y)


def _of_known(
  affine: AffineMap, y: jax.Array, known: jax.Array | None
) -> tuple[AffineMap, jax.Array]:
  """The map to the numbers that are known, and those; None for all."""
  if known is None:
    return affine, y
  return masked(affine, known), jnp.where(known, y, 0)


def _layer_by_layer(piece: Piece, setting: Setting, y: jax.Array) -> Undone:
  steps = 0
  for part in reversed(piece.parts):
    if len(part.eqns) > 1:  # a sum of branches has no rule of its own
      affine = affine_map(lambda v, p=part: p(setting.constants, v), part.like)
      y, count = least_squares(affine, y, setting.tolerance, setting.max_steps)
      steps += count
    else:
      scaling = 'published' if setting.method == 'published' else 'transpose'
      y = undo_layer(part, setting.constants, y, scaling)
  return Undone(y, steps=steps)


def _solved(
  affine: AffineMap,
  setting: Setting,
  y: jax.Array,
  guess: jax.Array | None = None,
) -> Undone:
  x, steps = least_squares(
    affine, y, setting.tolerance, setting.max_steps, guess
  )
  return Undone(x, steps=steps)


def _transposed_or_solved(
  piece: Piece, affine: AffineMap, setting: Setting, y: jax.Array
) -> Undone:
  """The scaled transpose where it solves, as between orthogonal layers."""
  if any(len(part.eqns) > 1 for part in piece.parts):
    return _solved(affine, setting, y)
  guess = y
  for part in reversed(piece.parts):
    guess = undo_layer(part, setting.constants, guess, 'transpose')
  return _solved(affine, setting, y, guess)


def _undo_pooling(
  piece: Piece, setting: Setting, y: jax.Array, known: jax.Array | None
) -> Undone:
  if setting.method == 'published' and len(piece.eqns) == 1:
    return Undone(_spread(piece, y))
  if setting.recorded is None:
    raise _needs_x(piece)
  affine = affine_map(setting.function(piece), piece.like)
  affine, y = _of_known(affine, y, known)
  return _solved(affine, setting, y)


def _spread(piece: Piece, y: jax.Array) -> jax.Array:
  """The published inverse of a maximum: it stands for its whole window."""
  eqn = piece.eqns[0]
  name = {'reduce_max': 'reduce_sum', 'reduce_window_max': 'reduce_window_sum'}
  if eqn.primitive.name not in name:
    raise InversionError(
      f'There is no published rule for {eqn.primitive.name!r} ({piece.source});'
      " use method='auto' and give x."
    )
  total = affine_map(lambda v: _sum_like(eqn, v), piece.like)
  count = total.transpose(jnp.ones_like(y))
  return total.transpose(y) / jnp.maximum(count, 1)


def _sum_like(eqn, v: jax.Array) -> jax.Array:
  """The sum over the windows of a maximum."""
  if eqn.primitive.name == 'reduce_max':
    return jnp.sum(v, axis=eqn.params['axes'])
  options = eqn.params
  return jax.lax.reduce_window(
    v,
    jnp.zeros((), v.dtype),
    jax.lax.add,
    options['window_dimensions'],
    options['window_strides'],
    options['padding'],
    options['base_dilation'],
    options['window_dilation'],
  )


def _undo_residual(
  function: Callable[[jax.Array], jax.Array],
  setting: Setting,
  y: jax.Array,
  known: jax.Array | None,
) -> Undone:
  """By iteration; its derivatives are those of the implicit function."""

  def tangent(linear, change):
    affine = affine_map(linear, change)
    return _solved(affine, setting, change).x

  def miss(x):
    difference = function(x) - y
    return difference if known is None else jnp.where(known, difference, 0)

  solve = lambda _, y: _iterated(function, setting, y, known)
  x, (counts, rate) = jax.lax.custom_root(miss, y, solve, tangent, has_aux=True)
  steps, newton_steps = counts.astype(jnp.int32)
  return Undone(x, None, steps + newton_steps, newton_steps, rate)


def _iterated(
  function: Callable[[jax.Array], jax.Array],
  setting: Setting,
  y: jax.Array,
  known: jax.Array | None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """By fixed point; what that leaves, by Gauss–Newton."""
  found = fixed_point(function, y, setting.tolerance, setting.max_steps)
  finite = jnp.isfinite(found.residual) & (found.residual < 1)
  start = jnp.where(finite, found.x, y)
  refine = lambda: gauss_newton(
    function, y, start, known, setting.tolerance, setting.newton
  )
  keep = lambda: (found.x, jnp.int32(0))
  done = found.residual <= setting.tolerance
  x, steps = loops.cond(done, keep, refine)
  # as float: custom_root wants tangents of what it carries along
  counts = jnp.stack([found.steps, steps]).astype(jnp.float32)
  return x, (counts, found.contraction)


def _needs_x(piece: Piece) -> InversionError:
  names = ', '.join(eqn.primitive.name for eqn in piece.switches)
  return InversionError(
    f'{names} ({piece.source}) keeps the largest numbers but not where they'
    ' were, which z alone does not tell. Give the x that z came from:'
    ' invert(…, x=x), or reconstruct(apply_fn, params, x).'
  )
