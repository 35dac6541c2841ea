"""How far reconstructions are from their pictures."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class ReconstructionError(NamedTuple):
  """Three views of one distance, a number for each picture."""

  raw: jax.Array  # (N,) norm of the difference over the norm of the picture
  scale_fitted: jax.Array  # (N,) the same after the best scale of each
  pearson: jax.Array  # (N,) correlation of the pixels, −1 … 1


def reconstruction_error(
  x: jax.Array, reconstruction: jax.Array
) -> ReconstructionError:
  """The relative error of each reconstruction, and its correlation.

  Args:
    x: pictures (N, ...); integers are taken as float32.
    reconstruction: their reconstructions, of the same shape.

  Returns:
    Raw error: 0 is perfect, 1 is what a black picture gets. The fitted one
    hides a wrong amplitude and never exceeds 1; the correlation hides a wrong
    amplitude and a wrong mean. NaN where it is not defined: errors of a black
    picture, correlations of a constant one.

  Raises:
    ValueError: if the shapes differ.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> x = jnp.arange(4.0).reshape(1, 4)
    >>> error = metrics.reconstruction_error(x, 3 * x)
    >>> [round(float(e[0]), 3) for e in error]
    [2.0, 0.0, 1.0]
  """
  if jnp.shape(x) != jnp.shape(reconstruction):
    raise ValueError(
      f'x has shape {jnp.shape(x)}, but its reconstruction'
      f' {jnp.shape(reconstruction)}.'
    )
  x, r = _rows(x), _rows(reconstruction)
  norm = jnp.linalg.norm(x, axis=1)
  energy = jnp.sum(r * r, axis=1)
  scale = jnp.sum(x * r, axis=1) / jnp.where(energy > 0, energy, 1)
  error = lambda r: jnp.where(
    norm > 0, jnp.linalg.norm(r - x, axis=1) / norm, jnp.nan
  )
  return ReconstructionError(
    error(r), error(scale[:, None] * r), _correlation(x, r)
  )


def _rows(pictures: jax.Array) -> jax.Array:
  """(N, numbers) of float32 at least: differences of uint8 would wrap."""
  pictures = jnp.asarray(pictures)
  rows = pictures.reshape(len(pictures), -1)
  return rows.astype(jnp.promote_types(rows.dtype, jnp.float32))


def _correlation(x: jax.Array, r: jax.Array) -> jax.Array:
  # by its values: the mean is rounded, so a constant less it may not be zero
  constant = (jnp.ptp(x, axis=1) == 0) | (jnp.ptp(r, axis=1) == 0)
  x, r = (a - jnp.mean(a, axis=1, keepdims=True) for a in (x, r))
  norms = jnp.linalg.norm(x, axis=1) * jnp.linalg.norm(r, axis=1)
  return jnp.where(constant, jnp.nan, jnp.sum(x * r, axis=1) / norms)
