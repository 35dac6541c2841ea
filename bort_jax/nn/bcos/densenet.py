"""B-cos DenseNets."""

from collections.abc import Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.bcos.layers import BcosLayers, BcosSettings, Ends, make_layers
from bort_jax.nn.resnet import Stem, StemKind


class DenseLayer(nnx.Module):
  """A norm and a 1×1, then a norm and a 3×3 convolution.

  Args:
    inputs: input channels.
    growth: output channels.
    layers: makes the layers.
  """

  def __init__(self, inputs: int, growth: int, layers: BcosLayers):
    self.norm1 = layers.norm(inputs)
    self.conv1 = layers.conv(inputs, 4 * growth, 1)
    self.norm2 = layers.norm(4 * growth)
    self.conv2 = layers.conv(4 * growth, growth, 3)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Pictures (N, H, W, inputs) to (N, H, W, inputs + growth): x and new."""
    y = self.conv1(self.norm1(x))
    return jnp.concatenate([x, self.conv2(self.norm2(y))], axis=-1)


class Transition(nnx.Module):
  """A norm, a 1×1 convolution to half the channels, and a 2×2 mean.

  Args:
    inputs: input channels.
    layers: makes the layers.
  """

  def __init__(self, inputs: int, layers: BcosLayers):
    self.norm = layers.norm(inputs)
    self.conv = layers.conv(inputs, inputs // 2, 1)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Pictures (N, H, W, inputs) to (N, H/2, W/2, inputs/2)."""
    return nnx.avg_pool(self.conv(self.norm(x)), (2, 2), strides=(2, 2))


class BcosDenseNet(nnx.Module):
  """B-cos DenseNet-121: every layer sees what all before it in its block made.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    counts: each block's number of layers.
    growth: channels that a layer adds.
    width: channels of the stem.
    stem: ``'imagenet'`` (7×7 of stride 2, norm, a 3×3 mean of stride 2) or
      ``'small'`` (3×3 of stride 1 and norm); by default ``'small'`` where a
      side has fewer than 64 pixels.
    rngs: random keys of the initialization.
    **settings: see :class:`BcosSettings`; uncentred batch norm without bias by
      default.

  Raises:
    ValueError: if a side of the pictures is shorter than the total stride, or
      a setting is not valid.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.bcos import BcosDenseNet
    >>> def outputs_of_densenet(x):
    ...   model = BcosDenseNet((64, 64, 3), 10, rngs=nnx.Rngs(0))
    ...   return model.intermediates(x)
    >>> outputs = nnx.eval_shape(outputs_of_densenet, jnp.zeros((2, 64, 64, 3)))
    >>> outputs['block4'].shape
    (2, 2, 2, 1024)
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    counts: Sequence[int] = (6, 12, 24, 16),
    growth: int = 32,
    width: int = 64,
    stem: StemKind | None = None,
    rngs: nnx.Rngs,
    **settings: Unpack[BcosSettings],
  ):
    kind = stem or ('small' if min(image_shape[:2]) < 64 else 'imagenet')
    least = (4 if kind == 'imagenet' else 1) * 2 ** (len(counts) - 1)
    if min(image_shape[:2]) < least:
      raise ValueError(
        f'DenseNet with the stem {kind!r} needs pictures of {least}×{least}'
        f' pixels or more, got {image_shape[0]}×{image_shape[1]}.'
      )
    self.ends = Ends(image_shape, num_classes, settings)
    layers = make_layers(
      settings, rngs, default_init=nnx.initializers.he_normal()
    )
    self.stem = Stem(self.ends.channels, width, kind, layers)
    self.blocks, self.transitions = nnx.List(), nnx.List()
    for block, count in enumerate(counts):
      if block > 0:
        self.transitions.append(Transition(width, layers))
        width //= 2
      self.blocks.append(
        nnx.List(
          DenseLayer(width + i * growth, growth, layers) for i in range(count)
        )
      )
      width += count * growth
    self.norm = layers.norm(width)
    self.head = layers.linear(width, num_classes)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits (N, classes) of pictures (N, H, W, C)."""
    return self.intermediates(x)['logits']

  def intermediates(self, x: jax.Array) -> dict[str, jax.Array]:
    """``stem``, ``block1``, ``down1``, …, ``norm``, ``head`` to ``logits``."""
    out = {'stem': self.stem(self.ends.encode(x))}
    x = out['stem']
    for i, block in enumerate(self.blocks, 1):
      if i > 1:
        x = out[f'down{i - 1}'] = self.transitions[i - 2](x)
      for layer in block:
        x = layer(x)
      out[f'block{i}'] = x
    out['norm'] = self.norm(x)
    out['head'] = self.head(out['norm'])
    out['pool'] = jnp.mean(out['head'], axis=(1, 2))
    out['logits'] = self.ends.finish(out['pool'])
    return out
