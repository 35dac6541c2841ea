"""Users' own pictures, as a network takes them."""

import pathlib
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageOps

from bort_jax.train.errors import RunError
from bort_jax.train.pictures import to_array

# A 256/224th of the side is resized to, and its centre cut out: what that
# protocol of evaluation leaves of the picture at each of the four sides.
PROTOCOL_MARGIN = (1 - 224 / 256) / 2


def read_pictures(
  paths: Sequence[pathlib.Path],
  image_shape: tuple[int, int, int],
  *,
  margin: float = 0.0,
  invert: bool = False,
) -> np.ndarray:
  """Reads pictures of any size and colour model.

  The orientation in the metadata is respected. Each picture is resized, by
  bilinear interpolation with antialiasing, until it covers the network's, and
  its centre is cut out. What is transparent is shown on white; 16-bit grey is
  scaled to 8 bits; CMYK, palettes and 1-bit pictures become plain colour or
  grey, as the network takes it.

  Args:
    paths: PNG, JPEG or whatever else Pillow reads.
    image_shape: (height, width, channels) that the network takes.
    margin: share of the picture that is left out at each side first.
    invert: whether dark and light are exchanged, as a network of light digits
      on dark needs it of ink on paper.

  Returns:
    (N, H, W, C) uint8.

  Raises:
    RunError: if pictures are missing or damaged, which it names all, or the
      network takes neither one channel nor three.

  Examples:
    >>> import pathlib, tempfile
    >>> import PIL.Image
    >>> from bort_jax.report import read_pictures
    >>> with tempfile.TemporaryDirectory() as directory:
    ...   path = pathlib.Path(directory, 'red.png')
    ...   PIL.Image.new('RGB', (30, 20), 'red').save(path)
    ...   read_pictures([path], (8, 8, 3))[0, 0, 0].tolist()
    [255, 0, 0]
  """
  height, width, channels = image_shape
  if channels not in (1, 3):
    raise RunError(
      f'The network takes pictures of {channels} channels; files hold one'
      ' (grey) or three (colour). Leave out --images.'
    )
  arrays, problems = [], []
  for path in paths:
    try:
      picture = _opened(path, channels)
    except Exception as error:  # of any kind: damaged files raise all sorts
      problems.append(f'  {path}: {_reason(path, error)}')
      continue
    fitted = PIL.ImageOps.fit(
      picture, (width, height), PIL.Image.Resampling.BILINEAR, bleed=margin
    )
    array = to_array(fitted)
    arrays.append(255 - array if invert else array)
  if problems:
    raise RunError(
      'These pictures cannot be read, and nothing was written:\n'
      + '\n'.join(problems)
      + '\nGive --images the paths of PNG or JPEG files.'
    )
  return np.stack(arrays) if arrays else np.zeros((0, *image_shape), np.uint8)


def _opened(path: pathlib.Path, channels: int) -> PIL.Image.Image:
  """The picture upright, in grey or colour of 8 bits."""
  with PIL.Image.open(path) as file:
    file.load()
    picture = PIL.ImageOps.exif_transpose(file)
  if picture.mode.startswith('I'):
    picture = _from_16_bits(picture)
  if picture.mode == 'F':
    raise ValueError('it holds numbers without a range, not colours')
  if picture.has_transparency_data:
    picture = _on_white(picture)
  return picture.convert('L' if channels == 1 else 'RGB')


def _from_16_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
  """Scaled, where Pillow would clip."""
  values = np.asarray(picture, np.float64)
  if values.min() < 0 or values.max() > 65535:
    raise ValueError('it holds numbers beyond 16 bits')
  return PIL.Image.fromarray(np.round(values / 257).astype(np.uint8))


def _on_white(picture: PIL.Image.Image) -> PIL.Image.Image:
  picture = picture.convert('RGBA')
  white = PIL.Image.new('RGBA', picture.size, 'white')
  return PIL.Image.alpha_composite(white, picture)


def _reason(path: pathlib.Path, error: Exception) -> str:
  if isinstance(error, PIL.UnidentifiedImageError):
    return 'it is not a picture that Pillow can read, or is damaged.'
  if path.is_dir():
    return 'it is a directory; name the pictures in it.'
  if isinstance(error, OSError) and error.strerror:
    return f'{error.strerror}.'
  return f'{str(error).rstrip(".")}.'
