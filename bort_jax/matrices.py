"""How a parameter of any rank is a stack of matrices.

A dense or convolution kernel acts on its input as a matrix W with one row per
output and one column per input: ``out = W @ in``. :class:`MatrixAxes` says
which axes of the array are which; :class:`MatrixView` computes with that matrix
by contracting the array's own axes. Nothing is reshaped (except to split
groups), so a sharded kernel is not gathered: its Gram matrix is summed instead.
"""

import dataclasses
import math
import string
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from bort_jax.norms import greatest
from bort_jax.validation import is_integer


@dataclasses.dataclass(frozen=True, init=False)
class MatrixAxes:
  """Which axes of a parameter form its matrix.

  Axes named in neither argument are batch axes: the parameter is then a stack
  of matrices (scanned layers, per-head kernels). Negative axes count from the
  end. A plain frozen dataclass, so it is a leaf of any pytree.

  Args:
    in_axes: axis or axes summed over when the layer is applied (fan-in).
    out_axes: axis or axes that index the layer's outputs.
    groups: the flattened output axes consist of this many groups, each an
      independent matrix, as in a grouped convolution. A depthwise kernel has as
      many groups as outputs.

  Raises:
    TypeError: if an axis is not an integer.
    ValueError: if an axis is in both, or repeated, one side is empty, or
      ``groups`` is not positive.

  Examples:
    >>> import bort_jax
    >>> bort_jax.MatrixAxes(in_axes=(0, 1, 2), out_axes=3)  # HWIO kernel
    MatrixAxes(in_axes=(0, 1, 2), out_axes=(3,), groups=1)
  """

  in_axes: tuple[int, ...]
  out_axes: tuple[int, ...]
  groups: int

  def __init__(
    self,
    in_axes: int | Sequence[int],
    out_axes: int | Sequence[int],
    groups: int = 1,
  ):
    if not is_integer(groups) or groups < 1:
      raise ValueError(f'groups must be a positive integer, got {groups!r}.')
    # Frozen: the only way to set a field.
    object.__setattr__(self, 'in_axes', _axis_tuple('in_axes', in_axes))
    object.__setattr__(self, 'out_axes', _axis_tuple('out_axes', out_axes))
    object.__setattr__(self, 'groups', int(groups))
    _check_disjoint(self, self.in_axes, self.out_axes, '')


def _axis_tuple(name: str, axes: int | Sequence[int]) -> tuple[int, ...]:
  axes = (axes,) if not isinstance(axes, Sequence) else tuple(axes)
  if not axes:
    raise ValueError(
      f'{name} is empty; a matrix needs at least one axis there.'
    )
  if not all(map(is_integer, axes)):
    raise TypeError(f'{name} must hold integers, got {axes!r}.')
  return tuple(int(axis) for axis in axes)


def _check_disjoint(axes, in_axes, out_axes, context: str) -> None:
  if len({*in_axes, *out_axes}) < len(in_axes) + len(out_axes):
    raise ValueError(
      f'An axis is named twice in {axes}{context}; each axis is an input axis'
      ' once, an output axis once, or a batch axis.'
    )


