"""What stands where a pixel is taken away."""

from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from bort_jax.metrics.checks import check_count, checked_pictures, wide
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.filters import band, filtered

Baseline: TypeAlias = ArrayLike | Literal['blur', 'blur31', 'mean', 'min']
_NAMES = ('blur', 'blur31', 'mean', 'min')


def blurred(x: ArrayLike, size: int = 11, stdev: float = 5.0) -> jax.Array:
  """Pictures blurred as RISE does, the start of insertion.

  The kernel is that of RISE's code: a point in ``size``×``size`` pixels,
  blurred by a Gaussian that is reflected at the kernel's edges. It is close to
  a box and sums to 1. Beyond the border pictures are 0, so borders darken.

  Args:
    x: pictures (N, H, W, C).
    size: side of the kernel in pixels, odd. RISE's 11 is for 224×224.
    stdev: of the Gaussian, in pixels.

  Returns:
    The blurred pictures.

  Raises:
    MetricError: if x are no pictures or the size is even.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> blurred = metrics.blurred(jnp.ones((1, 32, 32, 3)))
    >>> [round(float(blurred[0, i, i, 0]), 3) for i in (0, 16)]
    [0.299, 1.0]

  References:
    Petsiuk et al., `RISE: Randomized Input Sampling for Explanation of
    Black-box Models <https://arxiv.org/abs/1806.07421>`_, 2018, and its code
  """
  x = checked_pictures(x)
  check_count('size', size)
  if size % 2 == 0:
    raise MetricError(f'size must be odd, got {size}.')
  kernel = _kernel(size, stdev)
  rows, columns = (band(kernel, side) for side in x.shape[1:3])
  return filtered(x.astype(wide(x.dtype)), rows, columns).astype(x.dtype)


def check_baseline(baseline: Any, shape: tuple[int, ...]) -> None:
  """Refuses what cannot stand for pictures of a shape."""
  if isinstance(baseline, str):
    if baseline not in _NAMES:
      raise MetricError(
        f'baseline must be a number, an array or one of {", ".join(_NAMES)},'
        f' got {baseline!r}.'
      )
    return
  given = jnp.shape(baseline)
  fits = len(given) <= len(shape) and all(
    have in (1, want)
    for have, want in zip(given[::-1], shape[::-1], strict=False)
  )
  if not fits:
    raise MetricError(
      f'baseline must be a number or an array that broadcasts to {shape}, got'
      f' shape {given}.'
    )


def substrate(baseline: Any, x: jax.Array) -> jax.Array:
  """What stands for pictures, of their shape and type.

  Args:
    baseline: a number or an array that broadcasts to x; ``'blur'``, see
      :func:`blurred`, and ``'blur31'`` with a kernel of 31 pixels; ``'mean'``,
      that of each channel of a picture; ``'min'``, a picture's least number.
    x: pictures (N, H, W, C).

  Returns:
    The substrate. It is made of the whole pictures, once.
  """
  if not isinstance(baseline, str):
    return jnp.broadcast_to(jnp.asarray(baseline, x.dtype), x.shape)
  match baseline:
    case 'blur':
      return blurred(x)
    case 'blur31':
      return blurred(x, 31)
    case 'mean':
      value = jnp.mean(x.astype(wide(x.dtype)), axis=(1, 2), keepdims=True)
    case _:
      value = jnp.min(x, axis=(1, 2, 3), keepdims=True)
  return jnp.broadcast_to(value.astype(x.dtype), x.shape)


def _kernel(size: int, stdev: float) -> np.ndarray:
  """A point blurred within the kernel, along one axis."""
  radius = int(4 * stdev + 0.5)
  gaussian = np.exp(-0.5 * (np.arange(-radius, radius + 1) / stdev) ** 2)
  point = np.zeros(size)
  point[size // 2] = 1
  padded = np.pad(point, radius, mode='symmetric')
  return np.convolve(padded, gaussian / gaussian.sum(), mode='valid')
