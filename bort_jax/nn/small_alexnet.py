"""A network in the manner of AlexNet, for small pictures."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.activations import Activation, slope_below_zero
from bort_jax.nn.initializers import he_normal_fan_out
from bort_jax.nn.logit_scale import LogitScale
from bort_jax.nn.sizes import check_least_side

_LEAST_SIDE = 15  # leaves one pixel after the third pooling
_KERNELS = (5, 5, 3, 3, 3)
_POOLED = (1, 2, 5)  # convolutions that are followed by pooling


class SmallAlexNet(nnx.Module):
  """Five convolutions, three overlapping maxima, three dense layers.

  The order of layers is AlexNet's: two 5×5 and three 3×3 convolutions, each
  with an activation, 3×3 maxima of stride 2 after the first, second and fifth,
  then two hidden dense layers with dropout and the head. It is not AlexNet: the
  default widths are a sixth of the published ones and the hidden layers a
  sixteenth, the first kernels are 5×5 without stride, for pictures of 28 or 32
  pixels, and there is no response normalization. No published weights fit.

  Kernels start as He's normal numbers scaled by outputs, biases as zeros. A new
  network is in training mode; ``model.eval()`` turns dropout off.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    widths: output channels of the five convolutions.
    hidden: size of the two hidden dense layers.
    activation: ``'relu'``, as published, or ``'leaky_relu'``.
    negative_slope: slope of the leaky ReLU below zero.
    dropout_rate: share of hidden numbers dropped, in [0, 1].
    logit_scale: whether the logits are scaled by a learned number, see
      :class:`bort_jax.nn.LogitScale`.
    kernel_init: initializer of all kernels, e.g.
      ``nnx.initializers.orthogonal()``; by default as above.
    dtype: dtype of the computation; by default that of input and parameters.
    param_dtype: dtype of the parameters.
    rngs: random keys of the initialization and, stream ``dropout``, of dropout.

  Raises:
    ValueError: if a side of the pictures is shorter than 15 pixels, ``widths``
      is not five numbers, or the activation is unknown.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn import SmallAlexNet
    >>> def outputs_of_alexnet(x):
    ...   model = SmallAlexNet((28, 28, 1), 10, rngs=nnx.Rngs(0))
    ...   return model.intermediates(x)
    >>> outputs = nnx.eval_shape(outputs_of_alexnet, jnp.zeros((2, 28, 28, 1)))
    >>> outputs['pool1'].shape, outputs['pool5'].shape, outputs['logits'].shape
    ((2, 13, 13, 16), (2, 2, 2, 40), (2, 10))

  References:
    Krizhevsky, Sutskever, Hinton, `ImageNet Classification with Deep
    Convolutional Neural Networks <https://doi.org/10.1145/3065386>`_, 2012
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    widths: Sequence[int] = (16, 40, 64, 64, 40),
    hidden: int = 256,
    activation: Activation = 'relu',
    negative_slope: float = 0.5,
    dropout_rate: float = 0.5,
    logit_scale: bool = False,
    kernel_init: nnx.Initializer | None = None,
    dtype: jax.typing.DTypeLike | None = None,
    param_dtype: jax.typing.DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
  ):
    check_least_side(
      'SmallAlexNet', image_shape, _LEAST_SIDE, 'Resize them, or use SimpleCNN.'
    )
    *sides, channels = image_shape
    if len(widths) != 5:
      raise ValueError(f'widths must be five numbers, got {tuple(widths)}.')
    self.negative_slope = slope_below_zero(activation, negative_slope)
    init = kernel_init or he_normal_fan_out
    types = {'dtype': dtype, 'param_dtype': param_dtype, 'kernel_init': init}
    linear = partial(nnx.Linear, rngs=rngs, **types)
    inputs = (channels, *widths[:-1])
    self.convs = nnx.List(
      nnx.Conv(before, after, (side, side), rngs=rngs, **types)
      for before, after, side in zip(inputs, widths, _KERNELS, strict=True)
    )
    for _ in _POOLED:
      sides = [(side - 3) // 2 + 1 for side in sides]
    self.fc1 = linear(sides[0] * sides[1] * widths[-1], hidden)
    self.fc2 = linear(hidden, hidden)
    self.head = linear(hidden, num_classes)
    self.dropout = nnx.Dropout(dropout_rate, rngs=rngs)
    self.scale = (
      LogitScale(param_dtype=param_dtype, rngs=rngs) if logit_scale else None
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits (N, classes) of pictures (N, H, W, C)."""
    return self.intermediates(x)['logits']

  def intermediates(self, x: jax.Array) -> dict[str, jax.Array]:
    """Every layer's output by its name, in order.

    ``conv1``, ``act1``, ``pool1``, …, ``pool5``, ``fc1``, ``act_fc1``, ``fc2``,
    ``act_fc2``, ``logits``.
    """
    out = {}
    for i, conv in enumerate(self.convs, 1):
      out[f'conv{i}'] = conv(x)
      x = out[f'act{i}'] = self.act(out[f'conv{i}'])
      if i in _POOLED:
        x = out[f'pool{i}'] = nnx.max_pool(x, (3, 3), strides=(2, 2))
    out['fc1'] = self.fc1(self.dropout(x.reshape(x.shape[0], -1)))
    out['act_fc1'] = self.act(out['fc1'])
    out['fc2'] = self.fc2(self.dropout(out['act_fc1']))
    out['act_fc2'] = self.act(out['fc2'])
    logits = self.head(out['act_fc2'])
    out['logits'] = logits if self.scale is None else self.scale(logits)
    return out

  def act(self, x: jax.Array) -> jax.Array:
    """The activation."""
    return nnx.leaky_relu(x, self.negative_slope)
