"""Whether what a map adds up to is what the network loses."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.metrics.checks import (
  ApplyFn,
  check_choice,
  check_count,
  checked_attribution,
  checked_case,
  pixels_of,
  rows_of,
)
from bort_jax.metrics.chunks import check_chunk, over_pairs, within_memory
from bort_jax.metrics.correlation import pearson
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.order import least
from bort_jax.metrics.scores import Score, score_of
from bort_jax.metrics.substrate import Baseline, check_baseline, substrate

_SHARE = 0.2  # of the pixels, in a subset that is not given


class FaithfulnessCorrelation(NamedTuple):
  """The correlation, and the numbers it is of."""

  correlation: jax.Array  # (N,) Pearson's, −1 … 1
  attribution: jax.Array  # (N, R) sum of the map over each subset
  drop: jax.Array  # (N, R) by which the score falls without the subset


class _Options(NamedTuple):
  score: str
  runs: int
  subset_size: int
  chunk: int | None


def faithfulness_correlation(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  attribution: ArrayLike,
  *,
  key: jax.Array | None = None,
  runs: int = 100,
  subset_size: int | None = None,
  subsets: ArrayLike | None = None,
  baseline: Baseline = 0.0,
  score: Score = 'logit',
  chunk: int | None = None,
) -> FaithfulnessCorrelation:
  """Pearson's correlation of summed attributions and drops of the score.

  For random subsets S of the pixels: of Σ_S a and f(x) − f(x_S ← baseline).

  Args:
    apply_fn: ``apply_fn(params, x)`` returns logits (N, K), each of a picture
      alone.
    params: its parameters.
    x: pictures (N, H, W, C), floats.
    target: (N,) int.
    attribution: (N, H, W), (N, H, W, 1) or (N, H, W, C), signed.
    key: a random key for the subsets, each drawn for one picture, all of them
      as likely.
    runs: R, how many subsets are drawn.
    subset_size: pixels in each; by default a fifth of them.
    subsets: which, instead of a key: bool (N, R, H, W) of pixels with all their
      channels, or (N, R, H, W, C).
    baseline: what stands in their place, see :func:`deletion`.
    score: ``'logit'`` or ``'softmax'``.
    chunk: pictures in one pass; by default N. Results do not depend on it.

  Returns:
    The correlation, NaN where either number is the same for all subsets.

  Raises:
    MetricError: for maps of another shape, targets that do not exist, subsets
      that fit no picture, a setting that is not known, or too little memory.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> apply_fn = lambda params, x: x.reshape(len(x), -1) @ params
    >>> params = jax.random.normal(jax.random.key(0), (16, 3))
    >>> x = jax.random.uniform(jax.random.key(1), (1, 4, 4, 1))
    >>> exact = x * params[:, 2].reshape(4, 4, 1)
    >>> found = metrics.faithfulness_correlation(
    ...   apply_fn, params, x, jnp.array([2]), exact, key=jax.random.key(2)
    ... )
    >>> round(float(found.correlation[0]), 4)
    1.0

  References:
    Bhatt et al., `Evaluating and Aggregating Feature-based Model Explanations
    <https://arxiv.org/abs/2005.00631>`_, 2020, definition 4
  """
  x, target = checked_case(apply_fn, params, x, target)
  maps = checked_attribution(attribution, x.shape)
  check_choice('score', score, ('logit', 'softmax'))
  check_baseline(baseline, x.shape)
  check_chunk(chunk)
  if subsets is not None:
    subsets = _checked_subsets(subsets, x)
    runs = subsets.shape[1]
  pixels = x.shape[1] * x.shape[2]
  size = math.ceil(_SHARE * pixels) if subset_size is None else subset_size
  if (subsets is None) == (key is None):
    raise MetricError('Give a random key, or the subsets themselves.')
  check_count('runs', runs)
  check_count('subset_size', size, most=pixels)
  options = _Options(score, runs, size, chunk)
  base = substrate(baseline, x)
  given = params, x, target, maps, base, key, subsets
  return within_memory(_correlated, apply_fn, options, *given, chunk=chunk)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _correlated(
  apply_fn, options: _Options, params, x, target, maps, base, key, subsets
) -> FaithfulnessCorrelation:
  whole = score_of(apply_fn(params, x), target, options.score)

  def one(run, picture):
    if subsets is None:
      chosen = _drawn(key, run, picture, x.shape, options.subset_size)
    else:
      chosen = subsets[picture, run]
    mixed = jnp.where(chosen, base[picture], x[picture])
    score = score_of(apply_fn(params, mixed), target[picture], options.score)
    total = jnp.sum(jnp.where(chosen, maps[picture], 0), axis=(1, 2, 3))
    # in any order sums of one number are rounded otherwise
    flat = jnp.sum(chosen, axis=(1, 2, 3)) * maps[picture, 0, 0, 0]
    total = jnp.where(constant[picture], flat, total)
    return total, whole[picture] - score

  numbers = subsets is not None and subsets.shape[-1] > 1
  if not numbers:
    maps = pixels_of(maps)[..., None]
  elif maps.shape[-1] == 1:  # a map of pixels counts each once
    maps = jnp.broadcast_to(maps / x.shape[-1], x.shape)
  constant = jnp.ptp(rows_of(maps), axis=1) == 0
  totals, drops = over_pairs(one, options.runs, len(x), options.chunk)
  dtype = jnp.promote_types(totals.dtype, drops.dtype)
  correlation = pearson(totals.astype(dtype), drops.astype(dtype))
  return FaithfulnessCorrelation(correlation, totals, drops)


def _drawn(key, run, picture, shape, size: int) -> jax.Array:
  """(B, H, W, 1) so many pixels of each, the same whatever the chunk."""
  _, height, width, _ = shape

  def draw(run, picture):
    own = jax.random.fold_in(jax.random.fold_in(key, run), picture)
    return jax.random.bits(own, height * width)

  words = jax.vmap(draw)(run, picture)
  return least(words, size).reshape(-1, height, width, 1)


def _checked_subsets(subsets: ArrayLike, x: jax.Array) -> jax.Array:
  subsets = jnp.asarray(subsets)
  n, height, width, channels = x.shape
  runs = subsets.shape[1] if subsets.ndim > 1 else 'R'
  pixels, numbers = (n, runs, height, width), (n, runs, height, width, channels)
  if subsets.dtype != bool or subsets.shape not in (pixels, numbers):
    raise MetricError(
      f'subsets must be bool of shape {pixels} or {numbers}, got'
      f' {subsets.dtype} of shape {subsets.shape}.'
    )
  return subsets.reshape(*pixels, -1)
