"""Vision transformers: ViT and DeiT, in one class."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bort_jax.nn.logit_scale import LogitScale
from bort_jax.nn.transformer import (
  Attention,
  Block,
  check_probability,
  stochastic_depth,
  truncated_normal,
)

Pooling: TypeAlias = Literal['token', 'mean']


class ViT(nnx.Module):
  """The vision transformer in the form of DeiT.

  A convolution whose stride is its kernel cuts the picture into patches; a
  learned position embedding is added to each; pre-norm blocks with exact GELU
  follow, a final LayerNorm (all ε = 1e-6), pooling and a dense head. Ti, S and
  B are the widths 192, 384 and 768 with 3, 6 and 12 heads, each of depth 12. A
  module starts in training mode, as is Flax's way; it is random there only if
  ``drop_path`` > 0.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    patch_size: side of a patch, a divisor of height and width.
    width: features of a token.
    depth: number of blocks.
    num_heads: number of attention heads, a divisor of ``width``.
    mlp_ratio: features inside an MLP, in units of ``width``.
    pooling: ``'token'`` reads a learned class token that goes in beside the
      patches; ``'mean'`` has no such token and averages the patches. Both come
      after the final LayerNorm.
    drop_path: probability, in [0, 1), that the last block's residual branches
      are dropped for an example in training; it rises linearly from 0 at the
      first block.
    remat: whether the backward pass computes each block anew instead of
      keeping its intermediates: less memory where the compiler honours it (a
      GPU, a TPU), up to a third more time, equal numbers.
    logit_scale: whether the logits are scaled by a learned number, see
      :class:`bort_jax.nn.LogitScale`.
    kernel_init: initializer of all kernels; by default, and always for class
      token and position embedding, a truncated normal of standard deviation
      0.02. Biases start at zero.
    dtype: dtype of the computation; by default that of input and parameters.
      The statistics of LayerNorm and softmax are float32 in any case.
    param_dtype: dtype of the parameters.
    rngs: random keys of the initialization; stochastic depth draws from its
      stream ``dropout``.

  Raises:
    ValueError: if ``patch_size`` or ``num_heads`` is no such divisor,
      ``pooling`` is unknown or ``drop_path`` outside [0, 1).

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn import ViT
    >>> model = ViT(
    ...   (32, 32, 3), 10, patch_size=4, width=48, depth=2, rngs=nnx.Rngs(0)
    ... )
    >>> model(jnp.zeros((2, 32, 32, 3))).shape
    (2, 10)
    >>> list(model.intermediates(jnp.zeros((2, 32, 32, 3))))
    ['embed', 'block1', 'block2', 'norm', 'pool', 'logits']

  References:
    Dosovitskiy et al., `An Image is Worth 16x16 Words: Transformers for Image
    Recognition at Scale <https://arxiv.org/abs/2010.11929>`_, 2021

    Touvron et al., `Training data-efficient image transformers & distillation
    through attention <https://arxiv.org/abs/2012.12877>`_, 2021
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    patch_size: int = 16,
    width: int = 384,
    depth: int = 12,
    num_heads: int = 6,
    mlp_ratio: float = 4.0,
    pooling: Pooling = 'token',
    drop_path: float = 0.0,
    remat: bool = False,
    logit_scale: bool = False,
    kernel_init: nnx.Initializer | None = None,
    dtype: jax.typing.DTypeLike | None = None,
    param_dtype: jax.typing.DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
  ):
    _check(image_shape, patch_size, pooling, drop_path)
    *size, channels = image_shape
    init = truncated_normal()
    types: Any = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
    dense_types = {'kernel_init': kernel_init or init, **types}
    norm = partial(nnx.LayerNorm, epsilon=1e-6, **types)
    dense = partial(nnx.Linear, **dense_types)
    draw = lambda *shape: nnx.Param(init(rngs.params(), shape, param_dtype))
    patch = (patch_size, patch_size)
    tokens = math.prod(size) // patch_size**2 + (pooling == 'token')
    self.remat = remat
    self.patch_embed = nnx.Conv(
      channels, width, patch, strides=patch, padding=0, **dense_types
    )
    self.class_token = draw(1, 1, width) if pooling == 'token' else None
    self.position_embedding = draw(1, tokens, width)
    self.blocks = nnx.List(
      Block(
        width,
        int(mlp_ratio * width),
        Attention(width, num_heads, dense),
        norm,
        dense,
        stochastic_depth(rate, 3, rngs),
      )
      for rate in np.linspace(0.0, drop_path, depth).tolist()
    )
    self.norm = norm(width)
    self.head = dense(width, num_classes)
    self.scale = (
      LogitScale(param_dtype=param_dtype, rngs=rngs) if logit_scale else None
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits (N, classes) of pictures (N, H, W, C)."""
    return self.intermediates(x)['logits']

  def intermediates(self, x: jax.Array) -> dict[str, jax.Array]:
    """What stands after each stage, by its name.

    ``embed``, ``block1`` to the last block and ``norm`` are tokens (N, T,
    width), the class token first if there is one; ``pool`` is (N, width),
    ``logits`` (N, classes).
    """
    tokens = self.embed(x)
    out = {'embed': tokens}
    apply = nnx.remat(Block.__call__) if self.remat else Block.__call__
    for number, block in enumerate(self.blocks, 1):
      tokens = out[f'block{number}'] = apply(block, tokens)
    tokens = out['norm'] = self.norm(tokens)
    mean = self.class_token is None
    out['pool'] = jnp.mean(tokens, axis=1) if mean else tokens[:, 0]
    logits = self.head(out['pool'])
    out['logits'] = logits if self.scale is None else self.scale(logits)
    return out

  def embed(self, x: jax.Array) -> jax.Array:
    """Pictures (N, H, W, C) to tokens (N, T, width), row by row."""
    patches = self.patch_embed(x)
    count, *_, width = patches.shape
    tokens = patches.reshape(count, -1, width)
    if self.class_token is not None:
      token = self.class_token[...].astype(tokens.dtype)
      tokens = jnp.concatenate(
        [jnp.broadcast_to(token, (count, 1, width)), tokens], axis=1
      )
    return tokens + self.position_embedding[...].astype(tokens.dtype)


def _check(image_shape, patch_size, pooling, drop_path):
  height, breadth, _ = image_shape
  common = math.gcd(height, breadth)
  divisors = [n for n in range(1, common + 1) if common % n == 0]
  if patch_size not in divisors:
    raise ValueError(
      f'patch_size must divide pictures of {height}×{breadth} pixels, got'
      f' {patch_size}; the divisors are {", ".join(map(str, divisors))}.'
    )
  if pooling not in ('token', 'mean'):
    raise ValueError(f"pooling must be 'token' or 'mean', got {pooling!r}.")
  check_probability(drop_path)