class MatrixView:
  """A parameter of a given shape seen as a stack of matrices (out, in).

  Static: it holds shapes and index letters, no arrays. All products run in
  float32 or wider at the highest matmul precision.

  Args:
    shape: the parameter's shape.
    axes: its :class:`MatrixAxes`.

  Raises:
    ValueError: if an axis is out of range, named twice (after counting
      negative axes from the end), or the groups do not divide the outputs.

  Attributes:
    num_out: rows of one matrix, m.
    num_in: columns of one matrix, n.
    stack: shape of the stack; ``()`` for a single matrix.

  Examples:
    >>> import bort_jax
    >>> from bort_jax.matrices import MatrixView
    >>> axes = bort_jax.MatrixAxes((0, 1, 2), 3)
    >>> view = MatrixView((3, 3, 16, 32), axes)
    >>> view.num_out, view.num_in, view.stack
    (32, 144, ())
  """

  def __init__(self, shape: Sequence[int], axes: MatrixAxes):
    shape = tuple(shape)
    in_axes = _positive(axes.in_axes, shape, axes)
    out_axes = _positive(axes.out_axes, shape, axes)
    _check_disjoint(axes, in_axes, out_axes, f' for shape {shape}')
    self.shape, self.axes = shape, axes
    self._split_shape = shape
    letters = list(string.ascii_lowercase[: len(shape)])
    out = [letters[axis] for axis in out_axes]
    if axes.groups > 1:
      self._split_shape = _split_groups(shape, out_axes[0], axes)
      letters.insert(out_axes[0], 'z')
    size = dict(zip(letters, self._split_shape, strict=True))
    self._w = ''.join(letters)
    self._out = ''.join(out)
    self._in = ''.join(string.ascii_lowercase[axis] for axis in in_axes)
    self._batch = ''.join(
      c for c in letters if c not in self._in and c not in self._out
    )
    self.num_out = math.prod(size[c] for c in self._out)
    self.num_in = math.prod(size[c] for c in self._in)
    self.stack = tuple(size[c] for c in self._batch)
    self._size = size

  @property
  def is_wide(self) -> bool:
    """Whether rows are the smaller side, so that W W^H is the smaller Gram."""
    return self.num_out <= self.num_in

  @property
  def products(self) -> int:
    """Multiplications of one matrix product in the correction of all."""
    smaller = min(self.num_out, self.num_in)
    return math.prod(self.shape) * smaller

  @property
  def entries_at_work(self) -> int:
    """Entries of what the correction of all makes: Gram matrices, products."""
    smaller = min(self.num_out, self.num_in)
    return math.prod(self.stack) * smaller**2 + math.prod(self.shape)

  @property
  def muon_numbers(self) -> optax.contrib.MuonDimensionNumbers:
    """The matrix axes of a split parameter, as optax's Muon takes them."""
    index = lambda letters: tuple(self._w.index(c) for c in letters)
    return optax.contrib.MuonDimensionNumbers(
      reduction_axis=index(self._in), output_axis=index(self._out)
    )

  def split(self, w: jax.Array) -> jax.Array:
    """The parameter with its groups as an axis of their own."""
    return w.reshape(self._split_shape) if self.axes.groups > 1 else w

  def split_sharding(self, w: jax.Array) -> jax.sharding.Sharding:
    """Sharding of :meth:`split`: that of w, whole along the outputs."""
    sharding = jax.typeof(w).sharding
    if self.axes.groups == 1:
      return sharding
    spec = list(sharding.spec)
    axis = self.axes.out_axes[0] % len(spec)
    spec[axis : axis + 1] = [None, None]
    return sharding.update(spec=jax.sharding.PartitionSpec(*spec))

  def merge(self, w: jax.Array) -> jax.Array:
    """Undoes :meth:`split`."""
    return w.reshape(self.shape) if self.axes.groups > 1 else w

  def to_matrices(self, w: jax.Array) -> jax.Array:
    """The stack of matrices, of shape ``(*stack, num_out, num_in)``."""
    order = self._batch + self._out + self._in
    w = jnp.einsum(f'{self._w}->{order}', self.split(w))
    return w.reshape(*self.stack, self.num_out, self.num_in)

  def from_matrices(self, matrices: jax.Array) -> jax.Array:
    """The parameter whose :meth:`to_matrices` is ``matrices``, exactly."""
    order = self._batch + self._out + self._in
    w = matrices.reshape([self._size[c] for c in order])
    return self.merge(jnp.einsum(f'{order}->{self._w}', w))

  # The products below take and return split parameters; a side is 'out' (rows)
  # or 'in' (columns), and 'smaller' is the one with fewer entries.

  def gram(
    self, w: jax.Array, v: jax.Array, side: str = 'smaller'
  ) -> jax.Array:
    """W V^H (``side='out'``) or W^H V (``'in'``), (*stack, side, side)."""
    kept = self._letters(side)
    primed = kept.upper()
    first, second = self._w, self._w.translate(str.maketrans(kept, primed))
    if self._is_out(side):
      v = v.conj()
    else:
      w = w.conj()
    return _einsum(f'{first},{second}->{self._batch}{kept}{primed}', w, v)

  def multiply(self, g: jax.Array, w: jax.Array, side: str = 'smaller'):
    """G W (``side='out'``) or W G (``'in'``) for G as :meth:`gram` gives it."""
    kept = self._letters(side)
    primed = kept.upper()
    primed_w = self._w.translate(str.maketrans(kept, primed))
    indices = kept + primed if self._is_out(side) else primed + kept
    return _einsum(f'{self._batch}{indices},{primed_w}->{self._w}', g, w)

  def identity(self, dtype, side: str = 'smaller') -> jax.Array:
    """What :meth:`gram` of an orthogonal matrix equals, broadcastable to it."""
    shape = [self._size[c] for c in self._letters(side)]
    eye = jnp.eye(math.prod(shape), dtype=dtype)
    return eye.reshape((1,) * len(self.stack) + (*shape, *shape))

  def adjoint(self, g: jax.Array, side: str = 'smaller') -> jax.Array:
    """G^H for G as :meth:`gram` gives it."""
    kept = self._letters(side)
    source = self._batch + kept + kept.upper()
    target = self._batch + kept.upper() + kept
    return jnp.einsum(f'{source}->{target}', g.conj())

  def squared_norms(self, w: jax.Array, side: str) -> jax.Array:
    """Squared row (``'out'``) or column norms, broadcastable to w."""
    summed = self._in if side == 'out' else self._out
    return self._sum(jnp.square(jnp.abs(w)), summed)

  def per_matrix(self, values: jax.Array) -> jax.Array:
    """One value per matrix (``stack`` shaped), broadcastable to a parameter."""
    return values.reshape(
      [self._size[c] if c in self._batch else 1 for c in self._w]
    )

  def per_gram(self, values: jax.Array, side: str = 'smaller') -> jax.Array:
    """One value per matrix (``stack`` shaped), broadcastable to a Gram."""
    ones = (1,) * (2 * len(self._letters(side)))
    return values.reshape(self.stack + ones)

  def mean_over_rows(self, row_values: jax.Array) -> jax.Array:
    """Mean of :meth:`squared_norms`-shaped row values, one per matrix."""
    return self._sum(row_values, self._out).reshape(self.stack) / self.num_out

  def largest_row_sum(self, gram: jax.Array) -> jax.Array:
    """Bound on the largest eigenvalue of each Gram: its infinity norm."""
    sides = gram.ndim - len(self.stack)
    last = tuple(range(-(sides // 2), 0))
    return jnp.max(jnp.sum(jnp.abs(gram), axis=last), axis=last, initial=0)

  def largest_entry(self, w: jax.Array) -> jax.Array:
    """Largest magnitude in each matrix."""
    summed = tuple(
      i for i, c in enumerate(self._w) if c in self._in + self._out
    )
    return greatest(jnp.abs(w), summed)

  def _sum(self, x, letters):
    axes = tuple(self._w.index(c) for c in letters)
    return jnp.sum(x, axis=axes, keepdims=True)

  def _is_out(self, side: str) -> bool:
    return side == 'out' or (side == 'smaller' and self.is_wide)

  def _letters(self, side: str) -> str:
    return self._out if self._is_out(side) else self._in


def _einsum(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.einsum(subscripts, a, b, precision=jax.lax.Precision.HIGHEST)


def _positive(axes: tuple[int, ...], shape, spec: MatrixAxes):
  if any(not -len(shape) <= axis < len(shape) for axis in axes):
    raise ValueError(
      f'{spec} names an axis that shape {tuple(shape)} does not have.'
    )
  return tuple(axis % len(shape) for axis in axes)


def _split_groups(shape, axis: int, axes: MatrixAxes) -> tuple[int, ...]:
  if shape[axis] % axes.groups:
    raise ValueError(
      f'groups={axes.groups} do not divide the {shape[axis]} outputs on axis'
      f' {axis} of shape {tuple(shape)}.'
    )
  per_group = shape[axis] // axes.groups
  return (*shape[:axis], axes.groups, per_group, *shape[axis + 1 :])
