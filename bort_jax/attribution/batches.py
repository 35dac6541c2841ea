"""How many pictures go through a network at once, and what fails if too many.

Every method takes ``chunk=``: the network never runs on more pictures than
that at once. By default it runs on the N pictures given, and what a method
needs of each (steps, samples, masks, classes) comes one after another. A
smaller chunk splits the batch; a chunk of several N takes several steps,
samples, masks or classes at once. The numbers do not depend on it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bort_jax import loops
from bort_jax.attribution.errors import AttributionError
from bort_jax.inversion.errors import InversionError
from bort_jax.validation import within_memory


def in_blocks(function: Callable, chunk: int | None, *arrays: Any) -> Any:
  """A function of batches, given at most ``chunk`` of a batch at once.

  Args:
    function: of arrays (n, ...), which returns arrays (n, ...).
    chunk: the largest n; None for all at once.
    *arrays: arrays (N, ...).

  Returns:
    The results (N, ...).
  """
  n = len(arrays[0])
  if chunk is None or chunk >= n:
    return function(*arrays)
  blocks = -(-n // chunk)
  # the last block is filled up with the first pictures: one program for all
  index = (jnp.arange(blocks * chunk) % n).reshape(blocks, chunk)
  out = loops.map_(lambda i: function(*(a[i] for a in arrays)), index)
  return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], out)


def at_once(chunk: int | None, n: int, count: int) -> int:
  """How many of ``count`` steps fit beside each other for n pictures."""
  return 1 if chunk is None else max(1, min(count, chunk // max(n, 1)))


def summed(
  term: Callable[[jax.Array], jax.Array], count: int, width: int
) -> jax.Array:
  """The sum of terms 0 … count − 1, in constant memory.

  Args:
    term: of indices (width,), which returns an array (width, ...).
    count: how many terms.
    width: how many are computed at once.

  Returns:
    The sum, in float32 at least.
  """
  like = jax.eval_shape(term, jnp.arange(width))
  wide = jnp.promote_types(like.dtype, jnp.float32)

  def add(total, block):
    index = block * width + jnp.arange(width)
    values = term(jnp.minimum(index, count - 1))
    exists = (index < count).reshape(width, *[1] * (values.ndim - 1))
    return total + jnp.sum(jnp.where(exists, values, 0), 0, dtype=wide), None

  start = jnp.zeros(like.shape[1:], wide)
  return loops.scan(add, start, jnp.arange(-(-count // width)))[0]


def run(compiled: Callable, *args: Any) -> Any:
  """What a compiled method returns; says what to do where memory ends."""
  try:
    return within_memory(_TOO_MANY, AttributionError, compiled, *args)
  except InversionError as error:
    raise AttributionError(str(error)) from error


_TOO_MANY = (
  'The batch does not fit in memory. Let fewer pictures through the network at'
  ' once: chunk=8, or less, down to chunk=1.'
)
