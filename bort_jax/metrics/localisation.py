"""Whether a map lies on the object."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from bort_jax.metrics.checks import (
  checked_maps,
  checked_mask,
  pixels_of,
  rows_of,
  with_channels,
)
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.order import in_order, kth_least


def pointing_game(
  attribution: ArrayLike, mask: ArrayLike, *, tolerance: float = 0
) -> jax.Array:
  """Whether the greatest pixel of each map is on the object.

  Args:
    attribution: maps (N, H, W) or (N, H, W, C); channels are summed.
    mask: (N, H, W) bool: what is the object.
    tolerance: pixels, ≥ 0, that the greatest may lie from the object; the
      published game takes 15 on pictures of some hundred pixels.

  Returns:
    (N,) 1 for a hit and 0 for a miss; of several pixels that are greatest, the
    share that hits. NaN for an empty mask, and for maps that are constant or
    not finite: they point nowhere.

  Raises:
    MetricError: if the maps, the mask or the tolerance is none.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> maps = jnp.arange(4.0).reshape(1, 2, 2)
    >>> mask = jnp.array([[[False, True], [False, False]]])
    >>> game = metrics.pointing_game
    >>> float(game(maps, mask)[0]), float(game(maps, mask, tolerance=1)[0])
    (0.0, 1.0)

  References:
    Zhang et al., `Top-down Neural Attention by Excitation Backprop
    <https://arxiv.org/abs/1608.00507>`_, 2016
  """
  maps = checked_maps(attribution)
  mask = checked_mask(mask, maps)
  if not (np.ndim(tolerance) == 0 and 0 <= tolerance < np.inf):
    raise MetricError(
      f'tolerance must be a number of pixels, >= 0, got {tolerance!r}.'
    )
  return _pointing(float(tolerance), maps, mask)


def relevance_rank_accuracy(
  attribution: ArrayLike, mask: ArrayLike
) -> jax.Array:
  """The share of the object's K pixels among the K greatest of each map.

  Args:
    attribution: maps (N, H, W) or (N, H, W, C); channels are summed.
    mask: (N, H, W) bool: what is the object, K pixels.

  Returns:
    (N,) in 0 … 1, by chance K / (H·W). Of equal pixels not all of which are
    among the greatest, the mean over their orders. NaN for an empty mask, and
    for maps that are constant or not finite.

  Raises:
    MetricError: if the maps or the mask are none.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> maps = jnp.array([[[5.0, 1.0], [4.0, 0.0]]])
    >>> mask = jnp.array([[[True, True], [False, False]]])
    >>> float(metrics.relevance_rank_accuracy(maps, mask)[0])
    0.5

  References:
    Arras et al., `CLEVR-XAI: A benchmark dataset for the ground truth
    evaluation of neural network explanations
    <https://arxiv.org/abs/2003.07258>`_, 2020
  """
  maps = checked_maps(attribution)
  return _rank_accuracy(maps, checked_mask(mask, maps))


def relevance_mass_accuracy(
  attribution: ArrayLike, mask: ArrayLike
) -> jax.Array:
  """The share of each map's positive mass that is on the object.

  Args:
    attribution: maps (N, H, W) or (N, H, W, C); channels are summed, then
      what is negative is left out.
    mask: (N, H, W) bool: what is the object.

  Returns:
    (N,) in 0 … 1, by chance the mask's share of the area. NaN for an empty
    mask, for maps without a positive pixel, and for those that are not finite.

  Raises:
    MetricError: if the maps or the mask are none.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> maps = jnp.array([[[3.0, -9.0], [1.0, 0.0]]])
    >>> mask = jnp.array([[[True, True], [False, False]]])
    >>> float(metrics.relevance_mass_accuracy(maps, mask)[0])
    0.75

  References:
    Arras et al., `CLEVR-XAI: A benchmark dataset for the ground truth
    evaluation of neural network explanations
    <https://arxiv.org/abs/2003.07258>`_, 2020
  """
  maps = checked_maps(attribution)
  return _mass_accuracy(maps, checked_mask(mask, maps))


@jax.jit
def positive_share(pixels: jax.Array, mask: jax.Array) -> jax.Array:
  """(N,) of what is positive in (N, H, W), the share within a mask."""
  greatest = jnp.max(pixels, axis=(1, 2), keepdims=True)
  mass = jnp.where(pixels < 0, 0, pixels) / greatest  # NaN stays, and 0 / 0 is
  total = jnp.sum(mass, axis=(1, 2))
  inside = jnp.sum(jnp.where(mask, mass, 0), axis=(1, 2))
  share = inside / total
  return jnp.where(total > 0, share, jnp.nan)


@jax.jit
def _mass_accuracy(maps: jax.Array, mask: jax.Array) -> jax.Array:
  share = positive_share(pixels_of(with_channels(maps)), mask)
  return jnp.where(jnp.any(mask, axis=(1, 2)), share, jnp.nan)


@functools.partial(jax.jit, static_argnums=0)
def _pointing(tolerance: float, maps: jax.Array, mask: jax.Array) -> jax.Array:
  pixels = pixels_of(with_channels(maps))
  greatest = pixels == jnp.max(pixels, axis=(1, 2), keepdims=True)
  hits = greatest & _widened(mask, tolerance)
  count = lambda where: jnp.sum(where, axis=(1, 2), dtype=pixels.dtype)
  return jnp.where(
    _points(pixels) & jnp.any(mask, axis=(1, 2)),
    count(hits) / count(greatest),
    jnp.nan,
  )


def _widened(mask: jax.Array, tolerance: float) -> jax.Array:
  """Where the mask is, and what is at most so far from it."""
  reach = min(int(tolerance), max(mask.shape[1:]))
  if not reach:
    return mask
  offsets = np.arange(-reach, reach + 1)
  disc = offsets[:, None] ** 2 + offsets[None] ** 2 <= tolerance**2
  near = jax.lax.conv_general_dilated(
    mask[..., None].astype(jnp.float32),
    jnp.asarray(disc[:, :, None, None], jnp.float32),
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  return near[..., 0] > 0.5


@jax.jit
def _rank_accuracy(maps: jax.Array, mask: jax.Array) -> jax.Array:
  pixels = pixels_of(with_channels(maps))
  size = jnp.sum(mask, axis=(1, 2))
  words, mask = in_order(rows_of(pixels)), rows_of(mask)
  place = words.shape[1] + 1 - jnp.maximum(size, 1)  # of the K-th greatest
  last = kth_least(words, place)[:, None]
  above, equal = words > last, words == last
  count = lambda where: jnp.sum(where, axis=1, dtype=pixels.dtype)
  left = size - count(above)  # places that the equal pixels share
  hits = count(above & mask) + left * count(equal & mask) / count(equal)
  return jnp.where(_points(pixels) & (size > 0), hits / size, jnp.nan)


def _points(pixels: jax.Array) -> jax.Array:
  """(N,) whether a map says anything: not constant, and finite."""
  finite = jnp.all(jnp.isfinite(pixels), axis=(1, 2))
  return finite & (jnp.ptp(pixels, axis=(1, 2)) > 0)
