"""Finite groups that move the pixels of a picture and change none."""

import abc
import dataclasses
import functools

import numpy as np

from bort_jax.symmetry.errors import SymmetryError
from bort_jax.validation import is_integer

_TURNS = ('identity', 'quarter turn', 'half turn', 'three-quarter turn')


class Group(abc.ABC):
  """A finite group of moves; the first of its elements is the identity.

  Frozen and hashable, so that it can be a static argument of what is compiled.
  :class:`Rotations` and :class:`Shifts` are such groups; for
  one of your own, say how it moves pixels and how it splits pictures.

  Examples:
    >>> from bort_jax import symmetry
    >>> symmetry.D4.order, symmetry.D4.components
    (8, ('A1', 'A2', 'B1', 'B2', 'E'))
  """

  @property
  @abc.abstractmethod
  def name(self) -> str:
    """What it is called."""

  @property
  @abc.abstractmethod
  def elements(self) -> tuple[str, ...]:
    """The names of its elements, in order."""

  @property
  @abc.abstractmethod
  def components(self) -> tuple[str, ...]:
    """The names of its real isotypic components, the invariant one first."""

  @abc.abstractmethod
  def places(self, height: int, width: int) -> np.ndarray:
    """Where each pixel of a moved picture comes from.

    Args:
      height: of the pictures.
      width: of the pictures.

    Returns:
      (order, height·width) int32: pixel i of g x is pixel ``places[g, i]`` of
      x, pixels counted by rows.

    Raises:
      SymmetryError: if the group cannot act on such pictures.
    """

  @property
  @abc.abstractmethod
  def weights(self) -> np.ndarray:
    """(components, order) float64: P_k = Σ_g weights[k, g] · g.

    Of a component of real characters, d_k χ_k(g) / order. Those of a pair of
    conjugate complex characters are added up, which makes them real.
    """

  @property
  def order(self) -> int:
    """How many elements there are."""
    return len(self.elements)


@dataclasses.dataclass(frozen=True)
class Rotations(Group):
  """Quarter turns of square pictures, counter-clockwise: C4, or D4.

  Args:
    mirrors: whether mirrored pictures are among them (D4): each is mirrored
      left to right first, then turned.

  Examples:
    >>> from bort_jax import symmetry
    >>> symmetry.Rotations().elements[1], symmetry.Rotations(mirrors=True).order
    ('quarter turn', 8)
  """

  mirrors: bool = False

  @property
  def name(self) -> str:
    """C4 or D4."""
    return 'D4' if self.mirrors else 'C4'

  @property
  def elements(self) -> tuple[str, ...]:
    """Turns, then, with mirrors, the mirrored and turned."""
    mirrored = ('mirror', *(f'mirror, {turn}' for turn in _TURNS[1:]))
    return _TURNS + mirrored if self.mirrors else _TURNS

  @property
  def components(self) -> tuple[str, ...]:
    """A, B and E of C4; A1, A2, B1, B2 and E of D4."""
    return ('A1', 'A2', 'B1', 'B2', 'E') if self.mirrors else ('A', 'B', 'E')

  def places(self, height: int, width: int) -> np.ndarray:
    """See :meth:`Group.places`; refuses pictures that are not square."""
    if height != width:
      raise SymmetryError(
        f'{self.name} turns pictures by 90°, so they must be square, but these'
        f' are {height}×{width}. Pad or crop them, or use symmetry.Shifts.'
      )
    return _rotated_places(self.mirrors, height)

  @property
  def weights(self) -> np.ndarray:
    """See :attr:`Group.weights`."""
    turns = np.arange(4)
    halves = np.array([1.0, 0.0, -1.0, 0.0])
    ones, alternating = np.ones(4), (-1.0) ** turns
    if not self.mirrors:
      return np.stack([ones / 4, alternating / 4, halves / 2])
    pair = lambda plain, mirrored: np.concatenate([plain, mirrored])
    return np.stack(
      [
        pair(ones, ones) / 8,
        pair(ones, -ones) / 8,
        pair(alternating, alternating) / 8,
        pair(alternating, -alternating) / 8,
        pair(halves, 0 * halves) / 2,
      ]
    )


