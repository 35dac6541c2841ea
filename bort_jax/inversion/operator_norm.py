"""Upper bounds of the norms of convolutions and dense layers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from bort_jax.inversion.operations import aval_of
from bort_jax.norms import greatest

_SMALL = 256  # side up to which Gram matrices are squared more often
_CHEAP = 1e10  # operations up to which all frequencies are measured
_FEW = 16  # fewer channels count as these: they take memory, not time


def norm_bound(matrices: jax.Array) -> jax.Array:
  """An upper bound of the largest singular value of any of some matrices.

  From the Frobenius norm of a power of the Gram matrix, ‖G^p‖_F^(1/p) ≥ ‖G‖.
  (Many batched decompositions in one program wait for each other forever on
  few cores; products do not.)

  Args:
    matrices: (..., m, n), real or complex.

  Returns:
    () their largest norm times at most s^(1/4p), s the smaller side: 0.06 %
    more at 10, 0.2 % at 256, where p is 1024; 2.5 % at 512, where it is 64.

  References:
    Delattre et al., `Efficient Bound of Lipschitz Constant for Convolutional
    Layers by Gram Iteration <https://arxiv.org/abs/2305.16173>`_, 2023
  """
  matrices = _at_least_float32(matrices)
  largest = greatest(jnp.abs(matrices))
  matrices = matrices / jnp.where(largest > 0, largest, 1)
  adjoint = jnp.conj(jnp.swapaxes(matrices, -1, -2))
  wide = matrices.shape[-2] <= matrices.shape[-1]
  gram = matrices @ adjoint if wide else adjoint @ matrices
  squarings = 10 if gram.shape[-1] <= _SMALL else 6

  def square(_, state):
    gram, logarithm = state
    size = _frobenius(gram)
    gram = gram / jnp.where(size > 0, size, 1)[..., None, None]
    return gram @ gram, 2 * (logarithm + jnp.log(jnp.where(size > 0, size, 1)))

  start = gram, jnp.zeros(gram.shape[:-2], jnp.abs(gram).dtype)
  gram, logarithm = jax.lax.fori_loop(0, squarings, square, start)
  logarithm = (logarithm + jnp.log(_frobenius(gram))) / 2**squarings
  return largest * greatest(jnp.exp(logarithm / 2))


def _frobenius(matrices: jax.Array) -> jax.Array:
  return jnp.sqrt(jnp.sum(jnp.square(jnp.abs(matrices)), axis=(-1, -2)))


def dense_norm(eqn: core.JaxprEqn, side: int, kernel: jax.Array) -> jax.Array:
  """An upper bound of the norm of a product with a kernel.

  Args:
    eqn: a ``dot_general`` of which one operand is the kernel.
    side: which, 0 or 1.
    kernel: the kernel.

  Returns:
    () the bound.
  """
  contracting, batch = eqn.params['dimension_numbers']
  axes = (*batch[side], *contracting[side])
  free = [a for a in range(kernel.ndim) if a not in axes]
  matrix = jnp.transpose(kernel, (*batch[side], *contracting[side], *free))
  stack = math.prod(kernel.shape[a] for a in batch[side])
  inputs = math.prod(kernel.shape[a] for a in contracting[side])
  return norm_bound(matrix.reshape(stack, inputs, -1))


def convolution_norm(
  eqn: core.JaxprEqn, kernel: jax.Array, frequencies: int
) -> jax.Array:
  """An upper bound of the norm of a convolution as an operator on pictures.

  A convolution of stride s is one of stride 1 on s×s phases of the picture. One
  that pads with zeros is part of a circular one on a larger grid, whose norm is
  the largest over the frequencies of that grid. Over all frequencies it is at
  most the largest of N in each dimension over √cos(πd/N) of each, d the number
  of taps less one: so large convolutions are measured.

  Args:
    eqn: a ``conv_general_dilated`` whose second operand is the kernel.
    kernel: the kernel.
    frequencies: N, for large convolutions.

  Returns:
    () the bound.

  References:
    Sedghi et al., `The Singular Values of Convolutional Layers
    <https://arxiv.org/abs/1805.10408>`_, 2019. Ehlich and Zeller, Schwankung
    von Polynomen zwischen Gitterpunkten, 1964
  """
  options = eqn.params
  out_axis, in_axis, *space = options['dimension_numbers'].rhs_spec
  kernel = jnp.transpose(kernel, (out_axis, in_axis, *space))
  kernel = _dilated(kernel, options['rhs_dilation'])
  sizes = _padded_sizes(eqn)
  kernel, sizes = _phases(kernel, sizes, options['window_strides'])
  groups = options['feature_group_count']
  kernel = kernel.reshape(groups, kernel.shape[0] // groups, *kernel.shape[1:])
  taps = kernel.shape[3:]
  grid = [
    1 if k == 1 else size + k - 1 for size, k in zip(sizes, taps, strict=True)
  ]
  excess = 1.0
  groups, outputs, inputs = kernel.shape[:3]
  work = groups * outputs * inputs * max(min(outputs, inputs), _FEW)
  if math.prod(grid) * work > _CHEAP:
    for i, k in enumerate(taps):
      few = max(frequencies, 2 * k)
      if few < grid[i]:
        grid[i] = few
        excess /= math.cos(math.pi * (k - 1) / few)
  return norm_bound(_at_frequencies(kernel, grid)) * math.sqrt(excess)


def _at_frequencies(kernel: jax.Array, grid: list[int]) -> jax.Array:
  """(frequencies …, groups, out, in) of a kernel (groups, out, in, taps …).

  Of the frequencies of a real kernel half are enough. By products, see
  :func:`norm_bound`.
  """
  matrices = _at_least_float32(kernel)
  for i, size in enumerate(grid):
    number = size // 2 + 1 if i == 0 else size
    phase = np.outer(np.arange(number), np.arange(kernel.shape[3 + i])) / size
    waves = np.exp(-2j * np.pi * phase).astype(_complex(matrices.dtype))
    matrices = jnp.tensordot(waves, matrices, (1, 3 + i))
  return matrices


def _complex(dtype) -> np.dtype:
  return np.promote_types(dtype, np.complex64)


def _at_least_float32(a: jax.Array) -> jax.Array:
  return a.astype(jnp.promote_types(a.dtype, jnp.float32))


def _dilated(kernel: jax.Array, dilation: tuple[int, ...]) -> jax.Array:
  """The kernel with zeros between its taps."""
  inside = [(0, 0, 0), (0, 0, 0), *((0, 0, d - 1) for d in dilation)]
  return jax.lax.pad(kernel, jnp.zeros((), kernel.dtype), inside)


def _padded_sizes(eqn: core.JaxprEqn) -> list[int]:
  """The sides of the padded picture. Zeros inside it do not raise the norm."""
  shape = aval_of(eqn.invars[0]).shape
  space = eqn.params['dimension_numbers'].lhs_spec[2:]
  sizes = []
  for axis, dilation, padding in zip(
    space, eqn.params['lhs_dilation'], eqn.params['padding'], strict=True
  ):
    inner = (shape[axis] - 1) * dilation + 1
    sizes.append(inner + max(padding[0], 0) + max(padding[1], 0))
  return sizes


def _phases(
  kernel: jax.Array, sizes: list[int], strides: tuple[int, ...]
) -> tuple[jax.Array, list[int]]:
  """Kernel and picture of the equal convolution of stride 1."""
  for i, stride in enumerate(strides):
    axis = 2 + i
    short = -kernel.shape[axis] % stride
    widths = np.zeros((kernel.ndim, 2), int)
    widths[axis, 1] = short
    kernel = jnp.pad(kernel, widths)
    shape = list(kernel.shape)
    shape[axis : axis + 1] = [shape[axis] // stride, stride]
    kernel = jnp.moveaxis(kernel.reshape(shape), axis + 1, 2)
    shape = list(kernel.shape)
    kernel = kernel.reshape(shape[0], shape[1] * stride, *shape[3:])
  return kernel, [
    -(-size // stride) for size, stride in zip(sizes, strides, strict=True)
  ]
