"""The parts of residual networks: layers, shortcuts and the two blocks."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.initializers import he_normal_fan_out, uniform_fan_in


def max_pool(x: jax.Array) -> jax.Array:
  """The largest of 3×3 pixels, with stride 2: (N, H, W, C) to halves."""
  around = ((1, 1), (1, 1))
  return nnx.max_pool(
    x,
    (3, 3),
    strides=(2, 2),
    padding=around,  # pyright: ignore[reportArgumentType] its type is wrong
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layers:
  """Makes the layers of one network, all with the same settings.

  Convolutions pad by half the kernel on every side, as PyTorch does. XLA's
  ``'SAME'`` pads a 3×3 kernel of stride 2 on one side only, on pictures of even
  size, and so samples other pixels.

  Attributes:
    kernel_init: initializer of all kernels; None for He's normal one by
      outputs in convolutions and PyTorch's uniform one in dense layers.
    zero_init_residual: whether the last normalization of a block starts at 0.
    dtype: dtype of the computation.
    param_dtype: dtype of the parameters.
    axis_name: mapped axis over which batch statistics are averaged.
    rngs: random keys of the initialization.
    activation: what follows normalizations and sums.
    pool: what halves the picture in a stem.
  """

  kernel_init: nnx.Initializer | None
  zero_init_residual: bool
  dtype: jax.typing.DTypeLike | None
  param_dtype: jax.typing.DTypeLike
  axis_name: str | None
  rngs: nnx.Rngs
  activation: Callable[[jax.Array], jax.Array] = nnx.relu
  pool: Callable[[jax.Array], jax.Array] = max_pool

  def conv(
    self, inputs: int, outputs: int, kernel: int, stride: int = 1
  ) -> Any:
    """A square convolution without bias."""
    return nnx.Conv(
      inputs,
      outputs,
      (kernel, kernel),
      strides=stride,
      padding=(kernel - 1) // 2,
      use_bias=False,
      kernel_init=self.kernel_init or he_normal_fan_out,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      rngs=self.rngs,
    )

  def norm(self, features: int, *, ends_branch: bool = False) -> Any:
    """A batch normalization; one that ends a branch may start at zero."""
    initializers = nnx.initializers
    zero = ends_branch and self.zero_init_residual
    return nnx.BatchNorm(
      features,
      momentum=0.9,
      epsilon=1e-5,
      scale_init=initializers.zeros_init()
      if zero
      else initializers.ones_init(),
      axis_name=self.axis_name,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      rngs=self.rngs,
    )

  def linear(self, inputs: int, outputs: int) -> Any:
    """A dense layer with a bias of zero."""
    return nnx.Linear(
      inputs,
      outputs,
      kernel_init=self.kernel_init or uniform_fan_in,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      rngs=self.rngs,
    )


class ConvNorm(nnx.Module):
  """A convolution and its batch normalization.

  Args:
    inputs: input channels.
    outputs: output channels.
    kernel: side of the kernel.
    stride: stride of the convolution.
    layers: makes the layers.
  """

  def __init__(
    self, inputs: int, outputs: int, kernel: int, stride: int, layers: Layers
  ):
    self.conv = layers.conv(inputs, outputs, kernel, stride)
    self.norm = layers.norm(outputs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Pictures (N, H, W, inputs) to (N, H/stride, W/stride, outputs)."""
    return self.norm(self.conv(x))


class PadChannels(nnx.Module):
  """Every ``stride``-th pixel, with channels of zeros behind.

  Args:
    inputs: input channels.
    outputs: output channels, as many or more.
    stride: distance of the pixels kept.
  """

  def __init__(self, inputs: int, outputs: int, stride: int):
    self.extra = outputs - inputs
    self.stride = stride

  def __call__(self, x: jax.Array) -> jax.Array:
    """Pictures (N, H, W, inputs) to (N, H/stride, W/stride, outputs)."""
    x = x[:, :: self.stride, :: self.stride]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.extra)))


Shortcut: TypeAlias = Literal['projection', 'pad']


def make_shortcut(
  kind: Shortcut, inputs: int, outputs: int, stride: int, layers: Layers
) -> ConvNorm | PadChannels | None:
  """The way around a block; None where its shape does not change.

  Args:
    kind: ``'projection'``, a 1×1 convolution with batch normalization (the
      paper's option B), or ``'pad'``, :class:`PadChannels` (option A).
    inputs: input channels of the block.
    outputs: output channels of the block.
    stride: stride of the block.
    layers: makes the layers.

  Returns:
    The module, or None for the identity.
  """
  if inputs == outputs and stride == 1:
    return None
  if kind == 'pad':
    return PadChannels(inputs, outputs, stride)
  return ConvNorm(inputs, outputs, 1, stride, layers)


class BasicBlock(nnx.Module):
  """Two 3×3 convolutions with normalization, and a way around them.

  Args:
    inputs: input channels.
    width: channels of both convolutions, and of the output.
    stride: stride of the first convolution.
    shortcut: how the shortcut changes shape, see :func:`make_shortcut`.
    layers: makes the layers.
  """

  expansion = 1
  convolutions = 2

  def __init__(
    self,
    inputs: int,
    width: int,
    stride: int,
    shortcut: Shortcut,
    layers: Layers,
  ):
    self.conv1 = layers.conv(inputs, width, 3, stride)
    self.norm1 = layers.norm(width)
    self.conv2 = layers.conv(width, width, 3)
    self.norm2 = layers.norm(width, ends_branch=True)
    self.shortcut = make_shortcut(shortcut, inputs, width, stride, layers)
    self.act = layers.activation

  def __call__(self, x: jax.Array) -> jax.Array:
    """Pictures (N, H, W, inputs) to (N, H/stride, W/stride, width)."""
    y = self.act(self.norm1(self.conv1(x)))
    y = self.norm2(self.conv2(y))
    return self.act(y + (x if self.shortcut is None else self.shortcut(x)))


class Bottleneck(nnx.Module):
  """Convolutions 1×1, 3×3 and 1×1, and a way around them.

  The stride is on the 3×3 convolution ("v1.5", as in torchvision), not on the
  first 1×1 one as in the paper, which would skip three pixels of four.

  Args:
    inputs: input channels.
    width: channels of the inner convolutions; the output has four times as
      many.
    stride: stride of the 3×3 convolution.
    shortcut: how the shortcut changes shape, see :func:`make_shortcut`.
    layers: makes the layers.
  """

  expansion = 4
  convolutions = 3

  def __init__(
    self,
    inputs: int,
    width: int,
    stride: int,
    shortcut: Shortcut,
    layers: Layers,
  ):
    outputs = self.expansion * width
    self.conv1 = layers.conv(inputs, width, 1)
    self.norm1 = layers.norm(width)
    self.conv2 = layers.conv(width, width, 3, stride)
    self.norm2 = layers.norm(width)
    self.conv3 = layers.conv(width, outputs, 1)
    self.norm3 = layers.norm(outputs, ends_branch=True)
    self.shortcut = make_shortcut(shortcut, inputs, outputs, stride, layers)
    self.act = layers.activation

  def __call__(self, x: jax.Array) -> jax.Array:
    """Pictures (N, H, W, inputs) to (N, H/stride, W/stride, 4·width)."""
    y = self.act(self.norm1(self.conv1(x)))
    y = self.act(self.norm2(self.conv2(y)))
    y = self.norm3(self.conv3(y))
    return self.act(y + (x if self.shortcut is None else self.shortcut(x)))
