"""The network whose features are an exactly invertible map of the picture."""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.logit_scale import LogitScale

Pooling: TypeAlias = Literal['flatten', 'mean']


class PatchNet(nnx.Module):
  """Convolutions of patches that do not overlap, each an orthogonal matrix.

  Every convolution has a kernel as large as its stride and as many outputs as
  there are numbers in a patch: channels · stride². Its kernel is a square
  matrix, so nothing is lost; where that is orthogonal, as at the start and
  under Bort or :func:`bort_jax.keep_orthogonal`, its transpose is its inverse.
  A leaky ReLU follows each. All features before the head are therefore an
  exactly invertible map of the picture, at every depth and by plain
  transposition: the yardstick of whatever runs networks backwards. Only the
  head, and the mean over space if there is one, lose anything.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    strides: side of each convolution's patches.
    pooling: what the head sees: all features (``'flatten'``) or their mean over
      space (``'mean'``).
    negative_slope: slope of the leaky ReLU below zero, > 0.
    use_bias: whether the convolutions have a bias.
    logit_scale: whether the logits are scaled by a learned number, see
      :class:`bort_jax.nn.LogitScale`; a bounded network needs it.
    kernel_init: initializer of all kernels; the default makes them orthogonal.
    dtype: dtype of the computation; by default that of input and parameters.
    param_dtype: dtype of the parameters.
    rngs: random keys of the initialization.

  Raises:
    ValueError: if a side of the pictures is no multiple of the product of the
      strides, there are no strides or one is < 1, pooling is unknown, or the
      slope is not > 0.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.patch_net import PatchNet
    >>> model = PatchNet((28, 28, 1), 10, rngs=nnx.Rngs(0))
    >>> outputs = model.intermediates(jnp.zeros((2, 28, 28, 1)))
    >>> {name: out.shape[1:] for name, out in outputs.items()}
    {'conv1': (14, 14, 4), 'act1': (14, 14, 4), 'conv2': (7, 7, 16), \
'act2': (7, 7, 16), 'features': (784,), 'logits': (10,)}
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    strides: Sequence[int] = (2, 2),
    pooling: Pooling = 'flatten',
    negative_slope: float = 0.5,
    use_bias: bool = True,
    logit_scale: bool = True,
    kernel_init: nnx.Initializer | None = None,
    dtype: jax.typing.DTypeLike | None = None,
    param_dtype: jax.typing.DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
  ):
    height, width, channels = image_shape
    _check(height, width, strides, pooling, negative_slope)
    self.pooling = pooling
    self.negative_slope = negative_slope
    init = kernel_init or nnx.initializers.orthogonal()
    types = {'dtype': dtype, 'param_dtype': param_dtype, 'kernel_init': init}
    self.convs = nnx.List()
    for stride in strides:
      self.convs.append(
        nnx.Conv(
          channels,
          channels * stride**2,
          (stride, stride),
          strides=stride,
          padding=0,
          use_bias=use_bias,
          rngs=rngs,
          **types,
        )
      )
      channels *= stride**2
    pixels = height * width // math.prod(strides) ** 2
    inputs = channels * pixels if pooling == 'flatten' else channels
    self.head = nnx.Linear(inputs, num_classes, rngs=rngs, **types)
    self.scale = (
      LogitScale(param_dtype=param_dtype, rngs=rngs) if logit_scale else None
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits (N, classes) of pictures (N, H, W, C)."""
    return self.intermediates(x)['logits']

  def intermediates(self, x: jax.Array) -> dict[str, jax.Array]:
    """``conv1``, ``act1``, ``conv2``, …, ``features``, ``logits``, in order."""
    out = {}
    for i, conv in enumerate(self.convs, 1):
      out[f'conv{i}'] = conv(x)
      x = out[f'act{i}'] = self.act(out[f'conv{i}'])
    out['features'] = (
      x.reshape(x.shape[0], -1)
      if self.pooling == 'flatten'
      else jnp.mean(x, axis=(1, 2))
    )
    logits = self.head(out['features'])
    out['logits'] = logits if self.scale is None else self.scale(logits)
    return out

  def act(self, x: jax.Array) -> jax.Array:
    """The activation."""
    return nnx.leaky_relu(x, self.negative_slope)


def _check(
  height: int,
  width: int,
  strides: Sequence[int],
  pooling: str,
  negative_slope: float,
) -> None:
  if not strides or min(strides) < 1:
    raise ValueError(
      f'strides must be one or more numbers ≥ 1, got {tuple(strides)}.'
    )
  product = math.prod(strides)
  if height % product or width % product:
    raise ValueError(
      f'PatchNet cuts pictures into patches of {product}×{product} pixels, the'
      f' product of strides {tuple(strides)}, and loses none; got'
      f' {height}×{width}. Pad or resize the pictures, or change strides.'
    )
  if pooling not in ('flatten', 'mean'):
    raise ValueError(f"pooling must be 'flatten' or 'mean', got {pooling!r}.")
  if not negative_slope > 0:
    raise ValueError(
      f'negative_slope must be > 0 to be invertible, got {negative_slope!r}.'
    )
