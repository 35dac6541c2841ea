"""VGG16, plain or in the form that runs backwards."""

from collections.abc import Sequence
from functools import partial
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bort_jax.nn.activations import Activation, slope_below_zero
from bort_jax.nn.initializers import he_normal_fan_out
from bort_jax.nn.logit_scale import LogitScale
from bort_jax.nn.sizes import check_least_side

Pooling: TypeAlias = Literal['conv', 'max']

WIDTHS = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
_GRID = 7  # side of what the classifier sees
_HIDDEN = 4096


class VGG16(nnx.Module):
  """Thirteen 3×3 convolutions in five stages, then three dense layers.

  In the form published for Bort, the default, each stage ends in a 2×2
  convolution of stride 2 with as many outputs as inputs in the place of the
  maximum, and the activation is a leaky ReLU of slope 0.5, so that every
  layer before the classifier has a plain backward rule.
  ``pooling='max', activation='relu'`` is torchvision's VGG16, weights of which
  fit, see :func:`bort_jax.nn.from_torch`.

  Every convolution has a bias. The classifier sees the last features averaged
  to 7×7, flattened by row, column and channel, and drops half of its hidden
  numbers out in training. The average is PyTorch's adaptive one: bins of any
  size, repeated where there are fewer than 7 features a side.

  Kernels of convolutions start as He's normal numbers scaled by outputs, those
  of the classifier normal with deviation 0.01, biases as zeros. A new network
  is in training mode; ``model.eval()`` turns dropout off and makes batch
  normalization use its running statistics, of momentum 0.9.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    pooling: what ends a stage: ``'conv'`` or ``'max'``.
    activation: ``'leaky_relu'`` (invertible) or ``'relu'``.
    negative_slope: slope of the leaky ReLU below zero, 0.5 as published.
    batch_norm: whether each 3×3 convolution is followed by batch normalization.
    dropout_rate: share of hidden numbers of the classifier dropped, in [0, 1].
    logit_scale: whether the logits are scaled by a learned number, see
      :class:`bort_jax.nn.LogitScale`.
    kernel_init: initializer of all kernels, e.g.
      ``nnx.initializers.orthogonal()``; by default as above.
    dtype: dtype of the computation; by default that of input and parameters.
    param_dtype: dtype of the parameters.
    axis_name: mapped axis over which batch statistics are averaged, as in
      :class:`bort_jax.nn.ResNet`.
    rngs: random keys of the initialization and, stream ``dropout``, of dropout.

  Raises:
    ValueError: if a side of the pictures is shorter than 32 pixels, or pooling
      or activation is unknown.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.vgg import VGG16
    >>> def outputs_of_vgg16(x):
    ...   model = VGG16((224, 224, 3), 1000, rngs=nnx.Rngs(0))
    ...   return model.intermediates(x)
    >>> outputs = nnx.eval_shape(outputs_of_vgg16, jnp.zeros((2, 224, 224, 3)))
    >>> outputs['down5'].shape, outputs['logits'].shape
    ((2, 7, 7, 512), (2, 1000))

  References:
    Simonyan, Zisserman, `Very Deep Convolutional Networks for Large-Scale Image
    Recognition <https://arxiv.org/abs/1409.1556>`_, 2015, configuration D

    Zhang et al., `Bort: Towards Explainable Neural Networks with Bounded
    Orthogonal Constraint <https://arxiv.org/abs/2212.09062>`_, 2023
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    pooling: Pooling = 'conv',
    activation: Activation = 'leaky_relu',
    negative_slope: float = 0.5,
    batch_norm: bool = False,
    dropout_rate: float = 0.5,
    logit_scale: bool = False,
    kernel_init: nnx.Initializer | None = None,
    dtype: jax.typing.DTypeLike | None = None,
    param_dtype: jax.typing.DTypeLike = jnp.float32,
    axis_name: str | None = None,
    rngs: nnx.Rngs,
  ):
    check_least_side('VGG16', image_shape, 2 ** len(WIDTHS))
    if pooling not in ('conv', 'max'):
      raise ValueError(f"pooling must be 'conv' or 'max', got {pooling!r}.")
    self.pooling = pooling
    self.negative_slope = slope_below_zero(activation, negative_slope)
    types = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
    conv = partial(
      nnx.Conv,
      kernel_init=kernel_init or he_normal_fan_out,
      **types,
    )
    norm = partial(
      nnx.BatchNorm, momentum=0.9, epsilon=1e-5, axis_name=axis_name, **types
    )
    linear = partial(
      nnx.Linear,
      kernel_init=kernel_init or nnx.initializers.normal(0.01),
      **types,
    )
    self.stages = nnx.List()
    self.downs = nnx.List()
    inputs = image_shape[2]
    for widths in WIDTHS:
      stage = nnx.List()
      for width in widths:
        stage.append(
          _Layer(
            conv(inputs, width, (3, 3), padding=1),
            norm(width) if batch_norm else None,
          )
        )
        inputs = width
      self.stages.append(stage)
      if pooling == 'conv':
        self.downs.append(conv(inputs, inputs, (2, 2), strides=2, padding=0))
    self.dropout = nnx.Dropout(dropout_rate, rngs=rngs)
    self.fc1 = linear(_GRID * _GRID * inputs, _HIDDEN)
    self.fc2 = linear(_HIDDEN, _HIDDEN)
    self.head = linear(_HIDDEN, num_classes)
    self.scale = (
      LogitScale(param_dtype=param_dtype, rngs=rngs) if logit_scale else None
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits (N, classes) of pictures (N, H, W, C)."""
    return self.intermediates(x)['logits']

  def intermediates(self, x: jax.Array) -> dict[str, jax.Array]:
    """Every layer's output by its name, in order.

    ``conv1_1``, ``norm1_1`` (with batch normalization), ``act1_1``, …,
    ``down1``, …, ``down5``, ``pool``, ``fc1``, ``act_fc1``, ``fc2``,
    ``act_fc2``, ``logits``.
    """
    out = {}
    for i, stage in enumerate(self.stages, 1):
      for j, layer in enumerate(stage, 1):
        x = out[f'conv{i}_{j}'] = layer.conv(x)
        if layer.norm is not None:
          x = out[f'norm{i}_{j}'] = layer.norm(x)
        x = out[f'act{i}_{j}'] = self.act(x)
      x = out[f'down{i}'] = self.down(i - 1, x)
    out['pool'] = adaptive_average_pool(x, _GRID)
    out['fc1'] = self.fc1(out['pool'].reshape(x.shape[0], -1))
    out['act_fc1'] = self.act(out['fc1'])
    out['fc2'] = self.fc2(self.dropout(out['act_fc1']))
    out['act_fc2'] = self.act(out['fc2'])
    logits = self.head(self.dropout(out['act_fc2']))
    out['logits'] = logits if self.scale is None else self.scale(logits)
    return out

  def act(self, x: jax.Array) -> jax.Array:
    """The activation."""
    return nnx.leaky_relu(x, self.negative_slope)

  def down(self, stage: int, x: jax.Array) -> jax.Array:
    """The end of a stage: (N, H, W, C) to (N, H/2, W/2, C), rounded down."""
    if self.pooling == 'conv':
      return self.downs[stage](x)
    return nnx.max_pool(x, (2, 2), strides=(2, 2))


