"""Contestants of a benchmark, timed in turns."""

import dataclasses
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

SIDE = 2048  # of the matrices that measure the rate


@dataclasses.dataclass
class Contestant:
  """One that is timed."""

  step: Callable[[], Any]
  plain: str | None = None  # the same without constraint
  seconds: list[float] = dataclasses.field(default_factory=list)


def matmul() -> Contestant:
  """A product of square matrices, for the rate of the machine."""
  x = jax.random.normal(jax.random.key(0), (SIDE, SIDE))
  dot = jax.jit(lambda x: jnp.dot(x, x, precision=jax.lax.Precision.HIGHEST))
  return Contestant(lambda: jax.block_until_ready(dot(x)))


def take_turns(contestants: dict[str, Contestant], repeats: int) -> None:
  """Times all in rounds, each in an order of its own; the first counts not."""
  order = random.Random(0)
  for turn in range(repeats + 1):
    for c in order.sample([*contestants.values()], len(contestants)):
      start = time.perf_counter()
      c.step()
      if turn:
        c.seconds.append(time.perf_counter() - start)


class Ratio(NamedTuple):
  """Of two contestants' times in the same round: the median of all rounds.

  The true median lies between low and high with a probability of at least 0.95
  (of order statistics, whatever the distribution), or between the extremes of
  fewer than six rounds.
  """

  median: float
  low: float
  high: float


def ratio(times: list[float], to: list[float]) -> Ratio:
  """How the times of two contestants compare."""
  ratios = sorted(a / b for a, b in zip(times, to, strict=True))
  count, tail, cut = len(ratios), 0.5 ** len(ratios), 0
  while tail <= 0.025:
    cut += 1
    tail += math.comb(count, cut) * 0.5**count
  cut = max(cut - 1, 0)
  return Ratio(statistics.median(ratios), ratios[cut], ratios[count - 1 - cut])


def machine() -> str:
  """What ran where."""
  has_torch = 'torch' in sys.modules
  torch = f', torch {sys.modules["torch"].__version__}' if has_torch else ''
  device = jax.devices()[0].device_kind
  return f'jax {jax.__version__}{torch} on {device} ({os.cpu_count()} cores)'
