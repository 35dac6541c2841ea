"""Self-attention whose weights are dynamic."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from bort_jax.nn.attend import attend
from bort_jax.nn.bcos.names import dynamic


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
    query, key = dynamic(self.query(x)), dynamic(self.key(x))
    return self.out(attend(query, key, self.value(x), self.num_heads))
