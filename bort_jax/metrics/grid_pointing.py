"""The grid pointing game: which tile of a mosaic does a class look at."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from bort_jax.metrics.checks import (
  ApplyFn,
  check_count,
  check_hashable,
  checked_maps,
  checked_pictures,
  number_of_classes,
  pixels_of,
  with_channels,
)
from bort_jax.metrics.chunks import check_chunk, over_pairs, within_memory
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.localisation import positive_share
from bort_jax.metrics.sensitivity import Method, checked_method
from bort_jax.validation import checked_classes


def draw_mosaics(
  logits: ArrayLike,
  labels: ArrayLike,
  *,
  key: jax.Array,
  grid: int = 2,
  count: int = 500,
  confidence: float | None = 0.5,
) -> np.ndarray:
  """Which pictures to put together: sure ones, of distinct classes.

  As published: pictures whose class is predicted right, with a sigmoid of its
  logit above ``confidence``, wait in line for their class, the surest first. A
  mosaic takes the next of each of grid² classes, drawn from those that have any
  left. No picture is used twice, and none is passed over.

  It chooses by values, so it does not jit.

  Args:
    logits: (N, K) of the pictures.
    labels: (N,) int classes.
    key: a random key.
    grid: tiles on a side, at least 2.
    count: most mosaics.
    confidence: in 0 … 1; None to keep all that are predicted right.

  Returns:
    (M, grid²) int, the pictures' numbers, row by row; M ≤ count.

  Raises:
    MetricError: if shapes do not fit, or no mosaic can be made.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> logits, labels = 9 * jnp.eye(4) - 1, jnp.arange(4)
    >>> drawn = metrics.draw_mosaics(logits, labels, key=jax.random.key(0))
    >>> drawn.shape, sorted(drawn[0].tolist())
    ((1, 4), [0, 1, 2, 3])

  References:
    Böhle et al., `B-cos Networks: Alignment is All We Need for
    Interpretability <https://arxiv.org/abs/2205.10268>`_, 2022
  """
  logits, labels = np.asarray(logits), np.asarray(labels)
  if logits.ndim != 2 or labels.shape != logits.shape[:1]:
    raise MetricError(
      'logits must be (N, K) and labels (N,), got'
      f' {logits.shape} and {labels.shape}.'
    )
  check_count('grid', grid)
  check_count('count', count)
  tiles = grid * grid
  waiting = _in_line(logits, labels, confidence)
  rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
  mosaics = []
  while len(mosaics) < count and len(waiting) >= tiles:
    classes = rng.choice(sorted(waiting), tiles, replace=False)
    mosaics.append([waiting[c].pop(0) for c in classes])
    waiting = {c: line for c, line in waiting.items() if line}
  if not mosaics:
    raise MetricError(
      f'A grid of {grid}×{grid} needs sure pictures of {tiles} classes, but'
      f' there are of {len(waiting)} alone. Take a smaller grid, more pictures,'
      ' or confidence=None.'
    )
  return np.array(mosaics)


def mosaic(x: ArrayLike, layout: ArrayLike) -> jax.Array:
  """Puts pictures together.

  Args:
    x: pictures (N, H, W, C).
    layout: (M, n²) int, which of them, row by row.

  Returns:
    (M, n·H, n·W, C).

  Raises:
    MetricError: if x are no pictures or the layout no squares of them.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> x = jnp.arange(4.0).reshape(4, 1, 1, 1)
    >>> metrics.mosaic(x, jnp.array([[3, 2, 1, 0]]))[0, :, :, 0]
    Array([[3., 2.],
           [1., 0.]], dtype=float32)
  """
  x, layout = checked_pictures(x), jnp.asarray(layout)
  grid = _side(layout.shape[1]) if layout.ndim == 2 else 0
  if not (grid and jnp.issubdtype(layout.dtype, jnp.integer)):
    raise MetricError(
      'layout must be int of shape (M, n²), numbers of pictures, got'
      f' {layout.dtype} of shape {layout.shape}.'
    )
  _, height, width, channels = x.shape
  tiles = x[layout].reshape(-1, grid, grid, height, width, channels)
  rows = jnp.swapaxes(tiles, 2, 3)
  return rows.reshape(-1, grid * height, grid * width, channels)


def grid_pointing(attribution: ArrayLike, *, smooth: int = 1) -> jax.Array:
  """The share of each map's positive mass that is in its own tile.

  Args:
    attribution: (M, n², H, W) or (M, n², H, W, C): of each mosaic a map for the
      class of each tile, row by row. Channels are summed.
    smooth: side of an average pooling before negative pixels are left out, odd;
      published are 15 for ImageNet and 1, none, for CIFAR.

  Returns:
    (M, n²) in 0 … 1, by chance 1 / n². NaN for a map without a positive pixel
    or one that is not finite; as published these count as 0.

  Raises:
    MetricError: if it is no maps of mosaics, or smooth is even.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> metrics.grid_pointing(jnp.ones((1, 4, 6, 6)))
    Array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)

  References:
    Böhle et al., `B-cos Networks: Alignment is All We Need for
    Interpretability <https://arxiv.org/abs/2205.10268>`_, 2022
  """
  maps = jnp.asarray(attribution)
  grid = _side(maps.shape[1]) if maps.ndim in (4, 5) else 0
  if not grid or maps.shape[2] % grid or maps.shape[3] % grid:
    raise MetricError(
      'attribution must be (M, n², H, W) or (M, n², H, W, C) with H and W'
      f' multiples of n, got shape {maps.shape}.'
    )
  check_count('smooth', smooth)
  if smooth % 2 == 0:
    raise MetricError(f'smooth must be odd, got {smooth}.')
  m, tiles = maps.shape[:2]
  flat = checked_maps(maps.reshape(m * tiles, *maps.shape[2:]))
  pixels = _smoothed(pixels_of(with_channels(flat)), smooth)
  own = jnp.asarray(_own_tiles(grid, *pixels.shape[1:]))
  own = jnp.tile(own, (m, 1, 1))
  return positive_share(pixels, own).reshape(m, tiles)


def grid_pointing_game(
  method: Method,
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  layout: ArrayLike,
  *,
  smooth: int = 1,
  rescale: bool = False,
  chunk: int | None = None,
) -> jax.Array:
  """Explains mosaics for the class of each tile, and scores the maps.

  Args:
    method: ``method(apply_fn, params, x, target)`` returns maps, see
      :func:`max_sensitivity`.
    apply_fn: the network; without ``rescale`` it must take larger pictures.
    params: its parameters.
    x: pictures (N, H, W, C), floats.
    target: (N,) int, their classes.
    layout: (M, n²) int, see :func:`draw_mosaics`.
    smooth: see :func:`grid_pointing`.
    rescale: whether mosaics are scaled down to one picture's size.
    chunk: mosaics in one pass; by default M.

  Returns:
    (M, n²), see :func:`grid_pointing`.

  Raises:
    MetricError: for targets that do not exist, a layout of no squares, sizes
      that n does not divide, a method that returns no maps, or too little
      memory.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> apply_fn = lambda params, x: jnp.mean(x, (1, 2)) @ params
    >>> times_weight = lambda f, params, x, target: (
    ...   x * params[:, target].T[:, None, None, :]
    ... )
    >>> x = jnp.eye(4)[:, None, None, :] * jnp.ones((4, 6, 6, 4))
    >>> metrics.grid_pointing_game(
    ...   times_weight,
    ...   apply_fn,
    ...   jnp.eye(4),
    ...   x,
    ...   jnp.arange(4),
    ...   jnp.arange(4)[None],
    ... )
    Array([[1., 1., 1., 1.]], dtype=float32)
  """
  x = checked_pictures(x)
  pictures = mosaic(x, layout)
  layout = jnp.asarray(layout)
  if rescale:
    grid = _side(layout.shape[1])
    if x.shape[1] % grid or x.shape[2] % grid:
      raise MetricError(
        f'Pictures of {x.shape[1]}×{x.shape[2]} have no {grid}×{grid} equal'
        ' tiles: crop or resize them first, or leave out rescale.'
      )
    small = (len(pictures), *x.shape[1:])
    pictures = jax.image.resize(pictures, small, 'linear', antialias=True)
  check_hashable('method', method)
  check_chunk(chunk)
  classes = number_of_classes(apply_fn, params, pictures)
  target = checked_classes('target', target, len(x), classes, MetricError)
  maps = within_memory(
    _explained,
    method,
    apply_fn,
    chunk,
    params,
    pictures,
    target[layout],
    chunk=chunk,
  )
  return grid_pointing(maps, smooth=smooth)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _explained(method, apply_fn, chunk, params, pictures, classes) -> jax.Array:
  """(M, n², H, W, C) a map for each class."""
  explain = lambda tile, number: checked_method(
    method, apply_fn, params, pictures[number], classes[number, tile]
  )
  return over_pairs(explain, classes.shape[1], len(pictures), chunk)


def _in_line(
  logits: np.ndarray, labels: np.ndarray, confidence: float | None
) -> dict[int, list[int]]:
  """For each class the pictures that may be used, the surest first."""
  own = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
  usable = logits.argmax(axis=1) == labels
  if confidence is not None:
    usable &= own > np.log(confidence) - np.log1p(-confidence)
  line: dict[int, list[int]] = {}
  for number in np.argsort(-own, kind='stable'):
    if usable[number]:
      line.setdefault(int(labels[number]), []).append(int(number))
  return line


def _side(tiles: int) -> int:
  """N of n² tiles, at least 2; 0 of others."""
  side = math.isqrt(tiles)
  return side if side >= 2 and side * side == tiles else 0


def _own_tiles(grid: int, height: int, width: int) -> np.ndarray:
  """(grid², H, W) bool, where each tile is."""
  tile = np.arange(grid * grid).reshape(grid, grid)
  size = np.ones((height // grid, width // grid), int)
  return np.kron(tile, size)[None] == tile.reshape(-1, 1, 1)


def _smoothed(pixels: jax.Array, side: int) -> jax.Array:
  """The mean over squares of pixels; what is beyond the border counts as 0."""
  window = (1, side, side)
  total = jax.lax.reduce_window(
    pixels, jnp.zeros((), pixels.dtype), jax.lax.add, window, (1, 1, 1), 'SAME'
  )
  return total / side**2
