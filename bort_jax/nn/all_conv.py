"""The all-convolutional network for large pictures."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.activations import Activation, slope_below_zero
from bort_jax.nn.initializers import he_normal_fan_out
from bort_jax.nn.logit_scale import LogitScale
from bort_jax.nn.sizes import check_least_side

_KERNELS = (10, 1, 3, 3, 1, 3, 3, 1, 3, 3, 1, 1)
_STRIDES = (3, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 1)
_FIRST_PADDING = 4
_DROPOUT_BEFORE = 10
_LEAST_SIDE = 128  # leaves one pixel after the last 3×3 convolution


class AllConv12(nnx.Module):
  """Twelve convolutions and the mean of the class maps: no pooling, no dense.

  Kernels of side 10, 1, 3, 3, 1, 3, 3, 1, 3, 3, 1, 1 and strides 3, 1, 2, 1, 1,
  2, 1, 1, 2, 1, 1, 1, each with a bias and followed by the activation, the last
  one, which gives one map per class, included. The first pads by 4 pixels, the
  others not at all. Half of the numbers are dropped out before the tenth in
  training. The default widths are those for ImageNet; (100, 50, 90, 162, 81,
  243, 729, 243, 729, 2187, 1458) are those published as "large".

  Kernels start as He's normal numbers scaled by outputs, biases as zeros. A new
  network is in training mode; ``model.eval()`` turns dropout off.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    widths: output channels of the first eleven convolutions.
    activation: ``'leaky_relu'`` (invertible) or ``'relu'``.
    negative_slope: slope of the leaky ReLU below zero, 0.5 as published.
    dropout_rate: share of numbers dropped, in [0, 1].
    logit_scale: whether the logits are scaled by a learned number, see
      :class:`bort_jax.nn.LogitScale`.
    kernel_init: initializer of all kernels, e.g.
      ``nnx.initializers.orthogonal()``; by default as above.
    dtype: dtype of the computation; by default that of input and parameters.
    param_dtype: dtype of the parameters.
    rngs: random keys of the initialization and, stream ``dropout``, of dropout.

  Raises:
    ValueError: if a side of the pictures is shorter than 128 pixels, ``widths``
      is not eleven numbers, or the activation is unknown.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.all_conv import AllConv12
    >>> def outputs_of_all_conv(x):
    ...   model = AllConv12((224, 224, 3), 1000, rngs=nnx.Rngs(0))
    ...   return model.intermediates(x)
    >>> outputs = nnx.eval_shape(
    ...   outputs_of_all_conv, jnp.zeros((2, 224, 224, 3))
    ... )
    >>> outputs['conv1'].shape, outputs['conv12'].shape, outputs['logits'].shape
    ((2, 75, 75, 96), (2, 5, 5, 1000), (2, 1000))

  References:
    Springenberg et al., `Striving for Simplicity: The All Convolutional Net
    <https://arxiv.org/abs/1412.6806>`_, 2015, table 6

    Zhang et al., `Bort: Towards Explainable Neural Networks with Bounded
    Orthogonal Constraint <https://arxiv.org/abs/2212.09062>`_, 2023
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    widths: Sequence[int] = (96,) * 3 + (256,) * 3 + (384,) * 3 + (1024,) * 2,
    activation: Activation = 'leaky_relu',
    negative_slope: float = 0.5,
    dropout_rate: float = 0.5,
    logit_scale: bool = False,
    kernel_init: nnx.Initializer | None = None,
    dtype: jax.typing.DTypeLike | None = None,
    param_dtype: jax.typing.DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
  ):
    check_least_side(
      'AllConv12', image_shape, _LEAST_SIDE, 'Resize them, or use SimpleCNN.'
    )
    if len(widths) != 11:
      raise ValueError(f'widths must be eleven numbers, got {tuple(widths)}.')
    self.negative_slope = slope_below_zero(activation, negative_slope)
    init = kernel_init or he_normal_fan_out
    sizes = (image_shape[2], *widths, num_classes)
    self.convs = nnx.List()
    for index, (kernel, stride) in enumerate(
      zip(_KERNELS, _STRIDES, strict=True)
    ):
      self.convs.append(
        nnx.Conv(
          sizes[index],
          sizes[index + 1],
          (kernel, kernel),
          strides=stride,
          padding=_FIRST_PADDING if index == 0 else 0,
          kernel_init=init,
          dtype=dtype,
          param_dtype=param_dtype,
          rngs=rngs,
        )
      )
    self.dropout = nnx.Dropout(dropout_rate, rngs=rngs)
    self.scale = (
      LogitScale(param_dtype=param_dtype, rngs=rngs) if logit_scale else None
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits (N, classes) of pictures (N, H, W, C)."""
    return self.intermediates(x)['logits']

  def intermediates(self, x: jax.Array) -> dict[str, jax.Array]:
    """``conv1``, ``act1``, …, ``conv12``, ``act12``, ``logits``, in order."""
    out = {}
    for i, conv in enumerate(self.convs, 1):
      if i == _DROPOUT_BEFORE:
        x = self.dropout(x)
      out[f'conv{i}'] = conv(x)
      x = out[f'act{i}'] = self.act(out[f'conv{i}'])
    logits = jnp.mean(x, axis=(1, 2))
    out['logits'] = logits if self.scale is None else self.scale(logits)
    return out

  def act(self, x: jax.Array) -> jax.Array:
    """The activation."""
    return nnx.leaky_relu(x, self.negative_slope)
