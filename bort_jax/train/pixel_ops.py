"""The operations of RandAugment on one picture, as PIL defines them.

A picture is (H, W, C) int32 with levels 0 … 255 and one or three channels. The
arithmetic is that of PIL, in integers where PIL's is, so that the results are
the same on every device.
"""

import jax
import jax.numpy as jnp

GREY = 128  # fills what comes from outside the picture
_FIXED = 1 << 16  # one pixel in PIL's fixed-point coordinates


def luma(image: jax.Array) -> jax.Array:
  """The picture in grey, (H, W, 1); ITU-R 601, as PIL's mode L."""
  if image.shape[-1] == 1:
    return image
  weighted = image * jnp.array([[[19595, 38470, 7471]]])
  return (jnp.sum(weighted, axis=-1, keepdims=True) + (1 << 15)) >> 16


def smooth(image: jax.Array) -> jax.Array:
  """The mean over 3×3 pixels, the middle one five times; the rim as it is."""
  if min(image.shape[:2]) < 3:
    return image
  rows = image[:-2] + image[1:-1] + image[2:]
  window = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
  total = window + 4 * image[1:-1, 1:-1]
  # A quarter more, so that rounding to float32 cannot cross an integer.
  mean = jnp.floor((total + 6.75) / 13).astype(jnp.int32)
  return image.at[1:-1, 1:-1].set(mean)


def blend(
  degenerate: jax.Array, image: jax.Array, factor: jax.Array
) -> jax.Array:
  """From the degenerate picture (factor 0) to the picture (1) and beyond."""
  mixed = degenerate + factor * (image - degenerate).astype(jnp.float32)
  return jnp.clip(mixed, 0, 255).astype(jnp.int32)


def mean_grey(image: jax.Array) -> jax.Array:
  """A picture of one grey, the mean of the picture's."""
  grey = luma(image)
  mean = (2 * jnp.sum(grey) + grey.size) // (2 * grey.size)
  return jnp.full_like(image, mean)


def autocontrast(image: jax.Array) -> jax.Array:
  """Stretches the levels of each channel to 0 … 255."""
  low = jnp.min(image, axis=(0, 1), keepdims=True)
  spread = jnp.max(image, axis=(0, 1), keepdims=True) - low
  # Half a unit more, so that rounding to float32 cannot cross an integer.
  stretched = ((image - low) * 255 + 0.5) / jnp.maximum(spread, 1)
  stretched = jnp.floor(stretched).astype(jnp.int32)
  return jnp.where(spread > 0, stretched, image)


def equalize(image: jax.Array) -> jax.Array:
  """Makes the levels of each channel about equally frequent."""
  channels = jnp.broadcast_to(jnp.arange(image.shape[-1]), image.shape)
  counts = jnp.zeros((image.shape[-1], 256), jnp.int32)
  counts = counts.at[channels, image].add(1)
  below = jnp.cumsum(counts, axis=1) - counts
  brightest = jnp.max(image, axis=(0, 1))
  pixels = image.shape[0] * image.shape[1]
  # PIL leaves the brightest level out of the share of each level.
  last = jnp.take_along_axis(counts, brightest[:, None], axis=1)
  step = (pixels - last) // 255
  table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
  table = jnp.where(step > 0, table, jnp.arange(256)[None])
  return table[channels, image]


def posterize(image: jax.Array, bits: jax.Array) -> jax.Array:
  """Keeps the upper bits, 0 … 8, of each level."""
  return image >> (8 - bits) << (8 - bits)


def solarize(image: jax.Array, threshold: jax.Array) -> jax.Array:
  """Inverts the levels from the threshold, 0 … 256, up."""
  return jnp.where(image < threshold, image, 255 - image)


def affine(image: jax.Array, matrix: jax.Array) -> jax.Array:
  """Takes each pixel from where the matrix says; the nearest one.

  Args:
    image: (H, W, C) int32.
    matrix: (2, 3), rows of x and y: the pixel at (x, y), in pixels from the
      upper left corner, comes from ``matrix @ (x, y, 1)``.

  Returns:
    The picture, grey where it comes from outside.
  """
  height, width = image.shape[:2]
  start = matrix[:, 2] + (matrix[:, 0] + matrix[:, 1]) / 2  # middle of a pixel
  fixed = lambda x: jnp.floor(x * _FIXED + 0.5).astype(jnp.int32)
  steps, start = fixed(matrix[:, :2]), fixed(start)
  x, y = jnp.arange(width)[None, :], jnp.arange(height)[:, None]
  column = (start[0] + steps[0, 0] * x + steps[0, 1] * y) >> 16
  row = (start[1] + steps[1, 0] * x + steps[1, 1] * y) >> 16
  inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
  moved = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
  return jnp.where(inside[..., None], moved, GREY)


def rotation(degrees: jax.Array, height: int, width: int) -> jax.Array:
  """The matrix that turns a picture about its middle, counter-clockwise."""
  angle = jnp.deg2rad(degrees)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  x, y = width / 2, height / 2
  return jnp.array(
    [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]]
  )
