"""What attention does between its dense layers."""

import math

import jax
import jax.numpy as jnp


def attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  num_heads: int,
  bias: jax.Array | None = None,
  mask: jax.Array | None = None,
) -> jax.Array:
  """Averages the values of all tokens, for each token in its own proportions.

  softmax(Q Kᵀ / √d + bias) V in each head, where d is the width of a head. The
  softmax is taken in float32, or wider where the input is. (That of
  ``jax.nn.dot_product_attention`` is float32 for float64 too, and slower on a
  CPU: it divides the logits, not the query, and has no heads in front.)

  Args:
    query: (N, T, width), floats.
    key: the same shape and dtype, as is value.
    value: what is averaged.
    num_heads: number of heads, a divisor of the width.
    bias: (1 or N, heads, T, T), added to the logits.
    mask: (1 or N, 1, T, T): a query (third axis) sees a key (fourth) where it
      is true; each must see one.

  Returns:
    The averages, of the same shape and dtype.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.nn.attend import attend
    >>> alike = jnp.zeros((1, 2, 4))  # so all are averaged evenly
    >>> value = jnp.stack([jnp.zeros(4), jnp.ones(4)])[None]
    >>> attend(alike, alike, value, num_heads=2).tolist()
    [[[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]]
  """
  query, key, value = (_heads(x, num_heads) for x in (query, key, value))
  wide = jnp.promote_types(query.dtype, jnp.float32)
  scale = 1 / math.sqrt(query.shape[-1])
  is_wide = query.dtype == wide
  if is_wide:  # fewer numbers than there are logits
    query = query * scale
  logits = jnp.einsum(
    'nhqd,nhkd->nhqk', query, key, preferred_element_type=wide
  )
  if not is_wide:  # which would be rounded again
    logits = logits * scale
  if bias is not None:
    logits = logits + bias.astype(wide)
  if mask is not None:
    logits = jnp.where(mask, logits, -jnp.inf)
  weights = jax.nn.softmax(logits).astype(value.dtype)
  mixed = jnp.einsum('nhqk,nhkd->nhqd', weights, value)
  tokens = mixed.swapaxes(1, 2)  # (N, T, heads, width of a head)
  return tokens.reshape(*tokens.shape[:2], tokens.shape[2] * tokens.shape[3])


def _heads(x: jax.Array, num_heads: int) -> jax.Array:
  """(N, T, width) to (N, heads, T, width / heads)."""
  size = x.shape[-1] // num_heads
  return x.reshape(*x.shape[:2], num_heads, size).swapaxes(1, 2)