class _Layer(nnx.Module):
  """A convolution and, if it has one, its batch normalization."""

  def __init__(self, conv: nnx.Conv, norm: nnx.BatchNorm | None):
    self.conv = conv
    self.norm = norm


def adaptive_average_pool(x: jax.Array, side: int) -> jax.Array:
  """Averages pictures to ``side`` × ``side``, as PyTorch's adaptive pool does.

  Output i is the mean of inputs ⌊i·n/side⌋ to ⌈(i + 1)·n/side⌉ − 1, along each
  of the two axes. Bins overlap where n is no multiple of side.

  Args:
    x: pictures (N, H, W, C).
    side: side of the output, ≥ 1.

  Returns:
    Pictures (N, side, side, C) of the same dtype.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.nn.vgg import adaptive_average_pool
    >>> x = jnp.arange(5.0).reshape(1, 5, 1, 1)
    >>> adaptive_average_pool(x, 2)[0, :, 0, 0].tolist()
    [1.0, 3.0]
  """
  height, width = x.shape[1:3]
  if height == width == side:
    return x
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  pooled = jnp.einsum(
    'ih,nhwc,jw->nijc',
    _bins(height, side).astype(dtype),
    x.astype(dtype),
    _bins(width, side).astype(dtype),
    precision=jax.lax.Precision.HIGHEST,
  )
  return pooled.astype(x.dtype)


def _bins(size: int, side: int) -> np.ndarray:
  """The matrix (side, size) that averages each bin."""
  index = np.arange(side)[:, None]
  first = index * size // side
  last = -((index + 1) * size // -side)
  pixels = np.arange(size)[None]
  inside = (first <= pixels) & (pixels < last)
  return inside / (last - first)
