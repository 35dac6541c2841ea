"""Which numbers of a row are the least, without XLA's slow sort on CPUs.

There a sort of floats calls a function for every comparison. Unsigned integers
of the same order are sorted several times as fast, and one number of a rank is
found by counting, without a sort.
"""

import functools

import jax
import jax.numpy as jnp


@jax.custom_jvp
def ascending(values: jax.Array) -> jax.Array:
  """Each row in order.

  Args:
    values: (N, M) floats ≥ 0, where they are numbers.

  Returns:
    (N, M), which may be differentiated.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics.order import ascending
    >>> ascending(jnp.array([[3.0, 0.5, 2.0]])).tolist()
    [[0.5, 2.0, 3.0]]
  """
  bits = jax.lax.bitcast_convert_type(values, _unsigned(values))
  return jax.lax.bitcast_convert_type(jnp.sort(bits, axis=1), values.dtype)


@ascending.defjvp
def _ascending_jvp(primals, tangents):
  return jax.jvp(lambda values: jnp.sort(values, axis=1), primals, tangents)


def in_order(values: jax.Array) -> jax.Array:
  """Unsigned integers of the order of floats, and equal where these are.

  Args:
    values: floats of any shape.

  Returns:
    Integers of as many bits, those of NaN anywhere.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics.order import in_order
    >>> in_order(jnp.array([-1.0, -0.0, 0.0, 2.0])).tolist()
    [1082130431, 2147483648, 2147483648, 3221225472]
  """
  one_zero = jnp.where(values == 0, 0, values)
  bits = jax.lax.bitcast_convert_type(one_zero, _unsigned(values))
  sign = jnp.asarray(1 << (8 * bits.dtype.itemsize - 1), bits.dtype)
  return jnp.where(bits & sign, ~bits, bits | sign)


def least(words: jax.Array, count: int) -> jax.Array:
  """Where so many of each row are that no other is less.

  Args:
    words: (N, M) unsigned integers.
    count: how many, 1 … M.

  Returns:
    (N, M) bool, true for exactly so many. Of equal words each of two is as
    likely the one that is taken, if words are drawn: the word itself, by its
    low bits, says in which order their places come.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics.order import least
    >>> least(jnp.array([[7, 2, 9, 4]], jnp.uint32), 2).tolist()
    [[False, True, False, True]]
  """
  last = kth_least(words, jnp.full(len(words), count))[:, None]
  below, equal = words < last, words == last
  left = count - jnp.sum(below, axis=1)
  bits = max(words.shape[1] - 1, 1).bit_length()
  most = jnp.asarray((1 << bits) - 1, words.dtype)
  places = jnp.arange(words.shape[1], dtype=words.dtype)[None] ^ (last & most)
  places = jnp.where(equal, places, most)
  return below | (equal & (places <= kth_least(places, left, bits)[:, None]))


@functools.partial(jax.jit, static_argnums=2)
def kth_least(
  words: jax.Array, k: jax.Array, bits: int | None = None
) -> jax.Array:
  """The number that is at a place of each row, were it in order.

  Args:
    words: (N, M) unsigned integers.
    k: (N,) int, 1 … M, the place.
    bits: how many low bits of words may be set; by default all.

  Returns:
    (N,) of them.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics.order import kth_least
    >>> kth_least(jnp.array([[7, 2, 9, 4]], jnp.uint32), jnp.array([3]))
    Array([7], dtype=uint32)
  """
  bits = 8 * words.dtype.itemsize if bits is None else bits
  by_bits = functools.partial(_kth_by_bits, bits=bits)
  return jax.lax.platform_dependent(words, k, cpu=by_bits, default=_kth_by_sort)


def _kth_by_bits(words: jax.Array, k: jax.Array, *, bits: int) -> jax.Array:
  """From the highest bit: it is set if fewer than k words are without it."""

  def set_bit(i, found):
    one = jnp.asarray(1, words.dtype)
    higher = found | (one << (bits - 1 - i).astype(words.dtype))
    fewer = jnp.sum(words < higher[:, None], axis=1) < k
    return jnp.where(fewer, higher, found)

  return jax.lax.fori_loop(0, bits, set_bit, jnp.zeros_like(words[:, 0]))


def _kth_by_sort(words: jax.Array, k: jax.Array) -> jax.Array:
  return jnp.take_along_axis(jnp.sort(words, axis=1), k[:, None] - 1, 1)[:, 0]


def _unsigned(values: jax.Array) -> jnp.dtype:
  return jnp.dtype(f'uint{8 * values.dtype.itemsize}')
