"""Augmentations, each against PIL, numpy or the statistics it should have."""

import collections
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest
import scipy.stats
from jax.sharding import NamedSharding, PartitionSpec
from sklearn.datasets import load_sample_image

from bort_jax.train.augment import (
  Recipe,
  augment_batch,
  cutout,
  mix_batch,
  pad_crop,
)
from bort_jax.train.errors import RunError
from bort_jax.train.rand_augment import (
  OPERATIONS,
  apply_operation,
  rand_augment,
)

HEIGHT, WIDTH = 30, 37
GREY = (128, 128, 128)
augment = jax.jit(augment_batch, static_argnums=0)
mix = jax.jit(mix_batch, static_argnums=0)


def photographs(count=3):
  """Parts of a real photograph, each with an uneven range of levels."""
  photo = load_sample_image('china.jpg')[::3, ::3]
  corners = [(10 + 25 * i, 5 + 40 * i) for i in range(count)]
  return np.stack([photo[y : y + HEIGHT, x : x + WIDTH] for y, x in corners])


def warped(picture, *matrix):
  return picture.transform(
    picture.size,
    PIL.Image.Transform.AFFINE,
    matrix,
    PIL.Image.Resampling.NEAREST,
    fillcolor=GREY if picture.mode == 'RGB' else 128,
  )


def rotated(picture, degrees):
  return picture.rotate(
    degrees,
    PIL.Image.Resampling.NEAREST,
    fillcolor=GREY if picture.mode == 'RGB' else 128,
  )


def enhanced(enhancer):
  return lambda p, amount: enhancer(p).enhance(1 + 0.9 * amount)


# From a picture and the signed strength, -1 … 1, by PIL.
PIL_OPERATIONS = {
  'identity': lambda p, a: p,
  'autocontrast': lambda p, a: PIL.ImageOps.autocontrast(p),
  'equalize': lambda p, a: PIL.ImageOps.equalize(p),
  'posterize': lambda p, a: PIL.ImageOps.posterize(p, 8 - round(4 * abs(a))),
  'solarize': lambda p, a: PIL.ImageOps.solarize(p, 256 - int(256 * abs(a))),
  'brightness': enhanced(PIL.ImageEnhance.Brightness),
  'color': enhanced(PIL.ImageEnhance.Color),
  'contrast': enhanced(PIL.ImageEnhance.Contrast),
  'sharpness': enhanced(PIL.ImageEnhance.Sharpness),
  'rotate': lambda p, a: rotated(p, 30 * a),
  'shear_x': lambda p, a: warped(p, 1, 0.3 * a, 0, 0, 1, 0),
  'shear_y': lambda p, a: warped(p, 1, 0, 0, 0.3 * a, 1, 0),
  'translate_x': lambda p, a: warped(p, 1, 0, 0.45 * a * WIDTH, 0, 1, 0),
  'translate_y': lambda p, a: warped(p, 1, 0, 0, 0, 1, 0.45 * a * HEIGHT),
}
# PIL computes these in floating point and cuts: a level may fall either way.
ONE_LEVEL = ('autocontrast', 'brightness', 'color', 'contrast', 'sharpness')


def by_pil(name, image, amount):
  picture = PIL.Image.fromarray(
    image if image.shape[-1] == 3 else image[..., 0]
  )
  changed = np.asarray(PIL_OPERATIONS[name](picture, amount))
  return changed.reshape(image.shape).astype(np.int32)


@jax.jit
def ours(image, operation, amount):
  sign = jnp.where(jnp.signbit(amount), -1.0, 1.0)
  return apply_operation(image, operation, jnp.abs(amount), sign)


