"""What is fixed about a curve before it is computed."""

from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax.metrics import conventions as conv
from bort_jax.metrics.checks import (
  check_choice,
  check_count,
  checked_attribution,
  checked_case,
)
from bort_jax.metrics.chunks import check_chunk
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.substrate import check_baseline, substrate


class Plan(NamedTuple):
  """The settings of a curve, the convention's where none were given."""

  direction: conv.Direction
  convention: conv.Convention
  score: str
  baseline: str  # in words
  ties: conv.Ties
  counts: tuple[int, ...]  # pixels changed at each point
  chunk: int | None

  @property
  def fractions(self) -> np.ndarray:
    """Of the pixels, at each point."""
    return np.array(self.counts) / self.counts[-1]


class Case(NamedTuple):
  """What a curve is computed of."""

  x: jax.Array  # (N, H, W, C)
  target: jax.Array  # (N,)
  maps: jax.Array  # (N, H, W, 1 or C)
  base: jax.Array  # (N, H, W, C) the substrate


def make_plan(
  direction: conv.Direction,
  apply_fn: Any,
  params: Any,
  x: Any,
  target: Any,
  attribution: Any,
  steps: int | None,
  pixels_per_step: int | None,
  convention: conv.Convention,
  score: str | None,
  baseline: Any,
  ties: conv.Ties | None,
  chunk: int | None,
) -> tuple[Plan, Case]:
  """Checks what :func:`bort_jax.metrics.deletion` is given, and fills in."""
  check_choice('direction', direction, get_args(conv.Direction))
  check_choice('convention', convention, get_args(conv.Convention))
  defaults = conv.DEFAULTS[convention]
  score = defaults.score if score is None else score
  ties = defaults.ties if ties is None else ties
  check_choice('score', score, ('softmax', 'logit', 'logit_ratio'))
  check_choice('ties', ties, get_args(conv.Ties))
  check_chunk(chunk)
  x, target = checked_case(apply_fn, params, x, target)
  maps = checked_attribution(attribution, x.shape)
  _, height, width, _ = x.shape
  if baseline is None:
    baseline = conv.default_substrate(convention, direction, height, width)
  check_baseline(baseline, x.shape)
  counts = _counts(steps, pixels_per_step, convention, height, width)
  words = _in_words(baseline)
  plan = Plan(direction, convention, score, words, ties, counts, chunk)
  return plan, Case(x, target, maps, substrate(baseline, x))


def _counts(
  steps: int | None,
  pixels_per_step: int | None,
  convention: conv.Convention,
  height: int,
  width: int,
) -> tuple[int, ...]:
  pixels = height * width
  if steps is not None and pixels_per_step is not None:
    raise MetricError('Give steps or pixels_per_step, not both.')
  if steps is not None:
    check_count('steps', steps, most=pixels)
    counts = conv.evenly(steps, pixels, convention)
  elif pixels_per_step is not None:
    check_count('pixels_per_step', pixels_per_step, most=pixels)
    counts = conv.every(pixels_per_step, pixels)
  else:
    counts = conv.default_counts(convention, height, width)
  return tuple(counts.tolist())


def _in_words(baseline: Any) -> str:
  if isinstance(baseline, str):
    return baseline
  if jnp.ndim(baseline) == 0 and not isinstance(baseline, jax.Array):
    return f'{float(baseline):g}'
  return 'array'
