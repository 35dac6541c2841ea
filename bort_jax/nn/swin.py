"""Swin transformers: attention within windows, shifted in every other block."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bort_jax.nn.logit_scale import LogitScale
from bort_jax.nn.transformer import (
  Attention,
  Block,
  Layer,
  check_probability,
  stochastic_depth,
  truncated_normal,
)


def relative_position_index(window: Sequence[int]) -> np.ndarray:
  """The row of the bias table for each pair of a window's T tokens.

  Args:
    window: (height, width) of the window; T = height·width, row by row.

  Returns:
    (T, T) int: (Δrow + height − 1)·(2·width − 1) + Δcolumn + width − 1, with Δ
    the query's position less the key's.
  """
  height, width = window
  row, column = np.divmod(np.arange(height * width), width)
  rows = row[:, None] - row[None, :] + height - 1
  columns = column[:, None] - column[None, :] + width - 1
  return rows * (2 * width - 1) + columns


def shift_mask(
  size: Sequence[int], window: Sequence[int], shift: Sequence[int]
) -> np.ndarray:
  """Which tokens of each window of a rolled map may look at one another.

  Args:
    size: (height, width) of the map.
    window: (height, width) of a window of T tokens.
    shift: by how much the map was rolled up and left.

  Returns:
    (windows, T, T) bool: False between a token that was rolled over an edge and
    one that was not, since they were no neighbours before.
  """
  wraps = [np.arange(n) >= n - s for n, s in zip(size, shift, strict=True)]
  region = 2 * wraps[0][:, None] + wraps[1][None, :]
  regions = _split(region[None, :, :, None], window)
  return regions == regions.transpose(0, 2, 1)


class WindowAttention(Attention):
  """Self-attention within windows, with a bias for each relative position.

  Args:
    width: features of a token, divisible by ``num_heads``.
    num_heads: number of heads.
    window: (height, width) of a window.
    shift: by how much the windows are shifted, down and right.
    dense: makes a dense layer of given input and output features.
    table: makes a parameter of given shape.
  """

  def __init__(
    self,
    width: int,
    num_heads: int,
    window: tuple[int, ...],
    shift: tuple[int, ...],
    dense: Layer,
    table: Layer,
  ):
    super().__init__(width, num_heads, dense)
    self.window, self.shift = window, shift
    offsets = (2 * window[0] - 1) * (2 * window[1] - 1)
    self.relative_position_bias_table = table(offsets, num_heads)

  def __call__(self, x: jax.Array) -> jax.Array:
    """A map (N, H, W, width) to the same."""
    table = self.relative_position_bias_table[...]
    bias = table[relative_position_index(self.window)].transpose(2, 0, 1)[None]
    if not any(self.shift):
      windows = super().__call__(_split(x, self.window), bias)
      return _join(windows, x.shape, self.window)
    mask = jnp.asarray(shift_mask(x.shape[1:3], self.window, self.shift))
    mask = jnp.tile(mask[:, None], (x.shape[0], 1, 1, 1))
    up, left = self.shift
    x = jnp.roll(x, (-up, -left), axis=(1, 2))
    windows = super().__call__(_split(x, self.window), bias, mask)
    return jnp.roll(_join(windows, x.shape, self.window), self.shift, (1, 2))


class PatchMerging(nnx.Module):
  """Joins 2×2 tokens into one of twice the width: LayerNorm, dense.

  Args:
    width: features of a token before.
    norm: makes a LayerNorm of given features.
    dense: makes a dense layer of given input and output features.
  """

  def __init__(self, width: int, norm: Layer, dense: Layer):
    self.norm = norm(4 * width)
    self.reduction = dense(4 * width, 2 * width, use_bias=False)

  def __call__(self, x: jax.Array) -> jax.Array:
    """(N, H, W, width) to (N, H/2, W/2, 2·width)."""
    count, rows, columns, width = x.shape
    x = x.reshape(count, rows // 2, 2, columns // 2, 2, width)
    x = x.transpose(0, 1, 3, 4, 2, 5)  # as published: the row changes first
    x = x.reshape(count, rows // 2, columns // 2, 4 * width)
    return self.reduction(self.norm(x))


class Swin(nnx.Module):
  """The Swin transformer.

  A convolution whose stride is its kernel cuts the picture into patches, which
  a LayerNorm follows. In each stage blocks attend within windows, every second
  block in windows shifted by half their side, with a learned bias for each
  relative position; between two stages 2×2 tokens are merged and the width
  doubles. A final LayerNorm (all ε = 1e-5), the mean over space and a dense
  head end it. The default is Swin-T; Swin-S has ``depths`` (2, 2, 18, 2). A
  module starts in training mode, as is Flax's way; it is random there only if
  ``drop_path`` > 0.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    patch_size: side of a patch.
    width: features of a token in the first stage.
    depths: number of blocks in each stage.
    num_heads: number of attention heads in each stage, divisors of its width.
    window_size: side of a window. Along an axis where the map is no larger, the
      window is the map, and nothing is shifted; elsewhere it must divide it.
    mlp_ratio: features inside an MLP, in units of its stage's width.
    drop_path: probability, in [0, 1), that the last block's residual branches
      are dropped for an example in training; it rises linearly from 0 at the
      first block. Published: 0.2 for Swin-T, 0.3 for Swin-S.
    logit_scale: whether the logits are scaled by a learned number, see
      :class:`bort_jax.nn.LogitScale`.
    kernel_init: initializer of all kernels; by default, and always for the
      tables of position biases, a truncated normal of standard deviation 0.02.
      Biases start at zero.
    dtype: dtype of the computation; by default that of input and parameters.
      The statistics of LayerNorm and softmax are float32 in any case.
    param_dtype: dtype of the parameters.
    rngs: random keys of the initialization; stochastic depth draws from its
      stream ``dropout``.

  Raises:
    ValueError: if a stage's map does not come out even or its window does not
      fit, if ``num_heads`` does not fit, or ``drop_path`` is outside [0, 1).

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn import Swin
    >>> rngs = nnx.Rngs(0)
    >>> model = Swin((28, 28, 3), 10, depths=(2,), num_heads=(3,), rngs=rngs)
    >>> list(model.intermediates(jnp.zeros((2, 28, 28, 3))))
    ['embed', 'stage1/block1', 'stage1/block2', 'norm', 'pool', 'logits']

  References:
    Liu et al., `Swin Transformer: Hierarchical Vision Transformer using Shifted
    Windows <https://arxiv.org/abs/2103.14030>`_, 2021
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    patch_size: int = 4,
    width: int = 96,
    depths: Sequence[int] = (2, 2, 6, 2),
    num_heads: Sequence[int] = (3, 6, 12, 24),
    window_size: int = 7,
    mlp_ratio: float = 4.0,
    drop_path: float = 0.0,
    logit_scale: bool = False,
    kernel_init: nnx.Initializer | None = None,
    dtype: jax.typing.DTypeLike | None = None,
    param_dtype: jax.typing.DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
  ):
    if len(depths) != len(num_heads):
      raise ValueError(
        'depths and num_heads have one number for each stage, got'
        f' {tuple(depths)} and {tuple(num_heads)}.'
      )
    check_probability(drop_path)
    sizes = _stage_sizes(image_shape, patch_size, len(depths))
    _check_windows(sizes, window_size)
    init = truncated_normal()
    types: Any = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
    dense_types = {'kernel_init': kernel_init or init, **types}
    norm = partial(nnx.LayerNorm, epsilon=1e-5, **types)
    dense = partial(nnx.Linear, **dense_types)
    table = lambda *shape: nnx.Param(init(rngs.params(), shape, param_dtype))
    rates = iter(np.linspace(0.0, drop_path, sum(depths)).tolist())

    def block(size, width, num_heads, shifted):
      window = tuple(min(side, window_size) for side in size)
      half = window_size // 2 if shifted else 0
      shift = tuple(half * (side > window_size) for side in size)
      attention = WindowAttention(width, num_heads, window, shift, dense, table)
      drop = stochastic_depth(next(rates), 4, rngs)
      return Block(width, int(mlp_ratio * width), attention, norm, dense, drop)

    widths = [width * 2**stage for stage in range(len(depths))]
    patch = (patch_size, patch_size)
    self.patch_embed = nnx.Conv(
      image_shape[2], width, patch, strides=patch, padding=0, **dense_types
    )
    self.embed_norm = norm(width)
    self.stages = nnx.List(
      nnx.List(block(*stage, shifted=i % 2 == 1) for i in range(depth))
      for depth, *stage in zip(depths, sizes, widths, num_heads, strict=True)
    )
    self.merges = nnx.List(PatchMerging(w, norm, dense) for w in widths[:-1])
    self.norm = norm(widths[-1])
    self.head = dense(widths[-1], num_classes)
    self.scale = (
      LogitScale(param_dtype=param_dtype, rngs=rngs) if logit_scale else None
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits (N, classes) of pictures (N, H, W, C)."""
    return self.intermediates(x)['logits']

  def intermediates(self, x: jax.Array) -> dict[str, jax.Array]:
    """What stands after each step, by its name.

    Maps (N, H, W, width): ``embed``, ``stage1/block1`` and so on, each later
    stage beginning with its ``stage2/merge``, and ``norm``. Then ``pool`` (N,
    width) and ``logits`` (N, classes).
    """
    x = self.embed_norm(self.patch_embed(x))
    out = {'embed': x}
    for stage, blocks in enumerate(self.stages, 1):
      if stage > 1:
        x = out[f'stage{stage}/merge'] = self.merges[stage - 2](x)
      for number, block in enumerate(blocks, 1):
        x = out[f'stage{stage}/block{number}'] = block(x)
    out['norm'] = self.norm(x)
    out['pool'] = jnp.mean(out['norm'], axis=(1, 2))
    logits = self.head(out['pool'])
    out['logits'] = logits if self.scale is None else self.scale(logits)
    return out


def _split(x, window):
  """Maps (N, H, W, C) to windows (N·windows, T, C), row by row."""
  (height, width), (_, rows, columns, channels) = window, x.shape
  x = x.reshape(-1, rows // height, height, columns // width, width, channels)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, height * width, channels)


def _join(x, shape, window):
  """The inverse of ``_split``, to maps of the given shape."""
  (height, width), (_, rows, columns, channels) = window, shape
  x = x.reshape(-1, rows // height, columns // width, height, width, channels)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(shape)


def _stage_sizes(image_shape, patch_size, stages):
  """(height, width) of each stage's map."""
  total = patch_size * 2 ** (stages - 1)
  height, width, _ = image_shape
  if height % total or width % total:
    raise ValueError(
      f'{stages} stages with patch_size={patch_size} need pictures whose sides'
      f' are multiples of {total}, got {height}×{width}. Resize or pad the'
      ' pictures, or choose a smaller patch_size or fewer stages.'
    )
  strides = [patch_size * 2**stage for stage in range(stages)]
  return [(height // stride, width // stride) for stride in strides]


def _check_windows(sizes, window_size):
  sides = {side for size in sizes for side in size}
  fits = lambda window: all(n <= window or n % window == 0 for n in sides)
  if window_size < 1 or not fits(window_size):
    fitting = [n for n in range(1, max(sides) + 1) if fits(n)]
    raise ValueError(
      'window_size must divide the maps of'
      f' {", ".join(f"{h}×{w}" for h, w in sizes)} that are larger than it, got'
      f' {window_size}; it may be {", ".join(map(str, fitting))}.'
    )
