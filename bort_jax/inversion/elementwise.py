"""Inverses of functions that act on each number by itself."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from bort_jax.inversion.operations import aval_of
from bort_jax.inversion.program import Program, evaluate, variables
from bort_jax.inversion.segments import Constants, Piece

_GRID = np.sinh(np.linspace(-10, 10, 2001))  # dense near zero, to ±11,000
_COMMON = 4.0  # how far from zero a function must be one-to-one
_FAR = 1e30  # where a branch that does not end is said to end
_MAX_STEPS = 100
_REFINEMENTS = 3
_SLACK = 1e-4  # what chords of the grid can miss of a slope


class Branch(NamedTuple):
  """An interval on which a scalar function is strictly monotone."""

  start: float
  end: float
  increasing: bool
  one_to_one: bool  # whether nothing of the usual inputs lies outside it
  inputs: np.ndarray  # a table: points, increasing values last
  values: np.ndarray


_EVERYWHERE = Branch(
  -_FAR, _FAR, True, True, np.array([-_FAR, _FAR]), np.array([-_FAR, _FAR])
)


def main_branch(piece: Piece, program: Program) -> Branch:
  """The branch on which an elementwise piece is inverted.

  It is that with the widest range of values, the nearest to zero of several.

  Args:
    piece: the piece.
    program: the program it is cut from.

  Returns:
    The branch. A function of the parameters (such as a learned slope) is taken
    to be increasing: the residual tells.
  """
  function = _scalar_function(piece, program)
  if function is None:
    return _EVERYWHERE
  values = function(_GRID)
  first, last = _widest_run(values)
  inside = np.searchsorted(_GRID, (-_COMMON, _COMMON))
  one_to_one = first <= inside[0] and last >= inside[1]
  points = _GRID[first : last + 1].copy()
  if first > 0:
    points[0] = _turning_point(function, _GRID[first - 1], _GRID[first + 1])
  if last < len(_GRID) - 1:
    points[-1] = _turning_point(function, _GRID[last - 1], _GRID[last + 1])
  start = -_FAR if first == 0 else points[0]
  end = _FAR if last == len(_GRID) - 1 else points[-1]
  increasing = bool(values[last] > values[first])
  points = _corners(points, function(points))
  table = points, function(points)
  if not increasing:
    table = points[::-1], table[1][::-1]
  return Branch(start, end, increasing, one_to_one, *table)


def undo_elementwise(
  piece: Piece, constants: Constants, branch: Branch, y: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
  """The preimage on a branch, by Newton's method with bisection as its guard.

  Args:
    piece: the elementwise piece.
    constants: the values that do not depend on x.
    branch: where the preimage is sought.
    y: what came out.

  Returns:
    The preimage of the value nearest to y that the branch reaches, and where
    the preimage is the only one; None if it is everywhere.
  """
  y = y.astype(piece.like.dtype)
  known = None
  if not branch.one_to_one:
    ends = _values_at_ends(branch)
    known = (y > ends[0]) & (y < ends[1])
    y = jnp.clip(y, *ends)
  return _preimage(lambda v: piece(constants, v), branch, y), known


def greatest_slope(piece: Piece, program: Program) -> float | None:
  """The largest slope of a scalar function anywhere, to 1e-4.

  Args:
    piece: elementwise operations.
    program: the program they are cut from.

  Returns:
    The slope; None if it depends on parameters or grows without end.
  """
  function = _scalar_function(piece, program)
  if function is None:
    return None
  slopes = _slopes(function, _GRID)
  steepest = int(np.argmax(slopes))
  at_end = steepest < 2 or steepest > len(slopes) - 3
  middle = slopes[len(slopes) // 4 : -len(slopes) // 4].max()
  if not np.isfinite(slopes[steepest]) or (
    at_end and slopes[steepest] > (1 + _SLACK) * middle
  ):
    return None
  near = np.linspace(_GRID[steepest], _GRID[steepest + 1], 9)
  if _slopes(function, near).max() > 1.5 * slopes[steepest]:
    return None  # a jump, or a slope without bound
  return float((1 + _SLACK) * slopes[steepest])


def _slopes(function: Callable, points: np.ndarray) -> np.ndarray:
  with np.errstate(invalid='ignore', over='ignore'):
    slopes = np.abs(np.diff(function(points))) / np.diff(points)
  return np.where(np.isnan(slopes), np.inf, slopes)


def _values_at_ends(branch: Branch) -> tuple[float, float]:
  """The least and greatest value on the branch; infinite where it goes on."""
  low, high = float(branch.values[0]), float(branch.values[-1])
  first, last = branch.inputs[0], branch.inputs[-1]
  open_ends = (branch.start == -_FAR, branch.end == _FAR)
  low_open, high_open = open_ends if first <= last else open_ends[::-1]
  return -np.inf if low_open else low, np.inf if high_open else high


def _preimage(function: Callable, branch: Branch, y: jax.Array) -> jax.Array:
  """By Newton's method; its derivatives are those of the implicit function."""

  def tangent(linear, change):
    slope = linear(jnp.ones_like(change))
    return jnp.where(slope == 0, 0, change / jnp.where(slope == 0, 1, slope))

  miss = lambda x: function(x) - y
  solve = lambda _, y: _newton(function, branch, y)
  return jax.lax.custom_root(miss, y, solve, tangent)