def test_the_operations_are_the_fourteen_published_ones():
  assert set(OPERATIONS) == set(PIL_OPERATIONS)
  assert len(OPERATIONS) == 14


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('name', OPERATIONS)
def test_each_operation_is_that_of_pil(name, channels):
  flat = np.full((HEIGHT, WIDTH, 3), 77, np.uint8)  # nothing to stretch
  few = (photographs(1)[0] // 128 * 90 + 3).astype(np.uint8)  # two levels
  for image in (*photographs(), flat, few):
    image = image[..., :channels]
    for amount in (-1.0, -0.63, -0.2, 0.1, 0.45, 0.9, 1.0):
      got = ours(image.astype(np.int32), OPERATIONS.index(name), amount)
      difference = np.abs(got - by_pil(name, image, amount))
      if name in ONE_LEVEL:
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.02
      else:
        # A coordinate on the border between two pixels may fall either way.
        assert (difference > 0).mean() < 0.002


@pytest.mark.parametrize(
  'name', [n for n in OPERATIONS if n not in ('autocontrast', 'equalize')]
)
def test_operations_of_no_strength_change_nothing(name):
  for image in photographs().astype(np.int32):
    for sign in (1.0, -1.0):
      got = ours(image, OPERATIONS.index(name), 0.0 * sign)
      np.testing.assert_array_equal(got, image)


def test_rand_augment_draws_every_operation_and_direction_equally():
  image = photographs(1)[0]
  keys = jax.random.split(jax.random.key(0), 1400)
  levels = jnp.asarray(image, jnp.int32)
  draw = lambda key: rand_augment(key, levels, layers=1, magnitude=6.0)
  results = np.asarray(jax.jit(jax.vmap(draw))(keys))
  candidates = {
    (name, sign): by_pil(name, image, 0.6 * sign)
    for name in OPERATIONS
    for sign in (-1, 1)
  }
  counts = collections.Counter()
  for result in results:
    distance = {key: np.abs(result - x).mean() for key, x in candidates.items()}
    nearest = min(distance, key=lambda key: distance[key])
    assert distance[nearest] < 0.2
    counts[nearest] += 1
  directed = [n for n in OPERATIONS if (n, 1) in counts and (n, -1) in counts]
  assert directed == list(OPERATIONS[OPERATIONS.index('brightness') :])
  of_operation = [counts[n, 1] + counts[n, -1] for n in OPERATIONS]
  assert scipy.stats.chisquare(of_operation).pvalue > 1e-3
  of_direction = [sum(counts[n, sign] for n in directed) for sign in (1, -1)]
  assert scipy.stats.chisquare(of_direction).pvalue > 1e-3


def test_rand_augment_layers_follow_one_another():
  image = photographs(1)[0]
  keys = jax.random.split(jax.random.key(1), 300)

  def changed(layers):
    draw = lambda key: rand_augment(
      key, jnp.asarray(image, jnp.int32), layers=layers, magnitude=10.0
    )
    results = np.asarray(jax.jit(jax.vmap(draw))(keys))
    return np.any(results != image, axis=(1, 2, 3)).mean()

  # All but the identity; then all but twice the identity, or so.
  once, twice = changed(1), changed(2)
  np.testing.assert_allclose(once, 13 / 14, atol=0.05)
  assert once < twice <= 1


def test_the_strength_varies_about_the_magnitude_within_its_scale():
  # Nothing but brightness makes the middle of this picture much brighter.
  image = jnp.full((20, 20, 1), 100).at[0, 0].set(0)
  keys = jax.random.split(jax.random.key(2), 4000)

  @jax.jit
  def middle(magnitude, std):
    draw = lambda key: rand_augment(
      key, image, layers=1, magnitude=magnitude, magnitude_std=std
    )
    return jax.vmap(draw)(keys)[:, 10, 10, 0]

  def strengths(magnitude, std):
    levels = np.asarray(middle(magnitude, std))
    # Brighter than 100: 100 (1 + 0.09 m).
    brighter = levels[(levels > 100) & (levels < 200)]
    return (brighter / 100 - 1) / 0.09

  assert np.ptp(strengths(5.0, 0.0)) == 0
  varied = strengths(5.0, 0.5)
  np.testing.assert_allclose(varied.mean(), 5.0, atol=0.25)
  np.testing.assert_allclose(varied.std(), 0.5, atol=0.15)
  assert strengths(9.5, 2.0).max() <= 10.01


def test_no_recipe_only_scales():
  images = photographs()
  got = augment(Recipe(), jax.random.key(0), 0, images)
  assert got.dtype == jnp.float32
  floats = images.astype(np.float32) / 255
  np.testing.assert_allclose(got, floats, rtol=1e-6)
  np.testing.assert_array_equal(
    augment(Recipe(), jax.random.key(0), 0, floats), floats
  )


@pytest.mark.parametrize(
  'recipe',
  [
    Recipe(pad_crop=3),
    Recipe(flip=True),
    Recipe(pad_crop=2, flip=True, rand_augment=1, cutout=8),
  ],
)
def test_floats_are_augmented_as_bytes_are(recipe):
  images = photographs()
  run = lambda x: augment(recipe, jax.random.key(3), 0, x)
  np.testing.assert_allclose(
    run(images), run(images.astype(np.float32) / 255), atol=1e-7
  )


def test_crops_are_windows_of_the_padded_picture_at_every_place_equally():
  image = np.arange(1, 6 * 7 + 1, dtype=np.int32).reshape(6, 7, 1)
  padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
  windows = {
    padded[i : i + 6, j : j + 7].tobytes(): (i, j)
    for i in range(5)
    for j in range(5)
  }
  keys = jax.random.split(jax.random.key(0), 2500)
  crop = jax.vmap(lambda key: pad_crop(key, jnp.asarray(image), 2))
  places = collections.Counter(
    windows[np.asarray(x).tobytes()] for x in jax.jit(crop)(keys)
  )
  assert len(places) == 25
  assert scipy.stats.chisquare(list(places.values())).pvalue > 1e-3


def test_half_of_the_pictures_are_mirrored():
  images = np.broadcast_to(photographs(1), (2000, HEIGHT, WIDTH, 3))
  got = np.asarray(augment(Recipe(flip=True), jax.random.key(0), 0, images))
  got = np.rint(got * 255)
  plain = np.all(got == images[0], axis=(1, 2, 3))
  mirrored = np.all(got == images[0, :, ::-1], axis=(1, 2, 3))
  assert np.all(plain ^ mirrored)
  assert abs(mirrored.mean() - 0.5) < 3 * 0.5 / np.sqrt(2000)


@pytest.mark.parametrize('side', [1, 4, 5])
def test_cutout_greys_a_square_about_any_pixel(side):
  image = jnp.zeros((9, 12, 2))
  keys = jax.random.split(jax.random.key(0), 3000)
  got = jax.jit(jax.vmap(lambda key: cutout(key, image, side)))(keys)
  got = np.asarray(got)
  assert set(np.unique(got)) == {0, np.float32(128 / 255)}
  np.testing.assert_array_equal(got[..., 0], got[..., 1])
  expected: dict[bytes, float] = collections.defaultdict(float)
  for y in range(9):
    for x in range(12):
      square = np.zeros((9, 12), bool)
      square[
        max(y - side // 2, 0) : y - side // 2 + side,
        max(x - side // 2, 0) : x - side // 2 + side,
      ] = True
      expected[square.tobytes()] += 3000 / 108
  seen = collections.Counter((x[..., 0] > 0).tobytes() for x in got)
  assert set(seen) == set(expected)
  counts = [seen[square] for square in expected]
  test = scipy.stats.chisquare(counts, list(expected.values()))
  assert test.pvalue > 1e-3


def constant_pictures(count, side=16):
  """Pictures whose every pixel is their index, and one-hot labels."""
  levels = np.arange(count, dtype=np.float32)[:, None, None, None]
  images = np.broadcast_to(levels, (count, side, side, 2))
  return jnp.asarray(images), jnp.eye(count)


@pytest.mark.parametrize('alpha', [0.2, 1.0, 3.0])
def test_mixup_mixes_neighbours_and_labels_by_a_beta_share(alpha):
  images, targets = constant_pictures(1000, side=2)
  x, y = mix(Recipe(mixup=alpha), jax.random.key(0), 0, images, targets)
  own = np.arange(1000)
  other = own ^ 1
  share = np.asarray(y)[own, own]
  np.testing.assert_allclose(np.asarray(y)[own, other], 1 - share, atol=1e-6)
  np.testing.assert_allclose(np.sum(y, axis=1), 1, atol=1e-6)
  expected = share * own + (1 - share) * other
  np.testing.assert_allclose(
    x, np.broadcast_to(expected[:, None, None, None], x.shape), rtol=1e-5
  )
  test: Any = scipy.stats.kstest(share, scipy.stats.beta(alpha, alpha).cdf)
  assert test.pvalue > 1e-3


def test_cutmix_shares_the_label_as_the_area_is_shared():
  images, targets = constant_pictures(600)
  x, y = mix(Recipe(cutmix=1.0), jax.random.key(0), 0, images, targets)
  x, y = np.asarray(x), np.asarray(y)
  kept = []
  for i in range(600):
    is_own = x[i, ..., 0] == i
    np.testing.assert_array_equal(x[i, ..., 1] == i, is_own)
    np.testing.assert_array_equal(x[i, ..., 0] == i ^ 1, ~is_own)
    rows, columns = (np.any(~is_own, axis=axis) for axis in (1, 0))
    # A rectangle: as many pixels as its rows times its columns.
    assert np.sum(~is_own) == np.sum(rows) * np.sum(columns)
    assert np.sum(np.diff(np.pad(rows, 1).astype(int)) == 1) <= 1
    assert y[i, i] == np.float32(is_own.sum() / 256)
    assert y[i, i ^ 1] == 1 - y[i, i]
    kept.append(y[i, i])
  simulated = [published_cutmix_share(seed) for seed in range(3000)]
  test: Any = scipy.stats.ks_2samp(kept, simulated)
  assert test.pvalue > 1e-3


def published_cutmix_share(seed, side=16):
  """The share of the area that the published algorithm leaves."""
  rng = np.random.default_rng(seed)
  cut = int(side * np.sqrt(1 - rng.beta(1.0, 1.0)))
  center = rng.integers(side, size=2)
  first = np.clip(center - cut // 2, 0, side)
  stop = np.clip(center - cut // 2 + cut, 0, side)
  return 1 - np.prod(stop - first) / side**2


def test_with_both_each_picture_gets_mixup_or_cutmix():
  images, targets = constant_pictures(400)
  recipe = Recipe(mixup=0.8, cutmix=1.0)
  x, _ = mix(recipe, jax.random.key(0), 0, images, targets)
  is_mixed = np.asarray(x)[..., 0] % 1 > 0
  mixed = np.all(is_mixed, axis=(1, 2))
  assert np.all(mixed | ~np.any(is_mixed, axis=(1, 2)))
  assert 140 < mixed.sum() < 260


def test_without_mixing_nothing_is_mixed():
  images, targets = constant_pictures(4)
  x, y = mix_batch(Recipe(), jax.random.key(0), 0, images, targets)
  assert x is images
  assert y is targets


FULL = Recipe(
  pad_crop=4, flip=True, rand_augment=2, magnitude_std=0.5, cutout=8, mixup=0.8,
  cutmix=1.0,
)  # fmt: skip


@jax.jit
def everything(first_index, images, targets):
  x = augment_batch(FULL, jax.random.key(7), first_index, images)
  return mix_batch(FULL, jax.random.key(7), first_index, x, targets)


@pytest.fixture(scope='module')
def whole():
  images, targets = photographs(4).repeat(4, axis=0), jnp.eye(16)
  return images, targets, everything(0, images, targets)


def test_pictures_that_are_alike_are_not_augmented_alike(whole):
  rows = np.asarray(whole[2][0]).reshape(16, -1)
  assert len(np.unique(rows, axis=0)) == 16


def test_two_halves_are_augmented_as_the_whole(whole):
  images, targets, expected = whole
  for i in (0, 8):
    half = everything(i, images[i : i + 8], targets[i : i + 8])
    for got, want in zip(half, expected, strict=True):
      np.testing.assert_allclose(got, want[i : i + 8], atol=1e-6)


def test_a_batch_over_eight_devices_is_augmented_as_on_one(whole):
  images, targets, expected = whole
  mesh = jax.make_mesh(
    (8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  sharding = NamedSharding(mesh, PartitionSpec('data'))
  placed = jax.device_put((images, targets), sharding)
  compiled = everything.lower(0, *placed).compile()
  for got, want in zip(compiled(0, *placed), expected, strict=True):
    np.testing.assert_allclose(got, want, atol=1e-6)
  for collective in ('all-gather', 'all-to-all', 'collective-permute'):
    assert collective not in (compiled.as_text() or collective)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'pad_crop': -1}, 'pad_crop must be ≥ 0'),
    ({'mixup': float('nan')}, 'mixup must be ≥ 0'),
    ({'magnitude': 15.0}, 'divided by 3'),
  ],
)
def test_recipes_out_of_range_are_refused(options, message):
  with pytest.raises(RunError, match=message):
    Recipe(**options)


def test_pictures_of_another_shape_are_refused():
  key = jax.random.key(0)
  with pytest.raises(ValueError, match=r'\(N, H, W, C\), got'):
    augment_batch(Recipe(), key, 0, jnp.zeros((8, 8, 3)))
  with pytest.raises(ValueError, match='1 or 3 channels, got 2'):
    augment_batch(Recipe(rand_augment=1), key, 0, jnp.zeros((1, 8, 8, 2)))


@pytest.mark.parametrize('labels', [(3, 10), (4,), (2, 10)])
def test_labels_that_cannot_be_mixed_are_refused(labels):
  images = jnp.zeros((max(labels[0], 3) if len(labels) > 1 else 4, 2, 2, 1))
  with pytest.raises(ValueError, match='even number of pictures'):
    mix_batch(
      Recipe(mixup=1.0), jax.random.key(0), 0, images, jnp.zeros(labels)
    )
