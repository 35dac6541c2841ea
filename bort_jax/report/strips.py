"""Rows of pictures, with marks where a unit looks."""

from collections.abc import Sequence

import numpy as np
import PIL.Image

from bort_jax.report.png import encode

_SIDE = 64  # up to which a picture is shown as it is
_MARK = (230, 159, 0)  # of Okabe and Ito
_PAPER = 128  # between pictures, and where there is none


def strip(pictures: Sequence[np.ndarray | None], marks: np.ndarray) -> str:
  """A row of pictures as one PNG.

  Args:
    pictures: (H, W, C) uint8 each, of one shape; None leaves a place free.
    marks: (len(pictures), 2) where the middle of a square is drawn, in shares
      of height and width; NaN draws none.

  Returns:
    The PNG in base64.

  Examples:
    >>> import numpy as np
    >>> from bort_jax.report.strips import strip
    >>> one = np.zeros((8, 8, 1), np.uint8)
    >>> strip([one, None], np.full((2, 2), np.nan))[:12]
    'iVBORw0KGgoA'
  """
  shape = next((p.shape for p in pictures if p is not None), (8, 8, 1))
  height, width = _size(shape)
  tiles = []
  for picture, mark in zip(pictures, marks, strict=True):
    tile = np.full((height, width, 3), _PAPER, np.uint8)
    if picture is not None:
      tile = _marked(_small(picture, height, width), mark)
    tiles += [tile, np.full((height, 1, 3), _PAPER, np.uint8)]
  return encode(np.concatenate(tiles[:-1], axis=1))


def _size(shape: Sequence[int]) -> tuple[int, int]:
  height, width = shape[:2]
  scale = min(1, _SIDE / max(height, width))
  return max(1, round(height * scale)), max(1, round(width * scale))


def _small(picture: np.ndarray, height: int, width: int) -> np.ndarray:
  is_grey = picture.shape[-1] == 1
  image = PIL.Image.fromarray(picture[..., 0] if is_grey else picture)
  return np.array(image.convert('RGB').resize((width, height)))


def _marked(tile: np.ndarray, mark: np.ndarray) -> np.ndarray:
  """With the frame of a square of a quarter of the height, cut at the rim."""
  if np.isnan(mark).any():
    return tile
  height, width = tile.shape[:2]
  half = max(2, height // 8)
  row, column = int(mark[0] * height), int(mark[1] * width)
  rows = np.clip([row - half, row + half], 0, height - 1)
  columns = np.clip([column - half, column + half], 0, width - 1)
  tile[rows, columns[0] : columns[1] + 1] = _MARK
  tile[rows[0] : rows[1] + 1, columns] = _MARK
  return tile
