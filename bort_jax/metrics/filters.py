"""Separable filters of pictures, as products with band matrices."""

import jax
import jax.numpy as jnp
import numpy as np


def band(kernel: np.ndarray, side: int) -> np.ndarray:
  """(side, side) correlation with an odd kernel, zero beyond the ends."""
  offsets = np.arange(side)[None] - np.arange(side)[:, None] + len(kernel) // 2
  inside = (offsets >= 0) & (offsets < len(kernel))
  return np.where(inside, kernel[np.clip(offsets, 0, len(kernel) - 1)], 0)


def valid_band(kernel: np.ndarray, side: int) -> np.ndarray:
  """The rows of the band in which the whole kernel lies within."""
  reach = len(kernel) // 2
  return band(kernel, side)[reach : side - reach]


def filtered(x: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
  """Pictures (N, H, W, C) filtered along rows and columns, at full precision.

  Args:
    x: pictures.
    rows: (h, H), a product with it filters along the height.
    columns: (w, W), along the width.

  Returns:
    (N, h, w, C).
  """
  return jnp.einsum(
    'hi,wj,nijc->nhwc',
    jnp.asarray(rows, x.dtype),
    jnp.asarray(columns, x.dtype),
    x,
    precision='highest',
  )
