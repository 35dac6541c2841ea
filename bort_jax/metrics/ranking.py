"""The order in which a map ranks its pixels."""

import jax
import jax.numpy as jnp

from bort_jax.metrics.checks import pixels_of


def pixel_ranks(maps: jax.Array, ties: str) -> jax.Array:
  """The place of each pixel when the largest come first.

  Args:
    maps: (N, H, W, C); channels are summed.
    ties: whether of equal pixels that of ``'low'`` or ``'high'`` index is
      first, row by row.

  Returns:
    (N, H, W) int, each of 0 … H·W − 1 once.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics.ranking import pixel_ranks
    >>> maps = jnp.array([1.0, 3.0, 3.0]).reshape(1, 1, 3, 1)
    >>> pixel_ranks(maps, 'low').tolist(), pixel_ranks(maps, 'high').tolist()
    ([[[2, 0, 1]]], [[[2, 1, 0]]])
  """
  pixels = pixels_of(maps)
  flat = -pixels.reshape(len(pixels), pixels.shape[1] * pixels.shape[2])
  if ties == 'high':
    flat = flat[:, ::-1]
  ranks = jnp.argsort(jnp.argsort(flat, axis=1, stable=True), axis=1)
  if ties == 'high':
    ranks = ranks[:, ::-1]
  return ranks.reshape(pixels.shape)
