"""Users' own pictures: every kind comes out as the network takes it."""

import pathlib
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from bort_jax.report import read_pictures
from bort_jax.train.errors import RunError

GREY, COLOUR = (8, 8, 1), (8, 8, 3)


@pytest.fixture
def save(tmp_path):
  def save(picture, name='picture.png', **options):
    path = tmp_path / name
    picture.save(path, **options)
    return path

  return save


def level(value):
  return pytest.approx(value, abs=2)


@pytest.mark.parametrize('shape', [GREY, COLOUR])
@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'])
def test_white_of_every_mode_is_white(save, mode, shape):
  if mode == 'I;16':
    picture = PIL.Image.fromarray(np.full((20, 30), 65535, np.uint16))
  else:
    picture = PIL.Image.new('RGB', (30, 20), 'white').convert(mode)
  found = read_pictures([save(picture)], shape)
  assert found.shape == (1, *shape)
  assert found.dtype == np.uint8
  assert np.all(found == 255)


def test_sixteen_bits_are_scaled_and_not_clipped(save):
  picture = PIL.Image.fromarray(np.full((9, 9), 257 * 100, np.uint16))
  assert np.all(read_pictures([save(picture)], GREY) == 100)


def test_cmyk_becomes_colour(save):
  red = PIL.Image.new('CMYK', (16, 16), (0, 255, 255, 0))
  found = read_pictures([save(red, 'red.jpg', quality=100)], COLOUR)
  assert found[0, 4, 4].tolist() == [level(255), level(0), level(0)]


@pytest.mark.parametrize('mode', ['RGBA', 'P'])
def test_what_is_transparent_is_white(save, mode):
  if mode == 'RGBA':
    path = save(PIL.Image.new('RGBA', (16, 16), (255, 0, 0, 0)))
  else:
    path = save(PIL.Image.new('P', (16, 16), 0), transparency=0)
  assert np.all(read_pictures([path], COLOUR) == 255)


def test_orientation_in_the_metadata_is_respected(save):
  lying = np.zeros((16, 16, 3), np.uint8)
  lying[:, :8] = 255  # white at the left
  exif = PIL.Image.Exif()
  exif[0x0112] = 6  # to be turned by 90° clockwise: left becomes top
  path = save(PIL.Image.fromarray(lying), 'turned.png', exif=exif)
  found = read_pictures([path], GREY)[0, :, :, 0]
  assert np.all(found[:3] > 250)
  assert np.all(found[-3:] < 5)


def test_the_centre_is_cut_out(save):
  wide = np.zeros((10, 30), np.uint8)
  wide[:, 10:20] = 255
  assert np.all(
    read_pictures([save(PIL.Image.fromarray(wide))], GREY)[..., 1:-1, :] > 200
  )
  tall = read_pictures([save(PIL.Image.fromarray(wide.T))], GREY)
  assert np.all(tall[:, 1:-1] > 200)


def test_a_margin_is_left_out(save):
  framed = np.full((32, 32), 255, np.uint8)
  framed[4:-4, 4:-4] = 0
  path = save(PIL.Image.fromarray(framed))
  assert read_pictures([path], GREY).max() > 200
  assert read_pictures([path], GREY, margin=0.2).max() == 0


@pytest.mark.parametrize('size', [(1, 1), (1, 400), (5, 3), (900, 7)])
def test_any_size_fits(save, size):
  found = read_pictures([save(PIL.Image.new('L', size, 77))], (6, 9, 3))
  assert found.shape == (1, 6, 9, 3)
  assert np.all(found == 77)


def bad_files(directory):
  """Files that are no pictures, by name, with what is said of them."""
  whole = directory / 'whole.png'
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  PIL.Image.fromarray(noise).save(whole)
  data = whole.read_bytes()
  files = {
    'empty.png': b'',
    'text.jpg': b'not a picture',
    'cut.png': data[: len(data) // 2],
    'broken.png': data[:40] + b'\0' * 50 + data[90:],
    'bomb.png': _png_header(60_000, 60_000),
  }
  for name, content in files.items():
    (directory / name).write_bytes(content)
  (directory / 'folder.png').mkdir()
  return [*files, 'folder.png', 'missing.png']


def _png_header(width, height):
  chunk = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  length, check = struct.pack('>I', 13), struct.pack('>I', zlib.crc32(chunk))
  return b'\x89PNG\r\n\x1a\n' + length + chunk + check


def test_ink_on_paper_becomes_light_on_dark(save):
  picture = PIL.Image.new('L', (8, 8), 'white')
  picture.putpixel((3, 2), 40)
  (found,) = read_pictures([save(picture)], GREY, invert=True)
  assert found[2, 3, 0] == 215
  assert found.sum() == 215


def test_all_bad_pictures_are_named_with_their_reasons(tmp_path):
  names = bad_files(tmp_path)
  paths = [tmp_path / name for name in names]
  with pytest.raises(RunError, match='nothing was written') as caught:
    read_pictures([tmp_path / 'whole.png', *paths], COLOUR)
  lines = str(caught.value).splitlines()
  assert 'PNG or JPEG' in lines[-1]
  assert len(lines) == 2 + len(paths)
  for path, line in zip(paths, lines[1:], strict=False):
    assert line.startswith(f'  {path}: ')
  assert 'No such file' in lines[-2]
  assert 'directory' in lines[-3]


def test_other_channels_are_refused():
  with pytest.raises(RunError, match='2 channels'):
    read_pictures([pathlib.Path('any.png')], (8, 8, 2))


def test_no_pictures_are_an_empty_batch():
  assert read_pictures([], COLOUR).shape == (0, 8, 8, 3)
