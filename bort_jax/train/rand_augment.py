"""RandAugment inside a jitted function."""

from functools import partial

import jax
import jax.numpy as jnp

from bort_jax.train import pixel_ops

MAX_MAGNITUDE = 10.0
OPERATIONS = (
  'identity',
  'autocontrast',
  'equalize',
  'posterize',
  'solarize',
  'brightness',
  'color',
  'contrast',
  'sharpness',
  'rotate',
  'shear_x',
  'shear_y',
  'translate_x',
  'translate_y',
)
_MAX_DEGREES = 30.0
_MAX_SHEAR = 0.3
_MAX_TRANSLATION = 0.45  # of the side
_MAX_ENHANCEMENT = 0.9
_MAX_BITS_LOST = 4
_SMALLEST = 1e-7  # of a uniform number whose normal quantile is taken


def rand_augment(
  key: jax.Array,
  image: jax.Array,
  *,
  layers: int,
  magnitude: float,
  magnitude_std: float = 0.0,
) -> jax.Array:
  """Applies operations drawn at random, one after the other, to a picture.

  Each is drawn from the fourteen published ones (``OPERATIONS``). At magnitude
  m of 10, rotation is by 3m degrees, shear by 0.03m, translation by 0.045m of
  the side, brightness, colour, contrast and sharpness by a factor 1 ± 0.09m,
  each in a random direction; posterize keeps 8 − 0.4m bits (rounded) and
  solarize inverts levels from 256 − 25.6m. Identity, autocontrast and equalize
  have no strength. So at magnitude 0 all but the latter two change nothing.
  Torchvision's scale ends at 30 instead of 10; timm's is this one, of its
  increasing operations.

  Geometric operations take the nearest pixel, and a grey one from outside, as
  published.

  Args:
    key: the random key.
    image: (H, W, C) int32, levels 0 … 255, one or three channels.
    layers: how many operations.
    magnitude: their strength, 0 … 10.
    magnitude_std: standard deviation of each operation's strength about
      ``magnitude``; what leaves 0 … 10 is clipped.

  Returns:
    The picture, as ``image``.

  References:
    Cubuk et al., `RandAugment: Practical automated data augmentation with a
    reduced search space <https://arxiv.org/abs/1909.13719>`_, 2019
  """
  # One call, for each takes a while to compile.
  draws = jax.random.uniform(key, (layers, 3), minval=_SMALLEST)
  for choice, side, quantile in draws:
    strength = magnitude + magnitude_std * jax.scipy.special.ndtri(quantile)
    image = apply_operation(
      image,
      jnp.floor(choice * len(OPERATIONS)).astype(jnp.int32),
      jnp.clip(strength, 0, MAX_MAGNITUDE) / MAX_MAGNITUDE,
      jnp.where(side < 0.5, 1.0, -1.0),
    )
  return image


def apply_operation(
  image: jax.Array, operation: jax.Array, strength: jax.Array, sign: jax.Array
) -> jax.Array:
  """Applies one operation.

  All of a kind are computed as one: the five geometric ones by one warp, the
  four enhancements by one blend. For under vmap a switch computes every branch
  for every picture.

  Args:
    image: (H, W, C) int32, levels 0 … 255.
    operation: index in ``OPERATIONS``.
    strength: 0 … 1, of the operation's largest.
    sign: ±1, the direction where there are two.

  Returns:
    The picture, as ``image``.
  """
  is_operation = lambda name: operation == OPERATIONS.index(name)
  first_enhancement, first_warp = map(
    OPERATIONS.index, ('brightness', 'rotate')
  )
  toned = image
  for name, change in (
    ('autocontrast', pixel_ops.autocontrast),
    ('equalize', pixel_ops.equalize),
    ('posterize', partial(_posterize, strength=strength)),
    ('solarize', partial(_solarize, strength=strength)),
  ):
    toned = jnp.where(is_operation(name), change(image), toned)
  return jnp.where(
    operation < first_enhancement,
    toned,
    jnp.where(
      operation < first_warp,
      _enhance(image, is_operation, sign * strength),
      _warp(image, is_operation, sign * strength),
    ),
  )


def _posterize(image, strength):
  lost = jnp.round(_MAX_BITS_LOST * strength).astype(jnp.int32)
  return pixel_ops.posterize(image, 8 - lost)


def _solarize(image, strength):
  return pixel_ops.solarize(image, 256 - jnp.floor(256 * strength))


def _enhance(image, is_operation, amount):
  degenerate = jnp.zeros_like(image)
  for name, degrade in (
    ('color', lambda x: jnp.broadcast_to(pixel_ops.luma(x), x.shape)),
    ('contrast', pixel_ops.mean_grey),
    ('sharpness', pixel_ops.smooth),
  ):
    degenerate = jnp.where(is_operation(name), degrade(image), degenerate)
  return pixel_ops.blend(degenerate, image, 1 + _MAX_ENHANCEMENT * amount)


def _warp(image, is_operation, amount):
  height, width = image.shape[:2]
  of = lambda name, value: jnp.where(is_operation(name), value, 0.0)
  degrees = of('rotate', _MAX_DEGREES * amount)
  moved = jnp.array(
    [
      [
        0.0,
        of('shear_x', _MAX_SHEAR * amount),
        of('translate_x', _MAX_TRANSLATION * width * amount),
      ],
      [
        of('shear_y', _MAX_SHEAR * amount),
        0.0,
        of('translate_y', _MAX_TRANSLATION * height * amount),
      ],
    ]
  )
  return pixel_ops.affine(
    image, pixel_ops.rotation(degrees, height, width) + moved
  )
