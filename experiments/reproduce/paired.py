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

  def text(self, strict: 'Difference') -> str:
    """For a table; bold if the interval of the strict one excludes zero."""
    if not np.isfinite(self.half):
      return f'{self.mean:+.2f}'
    text = f'{self.mean:+.2f} ± {self.half:.2f}'
    return f'**{text}**' if strict.excludes_zero else text


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
