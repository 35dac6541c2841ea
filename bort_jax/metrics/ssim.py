"""Structural similarity of pictures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from bort_jax.metrics.checks import check_count, wide
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.filters import filtered, valid_band

WINDOW = 11  # as published
_STDEV = 1.5
_LUMINANCE, _CONTRAST = 0.01, 0.03  # K1 and K2


def ssim(
  x: ArrayLike,
  y: ArrayLike,
  *,
  data_range: float | jax.Array = 1.0,
  window: int = WINDOW,
) -> jax.Array:
  """The mean structural similarity of pictures, as published.

  Means, variances and covariances are weighted by a Gaussian (σ = 1.5) of
  11×11 pixels, wherever it lies within the picture, for each channel.

  Args:
    x: pictures (N, H, W, C), 11×11 pixels at least; integers are taken as
      float32.
    y: pictures of the same shape.
    data_range: the greatest number less the least that pictures can have.
    window: side of the Gaussian, odd; for smaller pictures give a smaller one,
      and say so: it is another measure.

  Returns:
    (N,) at most 1, which equal pictures have; NaN where one is not finite.

  Raises:
    MetricError: if the shapes differ or are none of pictures, or the window is
      even or does not fit.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> x = jnp.linspace(0, 1, 256).reshape(1, 16, 16, 1)
    >>> metrics.ssim(x, x).round(6), metrics.ssim(x, 1 - x)[0] < 0
    (Array([1.], dtype=float32), Array(True, dtype=bool))

  References:
    Wang et al., `Image Quality Assessment: From Error Visibility to Structural
    Similarity <https://doi.org/10.1109/TIP.2003.819861>`_, 2004
  """
  x, y = jnp.asarray(x), jnp.asarray(y)
  if x.shape != y.shape or x.ndim != 4:
    raise MetricError(
      'x and y must be pictures (N, H, W, C) of one shape, got'
      f' {x.shape} and {y.shape}.'
    )
  check_window(window)
  if not fits(window, x.shape):
    raise MetricError(
      f'A window of {window}×{window} does not fit in pictures of'
      f' {x.shape[1]}×{x.shape[2]}: give a smaller odd window=.'
    )
  dtype = jnp.promote_types(wide(x.dtype), wide(y.dtype))
  return _ssim(window, x.astype(dtype), y.astype(dtype), data_range)


def check_window(window: int) -> None:
  """Refuses what is no odd number."""
  check_count('window', window)
  if window % 2 == 0:
    raise MetricError(f'window must be odd, got {window}.')


def fits(window: int, shape: tuple[int, ...]) -> bool:
  """Whether a shape is that of pictures with room for a window."""
  return len(shape) == 4 and window <= min(shape[1:3])


@functools.partial(jax.jit, static_argnums=0)
def _ssim(window: int, x, y, data_range) -> jax.Array:
  offsets = np.arange(window) - window // 2
  kernel = np.exp(-0.5 * (offsets / _STDEV) ** 2)
  kernel /= kernel.sum()
  rows, columns = (valid_band(kernel, side) for side in x.shape[1:3])
  mean = lambda values: filtered(values, rows, columns)
  data_range = jnp.asarray(data_range, x.dtype)
  c1, c2 = (
    jnp.square(_LUMINANCE * data_range),
    jnp.square(_CONTRAST * data_range),
  )
  mean_x, mean_y = mean(x), mean(y)
  variances = mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2
  covariance = mean(x * y) - mean_x * mean_y
  luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
  structure = (2 * covariance + c2) / (variances + c2)
  return jnp.mean(luminance * structure, axis=(1, 2, 3))
