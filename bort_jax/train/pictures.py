"""Pictures on the host: decoded, cropped and resized by PIL."""

import io
import math
from typing import Any

import numpy as np

_AREA = (0.08, 1.0)  # of the crop, as a share of the picture
_ASPECT = (3 / 4, 4 / 3)  # width over height of the crop
_LOG_ASPECT = (math.log(_ASPECT[0]), math.log(_ASPECT[1]))
_ATTEMPTS = 10


def decode(data: bytes, channels: int) -> Any:
  """Decodes a PNG, JPEG, … to a PIL picture, whatever its colour model.

  Args:
    data: the encoded picture. CMYK, palettes and transparency become plain
      colour; an orientation in the metadata is ignored, as TFDS does.
    channels: 1 (grey) or 3 (colour).

  Returns:
    The picture.

  Raises:
    OSError: if the data is damaged.
  """
  import PIL.Image

  picture = PIL.Image.open(io.BytesIO(data))
  picture.load()
  mode = 'L' if channels == 1 else 'RGB'
  return picture if picture.mode == mode else picture.convert(mode)


def to_array(picture: Any) -> np.ndarray:
  """A PIL picture as (H, W, C) uint8."""
  array = np.asarray(picture, np.uint8)
  return array[..., None] if array.ndim == 2 else array


def random_crop_box(
  rng: np.random.Generator, width: int, height: int
) -> tuple[int, int, int, int]:
  """Draws the crop of Inception's training.

  A share of the area is drawn from 0.08 … 1, an aspect ratio from 3/4 … 4/3
  (uniform in the logarithm), and a place. After ten crops that do not fit, the
  largest central one of an allowed aspect ratio is taken.

  Args:
    rng: the random numbers.
    width: of the picture.
    height: of the picture.

  Returns:
    (left, upper, right, lower) in pixels.

  Examples:
    >>> import numpy as np
    >>> from bort_jax.train.pictures import random_crop_box
    >>> rng = np.random.default_rng(0)
    >>> left, upper, right, lower = random_crop_box(rng, 500, 375)
    >>> 0 <= left < right <= 500 and 0 <= upper < lower <= 375
    True

  References:
    Szegedy et al., `Going Deeper with Convolutions
    <https://arxiv.org/abs/1409.4842>`_, 2015
  """
  for _ in range(_ATTEMPTS):
    area = width * height * rng.uniform(*_AREA)
    aspect = math.exp(rng.uniform(*_LOG_ASPECT))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      left = int(rng.integers(width - w + 1))
      upper = int(rng.integers(height - h + 1))
      return left, upper, left + w, upper + h
  w = min(width, round(height * _ASPECT[1]))
  h = min(height, round(width / _ASPECT[0]))
  left, upper = (width - w) // 2, (height - h) // 2
  return left, upper, left + w, upper + h


def random_resized_crop(
  rng: np.random.Generator, picture: Any, size: int
) -> np.ndarray:
  """A random crop, resized to a square and mirrored every second time.

  Args:
    rng: the random numbers.
    picture: of PIL.
    size: side of the result.

  Returns:
    (size, size, C) uint8, by bilinear interpolation with antialiasing.
  """
  import PIL.Image

  # Not resize(box=…), which lets the filter reach beyond the crop.
  crop = picture.crop(random_crop_box(rng, *picture.size))
  array = to_array(crop.resize((size, size), PIL.Image.Resampling.BILINEAR))
  return array[:, ::-1] if rng.random() < 0.5 else array


def resized_center_crop(picture: Any, size: int) -> np.ndarray:
  """The centre of the picture, as networks are evaluated on ImageNet.

  The shorter side is resized to 256/224 of ``size``, and the central square is
  cut out.

  Args:
    picture: of PIL.
    size: side of the result.

  Returns:
    (size, size, C) uint8, by bilinear interpolation with antialiasing.
  """
  import PIL.Image

  shorter = round(size * 256 / 224)
  scale = shorter / min(picture.size)
  # Not rounded, but cut: the published protocol's size of the longer side.
  width, height = (max(shorter, int(side * scale)) for side in picture.size)
  resized = picture.resize((width, height), PIL.Image.Resampling.BILINEAR)
  left, upper = round((width - size) / 2), round((height - size) / 2)
  return to_array(resized.crop((left, upper, left + size, upper + size)))
