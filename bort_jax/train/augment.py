"""Random changes of pictures and labels, on the device, inside jit."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from bort_jax.train.errors import RunError
from bort_jax.train.pixel_ops import GREY
from bort_jax.train.rand_augment import MAX_MAGNITUDE, rand_augment

# What each random key of a picture is for.
_CROP, _FLIP, _RAND_AUGMENT, _CUTOUT, _MIX, EPSILON = range(6)


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Which augmentations, and how strong; by default none.

  Attributes:
    pad_crop: pixels of black around the picture, out of which one of the old
      size is cut at random; 4 for CIFAR.
    flip: whether every second picture is mirrored.
    rand_augment: operations of RandAugment on each picture, see
      :func:`bort_jax.train.rand_augment.rand_augment`.
    magnitude: their strength, 0 … 10.
    magnitude_std: standard deviation of their strength.
    cutout: side of a grey square at a random place; 16 for CIFAR-10.
    mixup: α of Mixup, which mixes two pictures and their labels by a share
      drawn from Beta(α, α); 0 is none.
    cutmix: α of CutMix, which puts a rectangle of another picture into one;
      its share of the area is drawn from Beta(α, α). With Mixup, each picture
      gets one of the two.

  Raises:
    RunError: if a number is outside its range.
  """

  pad_crop: int = 0
  flip: bool = False
  rand_augment: int = 0
  magnitude: float = 9.0
  magnitude_std: float = 0.0
  cutout: int = 0
  mixup: float = 0.0
  cutmix: float = 0.0

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if not (value >= 0 and math.isfinite(value)):
        raise RunError(f'{field.name} must be ≥ 0, got {value!r}.')
    if self.magnitude > MAX_MAGNITUDE:
      raise RunError(
        f'magnitude must be 0 … {MAX_MAGNITUDE:g}, got {self.magnitude}. A'
        ' magnitude on the scale that ends at 30 is to be divided by 3.'
      )


def augment_batch(
  recipe: Recipe,
  key: jax.Array,
  first_index: int | jax.Array,
  images: jax.Array,
) -> jax.Array:
  """Augments pictures, each by itself.

  The random numbers of a picture depend on the key and on its index alone, so
  the result does not depend on how a batch is split over devices or calls.

  Args:
    recipe: what is done; its ``mixup`` and ``cutmix`` are of
      :func:`mix_batch`.
    key: the random key of the batch.
    first_index: index of the first picture: 0 for a whole batch, and for a part
      of it, how many pictures come before.
    images: (N, H, W, C), uint8 or float in 0 … 1. RandAugment rounds floats to
      the 256 levels.

  Returns:
    (N, H, W, C) float32 in 0 … 1.

  Raises:
    ValueError: if the pictures have another rank or, for RandAugment, another
      number of channels than 1 or 3.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from bort_jax.train.augment import Recipe, augment_batch
    >>> recipe = Recipe(pad_crop=4, flip=True)
    >>> images = jnp.zeros((2, 32, 32, 3), jnp.uint8)
    >>> augment_batch(recipe, jax.random.key(0), 0, images).dtype
    dtype('float32')
  """
  if images.ndim != 4:
    raise ValueError(
      f'Pictures must be (N, H, W, C), got an array of shape {images.shape}.'
    )
  if recipe.rand_augment and images.shape[-1] not in (1, 3):
    raise ValueError(
      'RandAugment needs pictures of 1 or 3 channels, got'
      f' {images.shape[-1]}; set rand_augment=0.'
    )
  augment = jax.vmap(lambda key, image: _augment(recipe, key, image))
  return augment(picture_keys(key, first_index, len(images)), images)


def picture_keys(
  key: jax.Array, first_index: int | jax.Array, count: int
) -> jax.Array:
  """A key for each picture, from that of the batch and its index alone."""
  indices = first_index + jnp.arange(count)
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)


def _augment(recipe: Recipe, key: jax.Array, image: jax.Array) -> jax.Array:
  of = lambda use: jax.random.fold_in(key, use)
  if recipe.pad_crop:
    image = pad_crop(of(_CROP), image, recipe.pad_crop)
  if recipe.flip:
    image = flip(of(_FLIP), image)
  if recipe.rand_augment:
    image = rand_augment(
      of(_RAND_AUGMENT),
      _to_levels(image),
      layers=recipe.rand_augment,
      magnitude=recipe.magnitude,
      magnitude_std=recipe.magnitude_std,
    )
  image = _to_float(image)
  if recipe.cutout:
    image = cutout(of(_CUTOUT), image, recipe.cutout)
  return image


def _to_levels(image: jax.Array) -> jax.Array:
  if jnp.issubdtype(image.dtype, jnp.floating):
    image = jnp.round(image * 255)
  return image.astype(jnp.int32)


def _to_float(image: jax.Array) -> jax.Array:
  if jnp.issubdtype(image.dtype, jnp.floating):
    return image.astype(jnp.float32)
  return image.astype(jnp.float32) / 255


def pad_crop(key: jax.Array, image: jax.Array, pixels: int) -> jax.Array:
  """Pads a picture (H, W, C) with black and cuts one of its size at random."""
  padded = jnp.pad(image, [(pixels, pixels), (pixels, pixels), (0, 0)])
  corner = _below(key, 2 * pixels + 1)
  return jax.lax.dynamic_slice(padded, (*corner, 0), image.shape)


