"""Where a change lies: in which frequencies, and on what of the picture."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from bort_jax.attacks.checks import check_number, check_shape
from bort_jax.attacks.errors import AttackError
from bort_jax.attacks.moves import per_picture, wide
from bort_jax.norms import linf_norm


class Share(NamedTuple):
  """A share of the energy of changes, and what it is by chance.

  Chance is white noise that is free of bounds. Where many pixels are at a bound
  noise clipped to it, measured alike, is the closer control.
  """

  share: jax.Array  # (N,) in 0 … 1; NaN for no change
  random: jax.Array  # (N,) that of white noise


def low_frequency_share(change: ArrayLike, cutoff: ArrayLike = 0.125) -> Share:
  """The share of a change's energy at low spatial frequencies.

  Energy is that of the Fourier transform over height and width, summed over
  channels; the mean (frequency 0) is included.

  Args:
    change: (N, H, W, C) floats.
    cutoff: greatest frequency √(f_y² + f_x²) that counts as low, ≥ 0, in cycles
      per pixel; by default an eighth of the sampling frequency, periods of 8
      pixels or more. No frequency is above √½.

  Returns:
    The share, and that of white noise: the share of the grid's frequencies that
    are low, close to π·cutoff² on large pictures.

  Raises:
    AttackError: if the changes are no pictures or the cutoff is negative.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import attacks
    >>> wave = jnp.cos(2 * jnp.pi * jnp.arange(16) / 16)
    >>> change = jnp.broadcast_to(wave[:, None], (1, 16, 16, 1))
    >>> low = attacks.low_frequency_share(change)
    >>> low.share.round(3), low.random.round(3)
    (Array([1.], dtype=float32), Array([0.051], dtype=float32))
  """
  change = _checked_change(change)
  check_number('cutoff', cutoff)
  n, height, width, _ = change.shape
  spectrum = jnp.fft.fft2(_of_greatest_one(change), axes=(1, 2))
  frequencies = _frequencies(height, width, change.dtype)
  rounding = 4 * jnp.finfo(change.dtype).eps  # those on the circle count
  low = frequencies <= jnp.asarray(cutoff, change.dtype) * (1 + rounding)
  return _share_within(
    jnp.square(jnp.abs(spectrum)), jnp.broadcast_to(low, (n, height, width))
  )


def object_share(change: ArrayLike, mask: ArrayLike) -> Share:
  """The share of a change's energy inside a mask.

  Args:
    change: (N, H, W, C) floats.
    mask: (N, H, W) bool: what is the object.

  Returns:
    The share, and that of white noise: the mask's share of the area.

  Raises:
    AttackError: if the changes are no pictures, or the mask is none of them.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import attacks
    >>> x = jnp.array([0.0, 0.9, 0.8, 0.0]).reshape(1, 2, 2, 1)
    >>> change = jnp.array([1.0, 1.0, 2.0, 2.0]).reshape(1, 2, 2, 1)
    >>> inside = attacks.object_share(change, attacks.foreground(x, 0.5))
    >>> inside.share, inside.random
    (Array([0.5], dtype=float32), Array([0.5], dtype=float32))
  """
  change, mask = _checked_change(change), jnp.asarray(mask)
  if mask.dtype != bool or mask.shape != change.shape[:3]:
    raise AttackError(
      f'mask must be bool of shape {change.shape[:3]}, got {mask.dtype} of'
      f' shape {mask.shape}. foreground(x, threshold) makes one.'
    )
  return _share_within(jnp.square(_of_greatest_one(change)), mask)


def foreground(x: ArrayLike, threshold: ArrayLike) -> jax.Array:
  """What is bright, of pictures on dark ground such as MNIST.

  Args:
    x: pictures (N, H, W, C).
    threshold: a pixel is bright if one of its channels is above it.

  Returns:
    (N, H, W) bool.

  Raises:
    AttackError: if x are no pictures.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import attacks
    >>> attacks.foreground(jnp.array([[[[0.2], [0.7]]]]), 0.5)
    Array([[[False,  True]]], dtype=bool)
  """
  x = jnp.asarray(x)
  check_shape('x', x)
  return jnp.any(x > threshold, axis=-1)


def _checked_change(change: ArrayLike) -> jax.Array:
  change = jnp.asarray(change)
  check_shape('change', change)
  if not jnp.issubdtype(change.dtype, jnp.floating):
    raise AttackError(f'change must be floats, got {change.dtype}.')
  return change.astype(wide(change.dtype))


def _of_greatest_one(change: jax.Array) -> jax.Array:
  """So that no square is out of range."""
  greatest = linf_norm(change)
  return change / per_picture(jnp.where(greatest > 0, greatest, 1))


def _frequencies(
  height: int, width: int, dtype: jax.typing.DTypeLike
) -> jax.Array:
  """(H, W) cycles per pixel."""
  rows, columns = np.fft.fftfreq(height), np.fft.fftfreq(width)
  return jnp.asarray(np.hypot(rows[:, None], columns[None]), dtype)


def _share_within(energy: jax.Array, mask: jax.Array) -> Share:
  """Of an energy (N, H, W, C), what is in a mask (N, H, W)."""
  by_place = jnp.sum(energy, axis=-1)
  inside = jnp.sum(jnp.where(mask, by_place, 0), axis=(1, 2))
  area = jnp.mean(mask, axis=(1, 2), dtype=energy.dtype)
  return Share(inside / jnp.sum(by_place, axis=(1, 2)), area)
