"""Pictures as text that a page can hold."""

import base64
import io

import numpy as np
import PIL.Image
from matplotlib.figure import Figure

PREFIX = 'data:image/png;base64,'
_PALETTE_FROM = 48 * 48  # pixels: below, a table of colours outweighs them


def encode(picture: np.ndarray) -> str:
  """A picture as a PNG in base64.

  Large pictures in colour are drawn with 255 colours, a third of the size.

  Args:
    picture: (H, W, C) uint8, C one or three.

  Returns:
    The text; after :data:`PREFIX` it is an address.

  Examples:
    >>> import numpy as np
    >>> from bort_jax.report.png import encode
    >>> encode(np.zeros((8, 8, 1), np.uint8))[:12]
    'iVBORw0KGgoA'
  """
  is_grey = picture.shape[-1] == 1
  image = PIL.Image.fromarray(picture[..., 0] if is_grey else picture)
  if image.mode == 'RGB' and image.width * image.height >= _PALETTE_FROM:
    image = image.quantize(255, dither=PIL.Image.Dither.NONE)
  return _encoded(image)


def encode_figure(figure: Figure, dpi: int = 110) -> str:
  """A matplotlib figure as a PNG in base64, with at most 255 colours."""
  file = io.BytesIO()
  figure.savefig(file, dpi=dpi, format='png')
  image = PIL.Image.open(file).convert('RGB')
  return _encoded(image.quantize(255, dither=PIL.Image.Dither.NONE))


def _encoded(image: PIL.Image.Image) -> str:
  file = io.BytesIO()
  image.save(file, 'PNG', optimize=True)
  return base64.b64encode(file.getvalue()).decode()
