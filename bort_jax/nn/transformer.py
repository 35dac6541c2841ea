"""What transformers of pictures are made of."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
from flax import nnx

from bort_jax.nn.attend import attend

# nnx.Linear or nnx.LayerNorm with all but its sizes given.
Layer: TypeAlias = Callable[..., Any]
Activation: TypeAlias = Callable[[jax.Array], jax.Array]


def truncated_normal() -> nnx.Initializer:
  """An initializer: normal, cut at two σ, of standard deviation 0.02."""
  # The cut takes the standard deviation to 0.8796 of the uncut one.
  return nnx.initializers.truncated_normal(0.02 / 0.87962566103423978)


def stochastic_depth(rate: float, rank: int, rngs: nnx.Rngs) -> nnx.Dropout:
  """Drops an example's whole residual branch, an array of ``rank`` axes.

  It is random only in training and if ``rate`` > 0; only then is a stream
  ``dropout`` of ``rngs`` needed.
  """
  return nnx.Dropout(
    rate,
    broadcast_dims=tuple(range(1, rank)),
    rngs=rngs if rate > 0 else None,
  )


class Attention(nnx.Module):
  """Self-attention of several heads, each of its kernels a plain matrix.

  Args:
    width: features of a token, divisible by ``num_heads``.
    num_heads: number of heads.
    dense: makes a dense layer of given input and output features.
  """

  def __init__(self, width: int, num_heads: int, dense: Layer):
    if width % num_heads:
      raise ValueError(
        f'width must be a multiple of num_heads, got {width} and {num_heads}.'
      )
    self.num_heads = num_heads
    self.query = dense(width, width)
    self.key = dense(width, width)
    self.value = dense(width, width)
    self.out = dense(width, width)

  def __call__(
    self,
    x: jax.Array,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
  ) -> jax.Array:
    """Tokens (N, T, width) to the same, the softmax in float32 or wider.

    ``bias`` (1 or N, heads, T, T) is added to the logits, and a query (third
    axis) sees a key (fourth) where ``mask`` (1 or N, 1, T, T) is true.
    """
    qkv = self.query(x), self.key(x), self.value(x)
    return self.out(attend(*qkv, self.num_heads, bias, mask))


def exact_gelu(x: jax.Array) -> jax.Array:
  """x·Φ(x), not its approximation by tanh."""
  return nnx.gelu(x, approximate=False)


class MLP(nnx.Module):
  """Dense, activation, dense.

  Args:
    width: input and output features.
    hidden: features in between.
    dense: makes a dense layer of given input and output features.
    act: the activation.
  """

  def __init__(
    self, width: int, hidden: int, dense: Layer, act: Activation = exact_gelu
  ):
    self.fc1 = dense(width, hidden)
    self.fc2 = dense(hidden, width)
    self.act = act

  def __call__(self, x: jax.Array) -> jax.Array:
    """(..., width) to the same."""
    return self.fc2(self.act(self.fc1(x)))


class Block(nnx.Module):
  """A transformer block that normalizes before attention and before the MLP.

  Args:
    width: features of a token.
    hidden: features inside the MLP.
    attention: the module of attention.
    norm: makes a LayerNorm of given features.
    dense: makes a dense layer of given input and output features.
    drop_path: what drops a residual branch.
    act: the activation of the MLP.
  """

  def __init__(
    self,
    width: int,
    hidden: int,
    attention: nnx.Module,
    norm: Layer,
    dense: Layer,
    drop_path: nnx.Dropout,
    act: Activation = exact_gelu,
  ):
    self.norm1 = norm(width)
    self.attention = attention
    self.norm2 = norm(width)
    self.mlp = MLP(width, hidden, dense, act)
    self.drop_path = drop_path

  def __call__(self, x: jax.Array) -> jax.Array:
    """Whatever the attention takes, (N, ..., width), to the same."""
    x = x + self.drop_path(self.attention(self.norm1(x)))
    return x + self.drop_path(self.mlp(self.norm2(x)))


def check_probability(drop_path: float) -> None:
  """Raises ValueError unless ``drop_path`` is in [0, 1)."""
  if not 0 <= drop_path < 1:
    raise ValueError(f'drop_path must be in [0, 1), got {drop_path!r}.')
