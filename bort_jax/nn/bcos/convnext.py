"""B-cos ConvNeXt."""

from collections.abc import Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bort_jax.nn.bcos.layers import BcosLayers, BcosSettings, Ends, make_layers
from bort_jax.nn.vit import (
  check_probability,
  stochastic_depth,
  truncated_normal,
)


class ConvNeXtBlock(nnx.Module):
  """A 7×7 convolution of each channel, a norm, and 1×1 to 4·width and back.

  Args:
    width: channels.
    layer_scale: what the factor of each channel starts as.
    drop_path: what drops the branch.
    layers: makes the layers.
  """

  def __init__(
    self,
    width: int,
    layer_scale: float,
    drop_path: nnx.Dropout,
    layers: BcosLayers,
  ):
    self.conv = layers.conv(width, width, 7, groups=width)
    self.norm = layers.norm(width)
    self.fc1 = layers.linear(width, 4 * width)
    self.fc2 = layers.linear(4 * width, width)
    self.layer_scale = nnx.Param(
      jnp.full((width,), layer_scale, layers.param_dtype)
    )
    self.drop_path = drop_path

  def __call__(self, x: jax.Array) -> jax.Array:
    """Pictures (N, H, W, width) to the same."""
    y = self.fc2(self.fc1(self.norm(self.conv(x))))
    factor = jnp.broadcast_to(self.layer_scale[...].astype(y.dtype), y.shape)
    return x + self.drop_path(factor * y)


class BcosConvNeXt(nnx.Module):
  """B-cos ConvNeXt; the tiny one unless told otherwise.

  Patches of 4×4 pixels, four stages of blocks, each halved from the one before
  by a norm and a 2×2 convolution of stride 2; a norm and the head of each
  pixel, and the mean.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    widths: each stage's channels.
    counts: each stage's number of blocks.
    layer_scale: what the factors of the branches start as.
    drop_path: probability, in [0, 1), that the last block's branch is dropped
      for an example in training; it rises linearly from 0 at the first block.
    rngs: random keys of the initialization; ``drop_path`` draws from its stream
      ``dropout``.
    **settings: see :class:`BcosSettings`; centred norms of positions without
      bias by default.

  Raises:
    ValueError: if a side of the pictures is shorter than 32 pixels, or a
      setting is not valid.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.bcos import BcosConvNeXt
    >>> def outputs_of_convnext(x):
    ...   model = BcosConvNeXt((64, 64, 3), 10, rngs=nnx.Rngs(0))
    ...   return model.intermediates(x)
    >>> outputs = nnx.eval_shape(outputs_of_convnext, jnp.zeros((2, 64, 64, 3)))
    >>> outputs['stage4/block3'].shape
    (2, 2, 2, 768)

  References:
    Liu et al., `A ConvNet for the 2020s <https://arxiv.org/abs/2201.03545>`_,
    2022
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    widths: Sequence[int] = (96, 192, 384, 768),
    counts: Sequence[int] = (3, 3, 9, 3),
    layer_scale: float = 1e-6,
    drop_path: float = 0.0,
    rngs: nnx.Rngs,
    **settings: Unpack[BcosSettings],
  ):
    least = 4 * 2 ** (len(widths) - 1)
    if min(image_shape[:2]) < least:
      raise ValueError(
        f'ConvNeXt needs pictures of {least}×{least} pixels or more, got'
        f' {image_shape[0]}×{image_shape[1]}.'
      )
    check_probability(drop_path)
    self.ends = Ends(image_shape, num_classes, settings)
    layers = make_layers(
      settings,
      rngs,
      norm='position',
      norm_centered=True,
      norm_epsilon=1e-6,
      default_init=truncated_normal(),
    )
    rates = iter(np.linspace(0.0, drop_path, sum(counts)).tolist())
    self.patches = layers.conv(self.ends.channels, widths[0], 4, 4, padding=0)
    self.norm = layers.norm(widths[0])
    self.downs, self.stages = nnx.List(), nnx.List()
    for stage, (width, count) in enumerate(zip(widths, counts, strict=True)):
      if stage > 0:
        self.downs.append(Halving(widths[stage - 1], width, layers))
      self.stages.append(
        nnx.List(
          ConvNeXtBlock(
            width, layer_scale, stochastic_depth(next(rates), 4, rngs), layers
          )
          for _ in range(count)
        )
      )
    self.last_norm = layers.norm(widths[-1])
    self.head = layers.linear(widths[-1], num_classes)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits (N, classes) of pictures (N, H, W, C)."""
    return self.intermediates(x)['logits']

  def intermediates(self, x: jax.Array) -> dict[str, jax.Array]:
    """``stem``, ``stage1/block1``, …, ``down1``, …, ``norm`` to ``logits``."""
    out = {'stem': self.norm(self.patches(self.ends.encode(x)))}
    x = out['stem']
    for i, blocks in enumerate(self.stages, 1):
      if i > 1:
        x = out[f'down{i - 1}'] = self.downs[i - 2](x)
      for j, block in enumerate(blocks, 1):
        x = out[f'stage{i}/block{j}'] = block(x)
    out['norm'] = self.last_norm(x)
    out['head'] = self.head(out['norm'])
    out['pool'] = jnp.mean(out['head'], axis=(1, 2))
    out['logits'] = self.ends.finish(out['pool'])
    return out


class Halving(nnx.Module):
  """A norm, and a 2×2 convolution of stride 2.

  Args:
    inputs: input channels.
    outputs: output channels.
    layers: makes the layers.
  """

  def __init__(self, inputs: int, outputs: int, layers: BcosLayers):
    self.norm = layers.norm(inputs)
    self.conv = layers.conv(inputs, outputs, 2, 2, padding=0)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Pictures (N, H, W, inputs) to (N, H/2, W/2, outputs)."""
    return self.conv(self.norm(x))
