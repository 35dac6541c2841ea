"""B-cos vision transformers: simple ViT, with patches or convolutions first."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bort_jax.nn.bcos.attention import BcosAttention
from bort_jax.nn.bcos.layers import (
  BcosLayers,
  BcosSettings,
  Ends,
  identity,
  make_layers,
)
from bort_jax.nn.residual import ConvNorm, uniform_fan_in
from bort_jax.nn.vit import Block, stochastic_depth


class BcosViT(nnx.Module):
  """A transformer over patches, with fixed positions and the mean of tokens.

  Patches go through a B-cos layer; sines and cosines of their place are added;
  blocks of attention (see :class:`BcosAttention`) and of two B-cos layers
  follow, each behind a LayerNorm without bias; then the mean, a norm and the
  head. With ``conv_widths``, 3×3 convolutions with norms come first (ViT-C):
  of stride 2 where channels increase.

  The added positions do not come from the picture: they are the ``constant``
  part of an explanation, and after initialization nearly all of it.

  Args:
    image_shape: (height, width, channels) of the pictures. Others of sides
      that patches divide may be given in use.
    num_classes: number of classes.
    patch_size: side of a patch, in pixels of what the convolutions give.
    width: features of a token, a multiple of 4 and of ``num_heads``.
    depth: number of blocks.
    num_heads: number of attention heads.
    mlp_ratio: features inside an MLP, in units of ``width``.
    conv_widths: output channels of the convolutions; none by default.
    rngs: random keys of the initialization.
    **settings: see :class:`BcosSettings`; ``norm`` is of the tokens.

  Raises:
    ValueError: if patches do not divide the pictures, ``width`` is no such
      multiple, or a setting is not valid.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.bcos import BcosViT
    >>> model = BcosViT(
    ...   (16, 16, 3), 10, patch_size=4, width=32, depth=2, rngs=nnx.Rngs(0)
    ... )
    >>> model(jnp.zeros((2, 16, 16, 3))).shape
    (2, 10)

  References:
    Beyer, Zhai, Kolesnikov, `Better plain ViT baselines for ImageNet-1k
    <https://arxiv.org/abs/2205.01580>`_, 2022

    Xiao et al., `Early Convolutions Help Transformers See Better
    <https://arxiv.org/abs/2106.14881>`_, 2021
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    patch_size: int = 16,
    width: int = 384,
    depth: int = 12,
    num_heads: int | None = None,
    mlp_ratio: float = 4.0,
    conv_widths: Sequence[int] = (),
    rngs: nnx.Rngs,
    **settings: Unpack[BcosSettings],
  ):
    if width % 4 or width < 8:
      raise ValueError(f'width must be a multiple of 4 from 8 on, got {width}.')
    self.ends = Ends(image_shape, num_classes, settings)
    layers = make_layers(
      settings,
      rngs,
      norm='position',
      norm_centered=True,
      default_init=uniform_fan_in,
    )
    self.patch_size = patch_size
    self.stem = nnx.List()
    inputs = self.ends.channels
    for outputs in conv_widths:
      stride = 2 if outputs > inputs else 1
      self.stem.append(_StemLayer(inputs, outputs, stride, layers))
      inputs = outputs
    strides = [layer.conv.strides[0] for layer in self.stem]
    self.total_stride = patch_size * math.prod(strides)
    self._check_size(image_shape)
    self.patch_embed = layers.dense(patch_size**2 * inputs, width)
    plain = partial(
      nnx.Linear,
      use_bias=False,
      kernel_init=layers.kernel_init or uniform_fan_in,
      dtype=layers.dtype,
      param_dtype=layers.param_dtype,
      rngs=rngs,
    )
    heads = num_heads or max(width // 64, 1)
    self.blocks = nnx.List(
      Block(
        width,
        int(mlp_ratio * width),
        BcosAttention(width, heads, plain, layers.dense),
        layers.norm,
        layers.dense,
        stochastic_depth(0.0, 3, rngs),
        identity,
      )
      for _ in range(depth)
    )
    self.norm = layers.norm(width)
    self.head = layers.dense(width, num_classes)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits (N, classes) of pictures (N, H, W, C)."""
    return self.intermediates(x)['logits']

  def intermediates(self, x: jax.Array) -> dict[str, jax.Array]:
    """``stem`` (with convolutions), ``embed``, ``block1``, …, to ``logits``."""
    self._check_size(x.shape[1:])
    x = self.ends.encode(x)
    out: dict[str, Any] = {}
    for layer in self.stem:
      x = out['stem'] = layer(x)
    x = out['embed'] = self.embed(x)
    for number, block in enumerate(self.blocks, 1):
      x = out[f'block{number}'] = block(x)
    out['pool'] = jnp.mean(x, axis=1)
    out['norm'] = self.norm(out['pool'])
    out['head'] = self.head(out['norm'])
    out['logits'] = self.ends.finish(out['head'])
    return out

  def embed(self, x: jax.Array) -> jax.Array:
    """Pictures (N, H, W, C) to tokens (N, T, width), row by row."""
    count, height, breadth, channels = x.shape
    side = self.patch_size
    rows, columns = height // side, breadth // side
    x = x.reshape(count, rows, side, columns, side, channels)
    x = x.swapaxes(2, 3).reshape(count, rows * columns, -1)
    tokens = self.patch_embed(x)
    position = positions(rows, columns, tokens.shape[-1])
    return tokens + jnp.broadcast_to(
      position.astype(tokens.dtype), tokens.shape
    )

  def _check_size(self, shape: Sequence[int]) -> None:
    if shape[0] % self.total_stride or shape[1] % self.total_stride:
      raise ValueError(
        f'Sides of the pictures must be multiples of {self.total_stride},'
        f' got {shape[0]}×{shape[1]}. Resize them.'
      )


class _StemLayer(ConvNorm):
  """A convolution and a norm over the whole picture."""

  def __init__(
    self, inputs: int, outputs: int, stride: int, layers: BcosLayers
  ):
    self.conv = layers.conv(inputs, outputs, 3, stride)
    self.norm = layers.norm(outputs, kind='layer')


def positions(rows: int, columns: int, width: int) -> np.ndarray:
  """Sines and cosines of places: (rows·columns, width).

  Args:
    rows: rows of patches.
    columns: columns of patches.
    width: features, a multiple of 4: a quarter each for sine and cosine of the
      column, then of the row, with wavelengths from 2π to 2π·10,000.

  Returns:
    The embedding, float64.

  Examples:
    >>> from bort_jax.nn.bcos.vit import positions
    >>> positions(1, 2, 8).round(2)[0].tolist()
    [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
  """
  quarter = width // 4
  frequency = 10_000.0 ** (-np.arange(quarter) / (quarter - 1))
  y, x = np.divmod(np.arange(rows * columns), columns)
  angles = [place[:, None] * frequency for place in (x, y)]
  parts = [f(angle) for angle in angles for f in (np.sin, np.cos)]
  return np.concatenate(parts, axis=1)
