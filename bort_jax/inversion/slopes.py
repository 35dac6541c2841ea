"""The greatest slope of a function of single numbers."""

import numpy as np

from bort_jax.inversion.program import Program
from bort_jax.inversion.scalar import BLOCK, Scalar, scalar_function
from bort_jax.inversion.segments import Piece

_WIDE = np.sinh(np.linspace(-29, 29, BLOCK - 1))  # where slopes are, to ±2e12
_MIDDLE = 1e4  # how far from zero the greatest slope must be
_SLACK = 1e-4  # allowed for what lies between the points
_ROUNDING = 4 * np.finfo(np.float64).eps
_PARTS = 64  # points in a chosen cell


def greatest_slope(piece: Piece, program: Program) -> float | None:
  """The largest slope of a scalar function, found numerically.

  It is that of chords and derivatives on a grid of 16,383 points within ±2e12,
  denser near zero (0.0035 apart, 0.35 % of x far out), and on finer grids where
  they are greatest or disagree. 1e-4 of it is added. So it is a bound unless
  the function changes faster than the grid.

  Args:
    piece: elementwise operations.
    program: the program they are cut from.

  Returns:
    The slope; None if it depends on parameters, if it is greater beyond ±10,000
    than within, or if it grows where the grid is finer, as at a jump.
  """
  function = scalar_function(piece, program)
  if function is None:
    return None
  cells = np.stack([_WIDE[:-1], _WIDE[1:]], -1)
  slopes, doubts = _slopes(function, _WIDE)
  coarse = slopes.max()
  inside = np.all(np.abs(cells) <= _MIDDLE, axis=-1)
  if not coarse <= (1 + _SLACK) * slopes[inside].max() < np.inf:
    return None
  greatest = coarse
  for _ in range(3):
    chosen = cells[np.r_[_largest(_peaks(slopes)), _largest(doubts)]]
    points = np.linspace(chosen[:, 0], chosen[:, 1], _PARTS, axis=-1)
    cells = np.stack([points[:, :-1], points[:, 1:]], -1).reshape(-1, 2)
    slopes, doubts = (a.ravel() for a in _slopes(function, points))
    greatest = max(greatest, slopes.max())
    if greatest > 1.1 * coarse:
      return None
  return float((1 + _SLACK) * greatest)


def _slopes(
  function: Scalar, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """The steepest of each cell, and by how much chord and derivative differ."""
  with np.errstate(all='ignore'):
    values = function(points)
    ends = np.abs(values[..., 1:]), np.abs(values[..., :-1])
    step, rounding = np.diff(values), _ROUNDING * np.maximum(*ends)
    step = np.sign(step) * np.maximum(np.abs(step) - rounding, 0)
    chords = step / np.diff(points)
    slopes = np.where(np.isnan(chords), np.inf, np.abs(chords))
    if not function.has_derivative:
      return slopes, slopes
    there = function.derivative(points)
    left, right = there[..., :-1], there[..., 1:]
    doubts = np.nan_to_num(np.abs(chords - (left + right) / 2), posinf=0)
    for derivative in (left, right):
      slopes = np.fmax(slopes, np.abs(derivative))
  return slopes, doubts


def _peaks(slopes: np.ndarray) -> np.ndarray:
  """Slopes that are not less than those beside them; -1 elsewhere."""
  beside = np.pad(slopes, 1, constant_values=-1)
  peak = (slopes >= beside[:-2]) & (slopes >= beside[2:])
  return np.where(peak, slopes, -1)


def _largest(values: np.ndarray) -> np.ndarray:
  """Where the largest are: half as many as are refined at once."""
  return np.argsort(values, kind='stable')[-(BLOCK // _PARTS // 2) :]