def _newton(function: Callable, branch: Branch, y: jax.Array) -> jax.Array:
  tolerance = 2 * jnp.finfo(y.dtype).eps * (1 + jnp.abs(y))
  sign = 1 if branch.increasing else -1

  def step(state):
    x, low, high, count, _ = state
    value, slope = jax.jvp(function, (x,), (jnp.ones_like(x),))
    error = value - y
    above = sign * error > 0
    low, high = jnp.where(above, low, x), jnp.where(above, x, high)
    guess = x - error / jnp.where(slope == 0, 1, slope)
    good = (slope != 0) & (guess >= low) & (guess <= high)
    best = jnp.where(good, guess, low / 2 + high / 2)
    done = jnp.abs(error) <= tolerance
    return jnp.where(done, x, best), low, high, count + 1, jnp.all(done)

  going_on = lambda state: ~state[-1] & (state[-2] < _MAX_STEPS)
  state = (*_looked_up(branch, y), 0, jnp.array(False))
  return jax.lax.while_loop(going_on, step, state)[0]


def _looked_up(branch: Branch, y: jax.Array):
  """A first guess, and points below and above the preimage."""
  inputs = np.clip(branch.inputs, -_FAR, _FAR).astype(y.dtype)
  values = np.clip(branch.values, -_FAR, _FAR).astype(y.dtype)
  few = len(values) <= 16
  place = jnp.searchsorted(
    values, y, method='compare_all' if few else 'scan_unrolled'
  )
  cell = jnp.clip(place, 1, max(len(values) - 1, 1))
  left, right = jnp.asarray(inputs)[cell - 1], jnp.asarray(inputs)[cell]
  low_value, high_value = (
    jnp.asarray(values)[cell - 1],
    jnp.asarray(values)[cell],
  )
  width = high_value - low_value
  slope = (right - left) / jnp.where(width > 0, width, 1)
  guess = left + slope * (y - low_value)
  outside = (place < 1) | (place >= len(values))
  low = jnp.where(outside, branch.start, jnp.minimum(left, right))
  high = jnp.where(outside, branch.end, jnp.maximum(left, right))
  return jnp.clip(guess, low, high), low, high


def _scalar_function(piece: Piece, program: Program) -> Callable | None:
  """The piece as a function of a NumPy array, if it has no parameters."""
  numbers = _numbers(piece, program)
  if numbers is None:
    return None

  def function(x: np.ndarray) -> np.ndarray:
    with jax.ensure_compile_time_eval():
      points = jnp.asarray(x, piece.like.dtype)
      values = {
        var: jnp.broadcast_to(
          number, points.shape if aval_of(var).shape else ()
        )
        for var, number in numbers.items()
      }
      out = evaluate(piece.eqns, {**values, piece.invar: points})[piece.outvar]
      return np.asarray(out, np.float64)

  return function


def _numbers(
  piece: Piece, program: Program
) -> dict[core.Var, np.ndarray] | None:
  """The constants of a piece, if each is one number and no parameter."""
  known = program.literals
  made = {var for eqn in piece.eqns for var in eqn.outvars} | {piece.invar}
  numbers = {}
  for eqn in piece.eqns:
    for var in set(variables(eqn)) - made:
      if var not in known or np.ptp(np.asarray(known[var])) != 0:
        return None
      numbers[var] = np.asarray(known[var]).ravel()[0]
  return numbers


def _widest_run(values: np.ndarray) -> tuple[int, int]:
  """First and last point of the strictly monotone run with most range."""
  direction = _directions(values)
  edges = np.flatnonzero(np.diff(direction)) + 1
  starts, ends = np.r_[0, edges], np.r_[edges, len(direction)]
  moving = direction[starts] != 0
  if not moving.any():
    middle = len(values) // 2
    return middle, middle
  starts, ends = starts[moving], ends[moving]
  spans = np.abs(values[ends] - values[starts])
  wide = spans > 0.99 * spans.max()
  starts, ends = starts[wide], ends[wide]
  distance = np.maximum(0, np.maximum(_GRID[starts], -_GRID[ends]))
  nearest = np.argmin(distance)
  return int(starts[nearest]), int(ends[nearest])


def _directions(values: np.ndarray) -> np.ndarray:
  """From each value to the next: 1 up, −1 down, 0 level or not finite."""
  with np.errstate(invalid='ignore'):
    steps = np.diff(values)
  return np.where(np.isfinite(steps), np.sign(steps), 0)


def _turning_point(function: Callable, left: float, right: float) -> float:
  """Where, between two points, a function stops rising or falling."""
  for _ in range(_REFINEMENTS):
    points = np.linspace(left, right, 101)
    slopes = _directions(function(points))
    changes = np.flatnonzero(np.diff(slopes)) + 1
    if not len(changes):
      break
    turn = changes[0] if slopes[0] != 0 else changes[-1]
    left, right = map(float, points[[max(turn - 1, 0), min(turn + 1, 100)]])
  return (left + right) / 2


def _corners(points: np.ndarray, values: np.ndarray) -> np.ndarray:
  """The points between which a function is not straight, and the ends."""
  if len(points) < 3:
    return points
  slopes = np.diff(values) / np.diff(points)
  bends = ~np.isclose(slopes[1:], slopes[:-1], rtol=1e-4)
  return points[np.r_[True, bends, True]]
