"""Self-attention whose weights are dynamic."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.bcos.names import dynamic
from bort_jax.nn.bcos.transform import wide


class BcosAttention(nnx.Module):
  """Self-attention of several heads: linear in its values.

  Queries, keys and values are plain linear maps without bias. Queries and keys
  are dynamic (see :func:`dynamic`), so that with them held the layer mixes the
  values by a constant matrix; what is mixed goes through a B-cos layer.

  Args:
    width: features of a token, divisible by ``num_heads``.
    num_heads: number of heads.
    linear: makes a plain dense layer without bias of given input and output
      features.
    dense: makes the B-cos dense layer behind, likewise.

  Raises:
    ValueError: if heads do not divide the width.

  Examples:
    >>> from functools import partial
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.bcos import BcosAttention, BcosDense
    >>> rngs = nnx.Rngs(0)
    >>> attention = BcosAttention(
    ...   8,
    ...   2,
    ...   partial(nnx.Linear, use_bias=False, rngs=rngs),
    ...   partial(BcosDense, rngs=rngs),
    ... )
    >>> attention(jnp.ones((1, 5, 8))).shape
    (1, 5, 8)
  """

  def __init__(
    self,
    width: int,
    num_heads: int,
    linear: Callable[..., Any],
    dense: Callable[..., Any],
  ):
    if width % num_heads:
      raise ValueError(
        f'width must be a multiple of num_heads, got {width} and {num_heads}.'
      )
    self.num_heads = num_heads
    self.query = linear(width, width)
    self.key = linear(width, width)
    self.value = linear(width, width)
    self.out = dense(width, width)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Tokens (N, T, width) to the same; the softmax is float32 or wider."""
    heads = (*x.shape[:-1], self.num_heads, -1)
    query = dynamic(self.query(x)).reshape(heads)
    key = dynamic(self.key(x)).reshape(heads)
    value = self.value(x).reshape(heads)
    # Not jax.nn.dot_product_attention: its softmax is float32 in float64 too.
    logits = wide(jnp.einsum('nqhd,nkhd->nhqk', query, key))
    weights = jax.nn.softmax(logits / math.sqrt(query.shape[-1]))
    mixed = jnp.einsum('nhqk,nkhd->nqhd', weights.astype(x.dtype), value)
    return self.out(mixed.reshape(x.shape))
