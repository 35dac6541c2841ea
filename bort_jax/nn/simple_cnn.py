"""The published small convolutional network."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.activations import Activation, slope_below_zero
from bort_jax.nn.logit_scale import LogitScale
from bort_jax.nn.sizes import check_least_side


class SimpleCNN(nnx.Module):
  """Five convolutions, two of them 2×2 with stride 2 in the place of pooling.

  conv 5×5, activation, conv 2×2 stride 2, conv 4×4, activation, conv 2×2
  stride 2, conv 3×3, activation, maximum over space, dense. The convolutions of
  stride 1 pad by one pixel, all have a bias, and there is no normalization, so
  that every layer before the maximum has a plain backward rule. With widths (8,
  24, 288, 864, 2592) it is the published network for MNIST; the default widths
  make it small enough for a laptop. Pictures of fewer than 16 pixels want
  ``kernel_sizes`` (3, 3, 3).

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    widths: output channels of the five convolutions.
    kernel_sizes: sides of the three kernels of stride 1.
    activation: ``'leaky_relu'`` (invertible) or ``'relu'``.
    negative_slope: slope of the leaky ReLU below zero, 0.5 as published.
    logit_scale: whether the logits are scaled by a learned number, see
      :class:`bort_jax.nn.LogitScale`.
    kernel_init: initializer of all kernels; the default makes them orthogonal.
    dtype: dtype of the computation; by default that of input and parameters.
    param_dtype: dtype of the parameters.
    rngs: random keys of the initialization.

  Raises:
    ValueError: if the pictures are smaller than 8×8 or than the kernels need,
      ``widths`` is not five numbers or ``kernel_sizes`` not three, or the
      activation is unknown.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn import SimpleCNN
    >>> model = SimpleCNN((28, 28, 1), 10, rngs=nnx.Rngs(0))
    >>> model(jnp.zeros((2, 28, 28, 1))).shape
    (2, 10)
    >>> model.intermediates(jnp.zeros((2, 28, 28, 1)))['act3'].shape
    (2, 6, 6, 256)

  References:
    Zhang et al., `Bort: Towards Explainable Neural Networks with Bounded
    Orthogonal Constraint <https://arxiv.org/abs/2212.09062>`_, 2023
  """

  layers = ('conv1', 'down1', 'conv2', 'down2', 'conv3', 'head')

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    widths: Sequence[int] = (8, 24, 64, 128, 256),
    kernel_sizes: Sequence[int] = (5, 4, 3),
    activation: Activation = 'leaky_relu',
    negative_slope: float = 0.5,
    logit_scale: bool = True,
    kernel_init: nnx.Initializer | None = None,
    dtype: jax.typing.DTypeLike | None = None,
    param_dtype: jax.typing.DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
  ):
    check_least_side('SimpleCNN', image_shape, 8)
    height, width, channels = image_shape
    if len(widths) != 5 or len(kernel_sizes) != 3:
      raise ValueError(
        'widths must be five numbers and kernel_sizes three, got'
        f' {tuple(widths)} and {tuple(kernel_sizes)}.'
      )
    _check_size(image_shape, kernel_sizes)
    self.negative_slope = slope_below_zero(activation, negative_slope)
    init = kernel_init or nnx.initializers.orthogonal()
    types = {'dtype': dtype, 'param_dtype': param_dtype, 'kernel_init': init}
    conv = partial(nnx.Conv, padding=1, rngs=rngs, **types)
    down = partial(
      nnx.Conv, kernel_size=(2, 2), strides=2, padding=0, rngs=rngs, **types
    )
    first, second, third = ((size, size) for size in kernel_sizes)
    self.conv1 = conv(channels, widths[0], first)
    self.down1 = down(widths[0], widths[1])
    self.conv2 = conv(widths[1], widths[2], second)
    self.down2 = down(widths[2], widths[3])
    self.conv3 = conv(widths[3], widths[4], third)
    self.head = nnx.Linear(widths[4], num_classes, rngs=rngs, **types)
    self.scale = (
      LogitScale(param_dtype=param_dtype, rngs=rngs) if logit_scale else None
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits (N, classes) of pictures (N, H, W, C)."""
    return self.intermediates(x)['logits']

  def intermediates(self, x: jax.Array) -> dict[str, jax.Array]:
    """Every layer's output by its name, from ``conv1`` to ``logits``."""
    out = {}
    out['conv1'] = self.conv1(x)
    out['act1'] = self.act(out['conv1'])
    out['down1'] = self.down1(out['act1'])
    out['conv2'] = self.conv2(out['down1'])
    out['act2'] = self.act(out['conv2'])
    out['down2'] = self.down2(out['act2'])
    out['conv3'] = self.conv3(out['down2'])
    out['act3'] = self.act(out['conv3'])
    out['pool'] = jnp.max(out['act3'], axis=(1, 2))
    logits = self.head(out['pool'])
    out['logits'] = logits if self.scale is None else self.scale(logits)
    return out

  def act(self, x: jax.Array) -> jax.Array:
    """The activation."""
    return nnx.leaky_relu(x, self.negative_slope)


def _check_size(image_shape: Sequence[int], kernel_sizes: Sequence[int]):
  """Refuses pictures of which a convolution would leave nothing."""
  first, second, third = kernel_sizes
  for side in image_shape[:2]:
    last = ((side + 3 - first) // 2 + 3 - second) // 2 + 3 - third
    if last < 1:
      raise ValueError(
        f'Pictures of {side} pixels are too small for kernels of'
        f' {tuple(kernel_sizes)}: nothing is left after the third. Use smaller'
        ' kernel_sizes, such as (3, 3, 3), or larger pictures.'
      )