def _below(key: jax.Array, bound: int | jax.Array) -> jax.Array:
  """Two whole numbers, 0 … bound − 1; compiles faster than randint."""
  return jnp.floor(jax.random.uniform(key, (2,)) * bound).astype(jnp.int32)


def flip(key: jax.Array, image: jax.Array) -> jax.Array:
  """Mirrors a picture (H, W, C) with probability one half."""
  return jnp.where(jax.random.uniform(key) < 0.5, image[:, ::-1], image)


def cutout(key: jax.Array, image: jax.Array, side: int) -> jax.Array:
  """Greys a square of a float picture (H, W, C).

  Its middle is any pixel with equal probability, so at the rim a part of the
  square is outside.

  References:
    DeVries and Taylor, `Improved Regularization of Convolutional Neural
    Networks with Cutout <https://arxiv.org/abs/1708.04552>`_, 2017
  """
  height, width = image.shape[:2]
  middle = _below(key, jnp.array([height, width]))
  first = middle - side // 2
  square = _rectangle(first, first + side, height, width)
  return jnp.where(square[..., None], GREY / 255, image)


def _rectangle(first, stop, height: int, width: int) -> jax.Array:
  """(H, W) bool, true from the first row and column to before the last."""
  rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
  in_rows = (rows >= first[0]) & (rows < stop[0])
  return in_rows & (columns >= first[1]) & (columns < stop[1])


def mix_batch(
  recipe: Recipe,
  key: jax.Array,
  first_index: int | jax.Array,
  images: jax.Array,
  targets: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Mixes pictures and their labels: Mixup, CutMix, or one of them for each.

  The partner of a picture is its neighbour in the batch, 0 with 1, 2 with 3,
  …, which in a shuffled batch is any other picture; so a batch split over
  devices mixes the same without communication. Each picture draws its own
  share.

  Args:
    recipe: its ``mixup`` and ``cutmix`` are used; if both are 0, nothing is
      done.
    key: the random key of the batch; it may be that of :func:`augment_batch`.
    first_index: as of :func:`augment_batch`; even.
    images: (N, H, W, C) float, N even.
    targets: (N, K) float, one-hot or soft labels.

  Returns:
    Pictures and targets, mixed in the same shares.

  Raises:
    ValueError: if the number of pictures is odd, or the targets have another
      number or rank.

  References:
    Zhang et al., `mixup: Beyond Empirical Risk Minimization
    <https://arxiv.org/abs/1710.09412>`_, 2018

    Yun et al., `CutMix: Regularization Strategy to Train Strong Classifiers
    with Localizable Features <https://arxiv.org/abs/1905.04899>`_, 2019
  """
  if len(images) % 2 or targets.ndim != 2 or len(targets) != len(images):
    raise ValueError(
      'Mixing needs an even number of pictures and as many soft labels (N, K),'
      f' got {len(images)} pictures and labels of shape {targets.shape}. Choose'
      ' an even batch size on each device, and one-hot labels.'
    )
  if not (recipe.mixup or recipe.cutmix):
    return images, targets
  height, width = images.shape[1:3]
  weigh = jax.vmap(lambda key: _weights(recipe, key, height, width))
  weights, shares = weigh(picture_keys(key, first_index, len(images)))
  weights, shares = weights[..., None], shares[:, None]
  return (
    weights * images + (1 - weights) * _partners(images),
    shares * targets + (1 - shares) * _partners(targets),
  )


def _partners(x: jax.Array) -> jax.Array:
  return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def _weights(
  recipe: Recipe, key: jax.Array, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
  """The picture's own weight at each pixel (H, W), and in its label ()."""
  draws = jax.random.uniform(jax.random.fold_in(key, _MIX), (5,))
  is_cutmix = jnp.bool_(recipe.cutmix > 0)
  if recipe.mixup and recipe.cutmix:
    is_cutmix = draws[0] < 0.5
  alpha = jnp.where(is_cutmix, recipe.cutmix, recipe.mixup)
  share = _symmetric_beta(alpha, draws[1], draws[2])
  size = jnp.array([height, width])
  sides = jnp.floor(size * jnp.sqrt(1 - share)).astype(jnp.int32)
  middle = jnp.floor(size * draws[3:]).astype(jnp.int32)
  first = middle - sides // 2
  outside = ~_rectangle(first, first + sides, height, width)
  kept = jnp.sum(outside) / (height * width)  # a part of it may be outside
  weights = jnp.where(is_cutmix, outside, share)
  return weights, jnp.where(is_cutmix, kept, share)


def _symmetric_beta(alpha: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
  """A number of Beta(α, α) from two uniform ones.

  References:
    Devroye, `Random variate generation in one line of code
    <https://doi.org/10.1145/256562.256623>`_, 1996
  """
  cosine = jnp.cos(2 * jnp.pi * v)
  # The square of a Student t of 2α degrees of freedom, over 2α.
  square = ((1 - u) ** (-1 / alpha) - 1) * cosine**2
  return 0.5 + 0.5 * jnp.sign(cosine) / jnp.sqrt(1 + 1 / square)