@dataclasses.dataclass(frozen=True)
class Shifts(Group):
  """Cyclic shifts: what leaves a picture on one side comes in on the other.

  Element (i, j) moves pictures down by i/rows of their height and right by
  j/columns of their width. With as many rows and columns as pixels these are
  all shifts, and the components are the real Fourier modes.

  Args:
    rows: how many places down, ≥ 1; it must divide the pictures' height.
    columns: how many places to the right, ≥ 1; likewise the width.

  Raises:
    SymmetryError: if they are no integers ≥ 1.

  Examples:
    >>> from bort_jax import symmetry
    >>> symmetry.Shifts(1, 4).components
    ('(0, 0)', '(0, 1)', '(0, 2)')
  """

  rows: int
  columns: int

  def __post_init__(self):
    for name in ('rows', 'columns'):
      value = getattr(self, name)
      if not is_integer(value) or value < 1:
        raise SymmetryError(f'{name} must be an integer ≥ 1, got {value!r}.')

  @property
  def name(self) -> str:
    """For tables."""
    return f'{self.rows}×{self.columns} shifts'

  @property
  def elements(self) -> tuple[str, ...]:
    """By rows: '(down, right)' in steps of the group."""
    return tuple(f'({i}, {j})' for i, j in np.ndindex(self.rows, self.columns))

  @property
  def components(self) -> tuple[str, ...]:
    """The frequencies, of each conjugate pair the first."""
    return tuple(f'({u}, {v})' for u, v in self._frequencies())

  def places(self, height: int, width: int) -> np.ndarray:
    """See :meth:`Group.places`; refuses sides that do not divide."""
    if height % self.rows or width % self.columns:
      raise SymmetryError(
        f'Shifts({self.rows}, {self.columns}) moves pictures by parts of their'
        f' sides, but {height}×{width} does not divide by'
        f' {self.rows}×{self.columns}. Choose divisors of the sides.'
      )
    return _shifted_places(self.rows, self.columns, height, width)

  @property
  def weights(self) -> np.ndarray:
    """See :attr:`Group.weights`."""
    return _shift_weights(self)

  def _frequencies(self) -> list[tuple[int, int]]:
    kept = []
    for u, v in np.ndindex(self.rows, self.columns):
      if (u, v) <= (-u % self.rows, -v % self.columns):
        kept.append((u, v))
    return kept


C4 = Rotations()
D4 = Rotations(mirrors=True)


@functools.cache
def _rotated_places(mirrors: bool, side: int) -> np.ndarray:
  grid = np.arange(side * side, dtype=np.int32).reshape(side, side)
  starts = (grid, grid[:, ::-1]) if mirrors else (grid,)
  return np.stack(
    [np.rot90(start, turn).ravel() for start in starts for turn in range(4)]
  )


@functools.cache
def _shifted_places(
  rows: int, columns: int, height: int, width: int
) -> np.ndarray:
  grid = np.arange(height * width, dtype=np.int32).reshape(height, width)
  step = np.array([height // rows, width // columns])
  return np.stack(
    [
      np.roll(grid, step * shift, axis=(0, 1)).ravel()
      for shift in np.ndindex(rows, columns)
    ]
  )


@functools.cache
def _shift_weights(group: Shifts) -> np.ndarray:
  rows, columns = group.rows, group.columns
  i, j = np.indices((rows, columns)).reshape(2, -1)
  weights = []
  for u, v in group._frequencies():
    # whole numbers first: sums of angles would round
    share = (u * i * columns + v * j * rows) % (rows * columns)
    real = np.cos(2 * np.pi * share / (rows * columns))
    is_own_conjugate = (u, v) == (-u % rows, -v % columns)
    weights.append((1 if is_own_conjugate else 2) * real / group.order)
  return np.stack(weights)
