"""How well a map foretells what perturbations do."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.metrics.checks import (
  ApplyFn,
  check_choice,
  check_count,
  check_hashable,
  checked_attribution,
  checked_case,
  wide,
)
from bort_jax.metrics.chunks import check_chunk, over_pairs, within_memory
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.scores import Score, score_of


class Infidelity(NamedTuple):
  """The mean square by which a map is wrong about perturbations."""

  value: jax.Array  # (N,) ≥ 0
  scaled: jax.Array  # (N,) the same for the best multiple of the map
  scale: jax.Array  # (N,) that multiple


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
  """Independent normal perturbations of every number.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> noise = metrics.GaussianNoise(stdev=0.1)
    >>> noise(jax.random.key(0), jnp.zeros((4, 4, 1))).shape
    (4, 4, 1)
  """

  stdev: float = 0.2

  def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
    """The perturbation of one picture (H, W, C), of its shape."""
    return self.stdev * jax.random.normal(key, x.shape, x.dtype)


@dataclasses.dataclass(frozen=True)
class SquareRemoval:
  """A square of pixels anywhere in the picture, set to a value.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> remove = metrics.SquareRemoval(size=2)
    >>> change = remove(jax.random.key(0), jnp.ones((4, 4, 1)))
    >>> float(change.sum())  # what is taken away
    4.0
  """

  size: int = 4
  baseline: float = 0.0

  def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
    """The perturbation of one picture (H, W, C), of its shape."""
    height, width, _ = x.shape
    if not 1 <= self.size <= min(height, width):
      raise MetricError(
        f'size must be 1 … {min(height, width)} for pictures of'
        f' {height}×{width}, got {self.size}.'
      )
    row_key, column_key = jax.random.split(key)
    inside = lambda key, side: self._inside(
      side, jax.random.randint(key, (), 0, side - self.size + 1)
    )
    rows, columns = inside(row_key, height), inside(column_key, width)
    square = rows[:, None, None] & columns[None, :, None]
    return jnp.where(square, x - jnp.asarray(self.baseline, x.dtype), 0)

  def _inside(self, side: int, start: jax.Array) -> jax.Array:
    places = jnp.arange(side)
    return (places >= start) & (places < start + self.size)


Perturbation = Callable[[jax.Array, jax.Array], jax.Array]


class _Options(NamedTuple):
  perturbation: Perturbation
  score: str
  samples: int
  chunk: int | None


def infidelity(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  attribution: ArrayLike,
  *,
  key: jax.Array,
  samples: int = 100,
  perturbation: Perturbation = GaussianNoise(),
  score: Score = 'logit',
  chunk: int | None = None,
) -> Infidelity:
  """E[(I·a − (f(x) − f(x − I)))²] over random perturbations I.

  Each perturbation is of the picture itself, none of what others left.

  Args:
    apply_fn: ``apply_fn(params, x)`` returns logits (N, K), each of a picture
      alone.
    params: its parameters.
    x: pictures (N, H, W, C), floats.
    target: (N,) int.
    attribution: (N, H, W, C) in units of the score per unit of x, as a gradient
      is; of (N, H, W) and (N, H, W, 1) every channel has the same.
    key: a random key.
    samples: how many perturbations of each picture, ≥ 1.
    perturbation: ``perturbation(key, x)`` of one picture (H, W, C), to an I of
      its shape; :class:`GaussianNoise` by default, or :class:`SquareRemoval`.
      It is part of what is compiled, so it needs a hash; give the same object
      again.
    score: ``'logit'`` or ``'softmax'``.
    chunk: pictures in one pass; by default N. Results do not depend on it.

  Returns:
    The infidelity, also after the best scale E[(I·a) Δ] / E[(I·a)²]; that is
    NaN where I·a is 0 throughout.

  Raises:
    MetricError: for maps of another shape, targets that do not exist,
      perturbations of another shape, a setting that is not known, or too little
      memory.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> apply_fn = lambda params, x: x.reshape(len(x), -1) @ params
    >>> params = jax.random.normal(jax.random.key(0), (16, 3))
    >>> x = jax.random.uniform(jax.random.key(1), (1, 4, 4, 1))
    >>> gradient = params[:, 2].reshape(1, 4, 4, 1)
    >>> found = metrics.infidelity(
    ...   apply_fn,
    ...   params,
    ...   x,
    ...   jnp.array([2]),
    ...   gradient / 2,
    ...   key=jax.random.key(2),
    ... )
    >>> float(found.value[0]) > 0.01, round(float(found.scale[0]), 3)
    (True, 2.0)

  References:
    Yeh et al., `On the (In)fidelity and Sensitivity of Explanations
    <https://arxiv.org/abs/1901.09392>`_, 2019, definition 2.1
  """
  x, target = checked_case(apply_fn, params, x, target)
  maps = checked_attribution(attribution, x.shape)
  check_choice('score', score, ('logit', 'softmax'))
  check_count('samples', samples)
  check_hashable('perturbation', perturbation)
  check_chunk(chunk)
  options = _Options(perturbation, score, samples, chunk)
  given = params, x, target, maps, key
  return within_memory(_infidelity, apply_fn, options, *given, chunk=chunk)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _infidelity(
  apply_fn, options: _Options, params, x, target, maps, key
) -> Infidelity:
  whole = score_of(apply_fn(params, x), target, options.score)

  def one(sample, picture):
    keys = jax.vmap(
      lambda s, p: jax.random.fold_in(jax.random.fold_in(key, s), p)
    )(sample, picture)
    change = jax.vmap(options.perturbation)(keys, x[picture])
    if change.shape != (len(picture), *x.shape[1:]):
      raise MetricError(
        f'perturbation must return the shape of a picture, {x.shape[1:]}, got'
        f' {change.shape[1:]}.'
      )
    less = x[picture] - change.astype(x.dtype)
    # what was in fact taken away: x − I is rounded
    taken = x[picture].astype(wide(x.dtype)) - less.astype(wide(x.dtype))
    foretold = jnp.sum(
      taken * jnp.broadcast_to(maps[picture], taken.shape), axis=(1, 2, 3)
    )
    score = score_of(apply_fn(params, less), target[picture], options.score)
    return foretold, whole[picture] - score

  foretold, drop = over_pairs(one, options.samples, len(x), options.chunk)
  greatest = jnp.max(jnp.abs(foretold), axis=1)
  greatest = jnp.where(greatest == 0, jnp.nan, greatest)
  unit = foretold / greatest[:, None]  # no square of it is out of range
  fitted = jnp.mean(unit * drop, axis=1) / jnp.mean(jnp.square(unit), axis=1)
  miss = lambda guess: jnp.mean(jnp.square(guess - drop), axis=1)
  return Infidelity(
    miss(foretold), miss(fitted[:, None] * unit), fitted / greatest
  )
