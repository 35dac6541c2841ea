"""Residual networks for large and small pictures."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.logit_scale import LogitScale
from bort_jax.nn.residual import (
  BasicBlock,
  Bottleneck,
  ConvNorm,
  Layers,
  Shortcut,
)

StemKind: TypeAlias = Literal['imagenet', 'small']

DEPTHS = {
  18: (BasicBlock, (2, 2, 2, 2)),
  34: (BasicBlock, (3, 4, 6, 3)),
  50: (Bottleneck, (3, 4, 6, 3)),
  101: (Bottleneck, (3, 4, 23, 3)),
  152: (Bottleneck, (3, 8, 36, 3)),
}


class Stem(nnx.Module):
  """The first layers: convolution, normalization, ReLU, perhaps a pool.

  Args:
    channels: channels of the pictures.
    width: output channels.
    kind: ``'imagenet'``, 7×7 of stride 2 and a 3×3 maximum of stride 2, or
      ``'small'``, 3×3 of stride 1 and no pool.
    layers: makes the layers.
  """

  def __init__(self, channels: int, width: int, kind: StemKind, layers: Layers):
    kernel, stride = (7, 2) if kind == 'imagenet' else (3, 1)
    first = ConvNorm(channels, width, kernel, stride, layers)
    self.conv, self.norm = first.conv, first.norm
    self.act = layers.activation
    self.pool = layers.pool if kind == 'imagenet' else None

  def __call__(self, x: jax.Array) -> jax.Array:
    """Pictures (N, H, W, channels) to (N, H/4 or H, W/4 or W, width)."""
    x = self.act(self.norm(self.conv(x)))
    return x if self.pool is None else self.pool(x)


class ResidualNetwork(nnx.Module):
  """A stem, stages of residual blocks, the mean over space, a dense head.

  Each stage but the first halves the picture in its first block.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    block: :class:`BasicBlock` or :class:`Bottleneck`.
    widths: each stage's width.
    counts: each stage's number of blocks.
    stem: kind of the stem, see :class:`Stem`.
    shortcut: how shortcuts change shape.
    logit_scale: whether a :class:`bort_jax.nn.LogitScale` scales the logits.
    layers: makes the layers.

  Raises:
    ValueError: if a side of the pictures is shorter than the total stride.
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    block: type[BasicBlock] | type[Bottleneck],
    widths: Sequence[int],
    counts: Sequence[int],
    stem: StemKind,
    shortcut: Shortcut,
    logit_scale: bool,
    layers: Layers,
  ):
    height, width, channels = image_shape
    least = (4 if stem == 'imagenet' else 1) * 2 ** (len(widths) - 1)
    if min(height, width) < least:
      raise ValueError(
        f'{type(self).__name__} with the stem {stem!r} needs pictures of'
        f' {least}×{least} pixels or more, its total stride, got'
        f' {height}×{width}. Resize them, or use a network of smaller stride.'
      )
    self.stem = Stem(channels, widths[0], stem, layers)
    self.stages = nnx.List()
    inputs = widths[0]
    for stage, (size, count) in enumerate(zip(widths, counts, strict=True)):
      blocks = nnx.List()
      for index in range(count):
        stride = 2 if stage > 0 and index == 0 else 1
        blocks.append(block(inputs, size, stride, shortcut, layers))
        inputs = block.expansion * size
      self.stages.append(blocks)
    self.head = layers.linear(inputs, num_classes)
    self.scale = (
      LogitScale(param_dtype=layers.param_dtype, rngs=layers.rngs)
      if logit_scale
      else None
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits (N, classes) of pictures (N, H, W, C)."""
    return self.intermediates(x)['logits']

  def intermediates(self, x: jax.Array) -> dict[str, jax.Array]:
    """``stem``, ``stage1/block1``, …, ``pool`` and ``logits``, in order."""
    out, x = self.features(x)
    out['pool'] = jnp.mean(x, axis=(1, 2))
    logits = self.head(out['pool'])
    out['logits'] = logits if self.scale is None else self.scale(logits)
    return out

  def features(self, x: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
    """The outputs up to the last block by name, and the last one."""
    x = self.stem(x)
    out = {'stem': x}
    for i, blocks in enumerate(self.stages, 1):
      for j, block in enumerate(blocks, 1):
        x = out[f'stage{i}/block{j}'] = block(x)
    return out, x


class ResNet(ResidualNetwork):
  """ResNet-18, 34, 50, 101 or 152, layer for layer as in torchvision.

  Four stages of width 64, 128, 256 and 512; basic blocks up to depth 34,
  bottlenecks with the stride on the 3×3 convolution ("v1.5") from 50 on; 1×1
  convolutions with batch normalization where a shortcut changes shape; padding
  the same on both sides. Weights of torchvision fit, see
  :func:`bort_jax.nn.from_torch`.

  Kernels of convolutions start as He's normal numbers scaled by outputs, the
  head's uniform in ±1/√inputs, biases as zeros. The last normalization of each
  block starts with a scale of zero, so that every block starts as its shortcut
  (Goyal et al. 2017; torchvision's own default is one).

  A new network is in training mode: batch normalization uses the statistics of
  the batch and updates the running ones. ``model.eval()`` uses the running
  ones. Their momentum is 0.9.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    depth: 18, 34, 50, 101 or 152.
    stem: ``'imagenet'`` (7×7 convolution of stride 2, 3×3 maximum of stride 2)
      or ``'small'`` (3×3 convolution of stride 1). By default ``'small'``
      where a side has fewer than 64 pixels.
    zero_init_residual: whether every block starts as its shortcut.
    logit_scale: whether the logits are scaled by a learned number, see
      :class:`bort_jax.nn.LogitScale`.
    kernel_init: initializer of all kernels, e.g.
      ``nnx.initializers.orthogonal()``; by default as above.
    dtype: dtype of the computation; by default that of input and parameters.
      Batch statistics are float32 in any case.
    param_dtype: dtype of the parameters.
    axis_name: mapped axis (``jax.pmap``, ``jax.shard_map``) over which batch
      statistics are averaged. Leave it None under ``jax.jit``, where the
      statistics are those of the whole batch on any number of devices.
    rngs: random keys of the initialization.

  Raises:
    ValueError: if depth or stem is unknown, or a side of the pictures is
      shorter than the total stride: 32, or 8 with the small stem.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.resnet import ResNet
    >>> def outputs_of_resnet18(x):
    ...   model = ResNet((32, 32, 3), 10, depth=18, rngs=nnx.Rngs(0))
    ...   return model.intermediates(x)
    >>> outputs = nnx.eval_shape(outputs_of_resnet18, jnp.zeros((2, 32, 32, 3)))
    >>> outputs['stage4/block2'].shape, outputs['logits'].shape
    ((2, 4, 4, 512), (2, 10))

  References:
    He et al., `Deep Residual Learning for Image Recognition
    <https://arxiv.org/abs/1512.03385>`_, 2016

    Goyal et al., `Accurate, Large Minibatch SGD
    <https://arxiv.org/abs/1706.02677>`_, 2017
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    depth: int = 50,
    stem: StemKind | None = None,
    zero_init_residual: bool = True,
    logit_scale: bool = False,
    kernel_init: nnx.Initializer | None = None,
    dtype: jax.typing.DTypeLike | None = None,
    param_dtype: jax.typing.DTypeLike = jnp.float32,
    axis_name: str | None = None,
    rngs: nnx.Rngs,
  ):
    if depth not in DEPTHS:
      raise ValueError(
        f'depth must be one of {", ".join(map(str, DEPTHS))}, got {depth!r}.'
        ' Depths 6n + 2 for small pictures are CifarResNet.'
      )
    if stem not in (None, 'imagenet', 'small'):
      raise ValueError(
        f"stem must be 'imagenet', 'small' or None, got {stem!r}."
      )
    block, counts = DEPTHS[depth]
    super().__init__(
      image_shape,
      num_classes,
      block=block,
      widths=(64, 128, 256, 512),
      counts=counts,
      stem=stem or ('small' if min(image_shape[:2]) < 64 else 'imagenet'),
      shortcut='projection',
      logit_scale=logit_scale,
      layers=Layers(
        kernel_init=kernel_init,
        zero_init_residual=zero_init_residual,
        dtype=dtype,
        param_dtype=param_dtype,
        axis_name=axis_name,
        rngs=rngs,
      ),
    )
