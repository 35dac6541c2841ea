"""What published tools mean by deletion and insertion."""

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Convention: TypeAlias = Literal['rise', 'xplique', 'quantus', 'logit_ratio']
Direction: TypeAlias = Literal['deletion', 'insertion']
Ties: TypeAlias = Literal['low', 'high']
First: TypeAlias = Literal['largest', 'smallest']


class Defaults(NamedTuple):
  """What a convention sets where nothing else is said."""

  score: str
  ties: Ties
  deletion: float | str  # its substrate
  insertion: float | str


DEFAULTS: dict[str, Defaults] = {
  'rise': Defaults('softmax', 'high', 0.0, 'blur'),
  'xplique': Defaults('logit', 'high', 0.0, 0.0),
  'quantus': Defaults('softmax', 'low', 'min', 'min'),
  'logit_ratio': Defaults('logit_ratio', 'high', 0.0, 'blur'),
}
_LARGE = 224  # side from which the author's settings for ImageNet hold


def default_substrate(
  convention: str, direction: str, height: int, width: int
) -> float | str:
  """The substrate of a convention for pictures of a size."""
  value = getattr(DEFAULTS[convention], direction)
  large = min(height, width) >= _LARGE
  if convention == 'logit_ratio' and value == 'blur' and large:
    return 'blur31'
  return value


def default_counts(convention: str, height: int, width: int) -> np.ndarray:
  """Numbers of pixels after each step, where nothing is said of steps."""
  pixels = height * width
  match convention:
    case 'rise':
      return every(width, pixels)
    case 'xplique':
      return evenly(min(10, pixels), pixels, convention)
    case 'quantus':
      return every(1, pixels)
  large = min(height, width) >= _LARGE
  return every(8 * width if large else 10, pixels)


def every(step: int, pixels: int) -> np.ndarray:
  """0, step, 2 step … pixels; the last step may be shorter."""
  return np.minimum(np.arange(-(-pixels // step) + 1) * step, pixels)


def evenly(steps: int, pixels: int, convention: str) -> np.ndarray:
  """Steps + 1 numbers from 0 to all pixels, rounded, or cut by Xplique."""
  exact = np.linspace(0, pixels, steps + 1)
  return (exact if convention == 'xplique' else np.round(exact)).astype(int)


def published_area(scores: jax.Array, convention: str) -> jax.Array:
  """(N,) the area as a convention's own code computes it from scores."""
  match convention:
    case 'quantus':  # without the whole picture, and steps count as 1
      return jnp.sum(_middles(scores[:, 1:]), axis=1)
    case 'logit_ratio':
      return jnp.mean(scores, axis=1)
  return jnp.mean(_middles(scores), axis=1)


def true_area(scores: jax.Array, fractions: jax.Array) -> jax.Array:
  """(N,) the area under a curve over fractions, by the trapezoid rule."""
  widths = jnp.diff(fractions).astype(scores.dtype)
  return jnp.sum(_middles(scores) * widths[None], axis=1)


def _middles(scores: jax.Array) -> jax.Array:
  return (scores[:, :-1] + scores[:, 1:]) / 2
