"""Many passes of a network in chunks that fit in memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bort_jax import loops, validation
from bort_jax.metrics.checks import check_count
from bort_jax.metrics.errors import MetricError


def over_pairs(
  function: Callable[[jax.Array, jax.Array], Any],
  steps: int,
  n: int,
  chunk: int | None,
) -> Any:
  """Calls a function for every step of every picture, some pairs at a time.

  Args:
    function: of the numbers of steps (B,) and of pictures (B,), to a tree of
      arrays (B, ...).
    steps: how many steps, ≥ 1.
    n: how many pictures, ≥ 1.
    chunk: B; by default n, a step at a time.

  Returns:
    A tree of arrays (n, steps, ...).
  """
  count = steps * n
  size = min(chunk or n, count)
  rows = -(-count // size)
  pair = (jnp.arange(rows * size) % count).reshape(rows, size)
  call = lambda _, pair: (None, function(pair // n, pair % n))
  _, found = loops.scan(call, None, pair)

  def by_picture(values):
    values = values.reshape(rows * size, *values.shape[2:])[:count]
    return jnp.swapaxes(values.reshape(steps, n, *values.shape[1:]), 0, 1)

  return jax.tree.map(by_picture, found)


def check_chunk(chunk: int | None) -> None:
  """Refuses what is no number of pictures and not None."""
  if chunk is not None:
    check_count('chunk', chunk)


def within_memory(
  function: Callable[..., Any], *args: Any, chunk: int | None
) -> Any:
  """Calls a function; if memory runs out, says what to do."""
  tried = 'all of the batch' if chunk is None else f'chunk={chunk}'
  message = (
    f'Memory ran out with {tried} in each pass. Set chunk= to fewer pictures in'
    ' a pass; the result is the same.'
  )
  return validation.within_memory(message, MetricError, function, *args)
