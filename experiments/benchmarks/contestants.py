"""Contestants of a benchmark, timed in turns."""

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from typing import Any

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
  """Times all, one after another and again; the first round counts not."""
  for turn in range(repeats + 1):
    for c in contestants.values():
      start = time.perf_counter()
      c.step()
      if turn:
        c.seconds.append(time.perf_counter() - start)


def machine() -> str:
  """What ran where."""
  has_torch = 'torch' in sys.modules
  torch = f', torch {sys.modules["torch"].__version__}' if has_torch else ''
  device = jax.devices()[0].device_kind
  return f'jax {jax.__version__}{torch} on {device} ({os.cpu_count()} cores)'
