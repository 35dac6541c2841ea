"""Statistics of a few seeds, paired."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Difference(NamedTuple):
  """Mean difference of pairs and the half width of its interval."""

  mean: float
  half: float

  @property
  def excludes_zero(self) -> bool:
    """Whether the interval does."""
    return abs(self.mean) > self.half

  def text(self, strict: 'Difference | None' = None, digits: int = 2) -> str:
    """For a table; bold if the interval of the strict one excludes zero."""
    if not np.isfinite(self.half):
      return f'{self.mean:+.{digits}f}'
    text = f'{self.mean:+.{digits}f} ± {self.half:.{digits}f}'
    return f'**{text}**' if strict and strict.excludes_zero else text


def difference(
  one: Sequence[float],
  other: Sequence[float],
  confidence: float = 0.95,
  looks: int = 1,
) -> Difference:
  """Student's interval of the mean of one − other, pair by pair.

  Args:
    one: a number for each seed.
    other: the same seeds' numbers of what it is compared with.
    confidence: of the interval.
    looks: number of differences looked at; Bonferroni's correction is for them.

  Returns:
    The difference; its half width is infinite for fewer than three pairs, and
    for pairs that all differ by the same: they tell nothing of the spread.
  """
  apart = np.subtract(one, other)
  count = len(apart)
  if count < 3 or np.ptp(apart) == 0:
    return Difference(float(apart.mean()), float('inf'))
  quantile = stats.t.ppf(1 - (1 - confidence) / 2 / looks, count - 1)
  half = quantile * apart.std(ddof=1) / np.sqrt(count)
  return Difference(float(apart.mean()), float(half))


def equivalent(
  one: Sequence[float], other: Sequence[float], margin: float
) -> bool:
  """Whether the mean difference is surely less than the margin, either way.

  Two one-sided tests at 5 %: the 90 % interval lies within the margin.
  """
  apart = difference(one, other, confidence=0.9)
  return abs(apart.mean) + apart.half < margin


def p_value(one: Sequence[float], other: Sequence[float]) -> float:
  """Of Student's paired test; NaN where :func:`difference` has no interval."""
  if not np.isfinite(difference(one, other).half):
    return float('nan')
  return float(stats.ttest_rel(one, other).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
  """P values that hold for all of them together (Holm, 1979)."""
  order = np.argsort(p_values)
  steps = np.arange(len(order), 0, -1)
  raised = np.maximum.accumulate(np.asarray(p_values)[order] * steps)
  held = np.empty(len(order))
  held[order] = np.minimum(raised, 1.0)
  return held.tolist()
