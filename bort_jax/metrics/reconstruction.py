"""How far reconstructions are from their pictures."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bort_jax.metrics.checks import rows_of, wide
from bort_jax.metrics.correlation import pearson
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.ssim import WINDOW, check_window, fits, ssim


class ReconstructionError(NamedTuple):
  """Four views of one distance, a number for each picture."""

  raw: jax.Array  # (N,) norm of the difference over the norm of the picture
  scale_fitted: jax.Array  # (N,) the same after the best scale of each
  pearson: jax.Array  # (N,) correlation of the pixels, −1 … 1
  ssim: jax.Array  # (N,) structural similarity, at most 1


def reconstruction_error(
  x: jax.Array,
  reconstruction: jax.Array,
  *,
  data_range: float | jax.Array | None = None,
  window: int = WINDOW,
) -> ReconstructionError:
  """The relative error of each reconstruction, and its likeness.

  Args:
    x: pictures (N, ...); integers are taken as float32.
    reconstruction: their reconstructions, of the same shape.
    data_range: of :func:`ssim`; by default 1 for floats, and for integers all
      that their type can hold.
    window: of :func:`ssim`.

  Returns:
    Raw error: 0 is perfect, 1 is what a black picture gets. The fitted one
    hides a wrong amplitude and never exceeds 1; the correlation hides a wrong
    amplitude and a wrong mean. NaN where it is not defined: errors of a black
    picture, correlations of a constant one, structural similarity where the
    window does not fit or x are not (N, H, W, C).

  Raises:
    MetricError: if the shapes differ.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> x = jnp.linspace(0, 1, 121).reshape(1, 11, 11, 1)
    >>> error = metrics.reconstruction_error(x, 3 * x)
    >>> [round(float(e[0]), 3) for e in error]
    [2.0, 0.0, 1.0, 0.361]
  """
  if jnp.shape(x) != jnp.shape(reconstruction):
    raise MetricError(
      f'x has shape {jnp.shape(x)}, but its reconstruction'
      f' {jnp.shape(reconstruction)}.'
    )
  check_window(window)
  likeness = _likeness(x, reconstruction, data_range, window)
  x, r = _rows(x), _rows(reconstruction)
  norm = jnp.linalg.norm(x, axis=1)
  energy = jnp.sum(r * r, axis=1)
  scale = jnp.sum(x * r, axis=1) / jnp.where(energy > 0, energy, 1)
  error = lambda r: jnp.where(
    norm > 0, jnp.linalg.norm(r - x, axis=1) / norm, jnp.nan
  )
  return ReconstructionError(
    error(r), error(scale[:, None] * r), pearson(x, r), likeness
  )


def _likeness(x, reconstruction, data_range, window: int) -> jax.Array:
  x = jnp.asarray(x)
  if not fits(window, x.shape):
    return jnp.full(len(x), jnp.nan, _rows(x).dtype)
  if data_range is None:
    integers = jnp.issubdtype(x.dtype, jnp.integer)
    limits = jnp.iinfo(x.dtype) if integers else None
    data_range = float(limits.max) - float(limits.min) if limits else 1.0
  return ssim(x, reconstruction, data_range=data_range, window=window)


def _rows(pictures: jax.Array) -> jax.Array:
  """(N, numbers) of float32 at least: differences of uint8 would wrap."""
  rows = rows_of(jnp.asarray(pictures))
  return rows.astype(wide(rows.dtype))
