"""Inverses of functions that act on each number by itself."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax.inversion.program import Program
from bort_jax.inversion.scalar import (
  Scalar,
  scalar_function,
  widened,
  working_dtype,
)
from bort_jax.inversion.segments import Constants, Piece
from bort_jax.inversion.slopes import greatest_slope as greatest_slope

_GRID = np.sinh(np.linspace(-10, 10, 2001))  # dense near zero, to ±11,000
_COMMON = 4.0  # how far from zero a function must be one-to-one
_FAR = 1e30  # where a branch that does not end is said to end
_MAX_STEPS = 100
_REFINEMENTS = 6
_FEW = 16  # so many corners are searched one by one


class Branch(NamedTuple):
  """An interval on which a scalar function is strictly monotone."""

  start: float
  end: float
  increasing: bool
  one_to_one: bool  # whether nothing of the usual inputs lies outside it
  straight: bool  # whether lines between the points of the table are exact
  inputs: np.ndarray  # a table: points, increasing values last
  values: np.ndarray

  @property
  def identity(self) -> bool:
    """Whether it changes nothing, as ReLU does not where it rises."""
    same = np.allclose(self.values, self.inputs, rtol=1e-6, atol=1e-6)
    return self.straight and same


_EVERYWHERE = Branch(
  -_FAR, _FAR, True, True, False, *(np.array([-_FAR, _FAR]) for _ in range(2))
)


def main_branch(piece: Piece, program: Program) -> Branch:
  """The branch on which an elementwise piece is inverted.

  It is that with the widest range of values; of several, the nearest to zero,
  and of those the one with the greatest inputs: x² gives back what is positive.

  Args:
    piece: the piece.
    program: the program it is cut from.

  Returns:
    The branch. A function of the parameters (such as a learned slope) is taken
    to be increasing: the residual tells.
  """
  function = scalar_function(piece, program)
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
  table, straight = _table(function, points)
  order = slice(None, None, 1 if increasing else -1)
  return Branch(
    start, end, increasing, one_to_one, straight, *(a[order] for a in table)
  )


def undo_elementwise(
  piece: Piece, constants: Constants, branch: Branch, y: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
  """The preimage on a branch, by Newton's method with bisection as its guard.

  It is sought in single precision at least, and rounded to that of x.

  Args:
    piece: the elementwise piece.
    constants: the values that do not depend on x.
    branch: where the preimage is sought.
    y: what came out.

  Returns:
    The preimage of the value nearest to y that the branch reaches, and where
    it reaches y itself; None if it is everywhere.
  """
  dtype = working_dtype(piece)
  y = y.astype(dtype)
  known = None
  if not branch.one_to_one:
    ends = _values_at_ends(branch)
    known = (y > ends[0]) & (y < ends[1])
    y = jnp.clip(y, *ends)
  if branch.straight:
    x = _on_lines(branch, y)
  else:
    function = lambda v: widened(piece, constants, v, dtype)
    x = _preimage(function, branch, y)
  largest = float(jnp.finfo(piece.like.dtype).max)
  if largest < _FAR:
    x = jnp.clip(x, -largest, largest)
  return x.astype(piece.like.dtype), known


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
  inputs, values = _rounded(branch, y.dtype)
  place = _place(values, y)
  cell = jnp.clip(place, 1, max(len(values) - 1, 1))
  at = lambda array, index: jnp.asarray(array)[index]
  left, right = at(inputs, cell - 1), at(inputs, cell)
  low_value, high_value = at(values, cell - 1), at(values, cell)
  width = high_value - low_value
  slope = (right - left) / jnp.where(width > 0, width, 1)
  guess = left + slope * (y - low_value)
  outside = (place < 1) | (place >= len(values))
  low = jnp.where(outside, branch.start, jnp.minimum(left, right))
  high = jnp.where(outside, branch.end, jnp.maximum(left, right))
  return jnp.clip(guess, low, high), low, high


def _rounded(branch: Branch, dtype) -> tuple[np.ndarray, np.ndarray]:
  """The table in other floats; of inputs of one value, the nearest to zero."""
  inputs = np.clip(branch.inputs, -_FAR, _FAR).astype(dtype)
  values = np.clip(branch.values, -_FAR, _FAR).astype(dtype)
  order = np.argsort(np.abs(inputs), kind='stable')
  kept = order[np.unique(values[order], return_index=True)[1]]
  return inputs[kept], values[kept]


def _place(values: np.ndarray, y: jax.Array) -> jax.Array:
  few = len(values) <= _FEW
  method = 'compare_all' if few else 'scan_unrolled'
  return jnp.searchsorted(values, y, method=method)


def _on_lines(branch: Branch, y: jax.Array) -> jax.Array:
  """The preimage on a branch that is made of straight lines."""
  slopes = np.diff(branch.inputs) / np.diff(branch.values)
  offsets = branch.inputs[1:] - slopes * branch.values[1:]
  offsets = np.where(np.abs(offsets) < _EXACT, 0, offsets)
  if len(slopes) == 1:
    return slopes.astype(y.dtype)[0] * y + offsets.astype(y.dtype)[0]
  line = _place(branch.values[1:-1].astype(y.dtype), y)
  tables = (jnp.asarray(a, y.dtype)[line] for a in (slopes, offsets))
  slope, offset = tables
  return slope * y + offset


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
  nearest = np.lexsort((-ends, distance.round(6)))[0]
  return int(starts[nearest]), int(ends[nearest])


def _directions(values: np.ndarray) -> np.ndarray:
  """From each value to the next: 1 up, −1 down, 0 level or not finite."""
  with np.errstate(invalid='ignore'):
    steps = np.diff(values)
  return np.where(np.isfinite(steps), np.sign(steps), 0)


def _turning_point(function: Scalar, left: float, right: float) -> float:
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


_EXACT = 1e-9


def _table(
  function: Scalar, points: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], bool]:
  """Points and values between which it is about straight; whether it is."""
  values = function(points)
  bends = _bends(points, values)
  inputs, outputs = points[bends], values[bends]
  if not 2 <= len(inputs) <= _FEW:
    return (inputs, outputs), False
  between = (points[1:] + points[:-1]) / 2
  lines = lambda at: np.interp(at, inputs, outputs)
  straight = np.allclose(lines(points), values, _EXACT, _EXACT) and np.allclose(
    lines(between), function(between), _EXACT, _EXACT
  )
  return (inputs, outputs), straight


def _bends(points: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Which points are not on the line through those beside them; the ends."""
  if len(points) < 3:
    return np.ones(len(points), bool)
  slopes = np.diff(values) / np.diff(points)
  bends = ~np.isclose(slopes[1:], slopes[:-1], rtol=1e-4)
  return np.r_[True, bends, True]
