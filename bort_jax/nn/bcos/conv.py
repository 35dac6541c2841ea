"""The B-cos convolution, in any number of dimensions."""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bort_jax.claims import aligned
from bort_jax.nn.bcos.transform import (
  align,
  check_layer,
  max_out,
  unit_rows,
  wide,
)

# A name; or a number of pixels for every side, for each axis, or for both ends
# of each axis.
Padding: TypeAlias = str | int | Sequence[int] | Sequence[tuple[int, int]]

# Added to the squared norm of a patch, as published.
_EPSILON = 1e-6
_BORDERS = {'CIRCULAR': 'wrap', 'REFLECT': 'reflect'}


class BcosConv(nnx.Module):
  r"""A convolution scaled by how well weights and patch are aligned.

  With w a row of weights of norm 1 and p a patch,

  .. math:: |\cos(p, w)|^{B-1} \; w \cdot p

  so that :math:`|out| \le \|p\|`, with equality for w along p alone. The scale
  is dynamic (see :func:`dynamic`): with it held, the layer is linear.
  The norm is :math:`\sqrt{\sum p^2 + 10^{-6}}`, over what the convolution sees:
  per group, dilated, padded in the same way. Rows of zeros give zeros.

  It is called as ``nnx.Conv``, of as many dimensions as ``kernel_size`` has
  numbers. The kernel is (*kernel_size, inputs / groups, outputs · max_out),
  with the units of one output side by side. Norms are summed in float32 or
  wider.

  Args:
    in_features: input channels.
    out_features: output channels.
    kernel_size: sides of the kernel.
    strides: stride, one or of each axis.
    padding: ``'SAME'``, ``'VALID'``, ``'CIRCULAR'``, ``'REFLECT'`` (the last
      two with the sizes of ``'SAME'``), or pixels: one number, one for each
      axis, or a pair for each axis.
    kernel_dilation: dilation of the kernel, one or of each axis.
    feature_group_count: number of groups.
    b: the exponent B ≥ 1.
    max_out: units of which the largest is an output.
    scale: the output is divided by it; :func:`published_scale` is that of the
      first publication.
    normalize: whether the weights of a unit are scaled to norm 1. Free weights
      are those of B-cosification.
    use_bias: whether a bias is added to the linear output, before MaxOut and
      scaling. An explanation counts it as constant.
    kernel_init: initializer of the kernel; by default LeCun's normal one.
    dtype: dtype of the computation; by default that of input and parameters.
    param_dtype: dtype of the parameters.
    rngs: random keys of the initialization.

  Raises:
    ValueError: if b < 1, ``max_out`` < 1, the scale is not > 0, or groups do
      not divide the channels.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.bcos import BcosConv
    >>> conv = BcosConv(6, 8, (3, 3), strides=2, padding=1, rngs=nnx.Rngs(0))
    >>> conv(jnp.ones((2, 8, 8, 6))).shape
    (2, 4, 4, 8)
    >>> sound = BcosConv(2, 3, (5,), max_out=2, rngs=nnx.Rngs(0))
    >>> sound(jnp.ones((1, 100, 2))).shape, sound.kernel.shape
    ((1, 100, 3), (5, 2, 6))

  References:
    Böhle, Fritz, Schiele, `B-cos Networks: Alignment is All We Need for
    Interpretability <https://arxiv.org/abs/2205.10268>`_, 2022, equation 3
  """

  def __init__(
    self,
    in_features: int,
    out_features: int,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    *,
    padding: Padding = 'SAME',
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    b: float = 2.0,
    max_out: int = 1,
    scale: float = 1.0,
    normalize: bool = True,
    use_bias: bool = False,
    kernel_init: nnx.Initializer | None = None,
    dtype: jax.typing.DTypeLike | None = None,
    param_dtype: jax.typing.DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
  ):
    check_layer(b, max_out, scale)
    if in_features % feature_group_count or out_features % feature_group_count:
      raise ValueError(
        f'feature_group_count must divide {in_features} inputs and'
        f' {out_features} outputs, got {feature_group_count}.'
      )
    self.kernel_size = (
      (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
    )
    self.in_features = in_features
    self.strides = self._of_each_axis(strides)
    self.kernel_dilation = self._of_each_axis(kernel_dilation)
    self.padding = padding if isinstance(padding, str | int) else tuple(padding)
    self.feature_group_count = feature_group_count
    self.b, self.max_out, self.scale = b, max_out, scale
    self.normalize = normalize
    self.dtype = dtype
    units = out_features * max_out
    shape = (*self.kernel_size, in_features // feature_group_count, units)
    init = kernel_init or nnx.initializers.lecun_normal()
    self.kernel = nnx.Param(init(rngs.params(), shape, param_dtype))
    self.bias = nnx.Param(jnp.zeros(units, param_dtype)) if use_bias else None

  def __call__(self, x: jax.Array) -> jax.Array:
    """(..., *space, inputs) to (..., *space, outputs); batch axes are optional.

    Raises:
      ValueError: if axes are missing or there are other channels.
    """
    rank = len(self.kernel_size) + 1
    if x.ndim < rank or x.shape[-1] != self.in_features:
      raise ValueError(
        f'BcosConv of {rank - 1} dimensions needs (..., *space,'
        f' {self.in_features}), got {x.shape}.'
      )
    batch = x.shape[:-rank]
    y = self._convolve(x.reshape(-1, *x.shape[-rank:]))
    return y.reshape(*batch, *y.shape[1:])

  def _convolve(self, x: jax.Array) -> jax.Array:
    kernel = self.kernel[...]
    dtype = self.dtype or jnp.result_type(x, kernel)
    x, pads = self._padded(x.astype(dtype))
    kernel = unit_rows(kernel) if self.normalize else kernel
    letters = 'xyzuvw'[: len(self.kernel_size)]
    y = jax.lax.conv_general_dilated(
      x,
      kernel.astype(dtype),
      self.strides,
      pads,
      rhs_dilation=self.kernel_dilation,
      dimension_numbers=(f'N{letters}C', f'{letters}IO', f'N{letters}C'),
      feature_group_count=self.feature_group_count,
    )
    if self.bias is not None:
      y += jnp.broadcast_to(self.bias[...].astype(dtype), y.shape)
    y = max_out(y, self.max_out)
    if self.b != 1:
      y = align(y, self._patch_norm(x, pads, y.shape[-1]), self.b)
    if self.bias is None:
      y = aligned(y, self.b)
    return y if self.scale == 1 else y / self.scale

  def _patch_norm(self, x: jax.Array, pads, outputs: int) -> jax.Array:
    """The norm of every patch, for each output: (N, *space, outputs)."""
    groups = self.feature_group_count
    square = wide(x) ** 2
    square = square.reshape(*x.shape[:-1], groups, -1).sum(axis=-1)
    total = jax.lax.reduce_window(
      square,
      np.zeros((), square.dtype),
      jax.lax.add,
      (1, *self.kernel_size, 1),
      (1, *self.strides, 1),
      ((0, 0), *pads, (0, 0)),
      window_dilation=(1, *self.kernel_dilation, 1),
    )
    norm = jnp.sqrt(total + _EPSILON)
    if groups > 1:
      return jnp.repeat(norm, outputs // groups, axis=-1)
    return jnp.broadcast_to(norm, (*norm.shape[:-1], outputs))

  def _padded(
    self, x: jax.Array
  ) -> tuple[jax.Array, Sequence[tuple[int, int]]]:
    """X with the borders that are not zeros, and the zeros to come."""
    space = x.shape[1:-1]
    padding = self.padding
    if isinstance(padding, str):
      if padding not in ('SAME', 'VALID', *_BORDERS):
        raise ValueError(
          "padding must be 'SAME', 'VALID', 'CIRCULAR', 'REFLECT' or numbers,"
          f' got {padding!r}.'
        )
      sides = [
        (size - 1) * dilation + 1
        for size, dilation in zip(
          self.kernel_size, self.kernel_dilation, strict=True
        )
      ]
      name = 'VALID' if padding == 'VALID' else 'SAME'
      pads = jax.lax.padtype_to_pads(space, sides, self.strides, name)
      if padding not in _BORDERS:
        return x, pads
      x = jnp.pad(x, ((0, 0), *pads, (0, 0)), mode=_BORDERS[padding])
      return x, [(0, 0)] * len(space)
    ends = (padding,) * len(space) if isinstance(padding, int) else padding
    return x, [
      (n, n) if isinstance(n, int) else (n[0], n[1])
      for n in self._of_each_axis(ends)
    ]

  def _of_each_axis(self, numbers):
    rank = len(self.kernel_size)
    numbers = (numbers,) * rank if isinstance(numbers, int) else tuple(numbers)
    if len(numbers) != rank:
      raise ValueError(
        f'Expected one number, or one for each of {rank} axes, got {numbers!r}.'
      )
    return numbers
