"""Iterations that a segment takes, against its condition number.

One affine segment run backwards by least squares (LSMR): square dense matrices
whose singular values are spaced evenly in the logarithm, and 3×3 convolutions
between an orthogonal one and random numbers, whose singular values come from
the whole matrix. LSMR stops when the residual or that of the normal equations
is small, each by its own measure, so what it leaves is not the tolerance.
Beside the steps is what conjugate gradients on the normal equations take at
most to the relative residual r that was reached, (κ/2)·ln(2/r). Nothing is
timed. From the project's root:

    python experiments/benchmarks/condition.py
"""

import json
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from contestants import machine

from bort_jax import inversion

SIDE, CHANNELS = 8, 4  # of the convolutions' pictures
SIZE = SIDE * SIDE * CHANNELS
CONDITIONS = (1.0, 1.1, 1.5, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)  # of random numbers in a kernel
TOLERANCE = 1e-5


def main(seeds: int = 3, pictures: int = 8) -> None:
  """Counts the iterations of every case.

  Args:
    seeds: matrices of each kind.
    pictures: undone at once; they iterate until all of them are done.
  """
  rows = [
    counted(kind, apply_fn, kernel, shape, seed, pictures)
    for seed in range(seeds)
    for kind, apply_fn, kernel, shape in cases(np.random.default_rng(seed))
  ]
  path = pathlib.Path(__file__).with_suffix('.json')
  path.write_text(json.dumps(rows, indent=1) + '\n')
  text = table(rows, pictures)
  print(text)
  path.with_suffix('.md').write_text(text)


def table(rows: list[dict[str, Any]], pictures: int) -> str:
  """All cases."""
  seeds = len({row['seed'] for row in rows})
  lines = [
    '| segment | condition number | steps | bound at that residual |'
    ' residual |',
    '| --- | ---: | ---: | ---: | ---: |',
    *map(line, by_case(rows)),
    '',
    f'{seeds} seeds: medians, and least and most steps; {pictures} pictures,'
    f' tolerance {TOLERANCE:g}. {machine()}.',
  ]
  return '\n'.join(lines) + '\n'


def cases(rng: np.random.Generator) -> Iterator[tuple[str, Callable, Any, Any]]:
  """Segments: kind, function, kernel and shape of an input."""
  left, right = (
    np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0] for _ in range(2)
  )
  for condition in CONDITIONS:
    kernel = left * np.geomspace(1, 1 / condition, SIZE) @ right
    yield f'dense, κ = {condition:g}', dense, kernel, (SIZE,)
  noise = rng.standard_normal((3, 3, CHANNELS, CHANNELS)) / 3 / CHANNELS**0.5
  orthogonal = np.zeros((3, 3, CHANNELS, CHANNELS))
  orthogonal[1, 1] = np.linalg.qr(rng.standard_normal((CHANNELS, CHANNELS)))[0]
  for share in SHARES:
    kernel = (1 - share) * orthogonal + share * noise
    shape = (SIDE, SIDE, CHANNELS)
    yield f'convolution, {share:.0%} random', convolution, kernel, shape


def dense(kernel: jax.Array, x: jax.Array) -> jax.Array:
  """A dense layer."""
  return x @ kernel


def convolution(kernel: jax.Array, x: jax.Array) -> jax.Array:
  """A convolution that keeps the shape."""
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def counted(
  kind: str, apply_fn: Callable, kernel, shape, seed: int, pictures: int
) -> dict[str, Any]:
  """A row of one segment."""
  kernel = jnp.asarray(kernel, jnp.float32)
  x = jax.random.normal(jax.random.key(seed), (pictures, *shape))
  found = inversion.invert(
    apply_fn,
    kernel,
    apply_fn(kernel, x),
    x,
    method='least_squares',
    tolerance=TOLERANCE,
    max_steps=5000,
  )
  basis = jnp.eye(SIZE).reshape(SIZE, *shape)
  matrix = np.asarray(apply_fn(kernel, basis), np.float64).reshape(SIZE, SIZE)
  values = np.linalg.svd(matrix, compute_uv=False)
  return {
    'segment': kind,
    'seed': seed,
    'condition': float(values[0] / values[-1]),
    'steps': int(found.steps),
    'residual': float(jnp.max(found.residual)),
  }


def by_case(rows: list[dict]) -> Iterator[list[dict]]:
  """The rows of each case, over the seeds."""
  for segment in dict.fromkeys(row['segment'] for row in rows):
    yield [row for row in rows if row['segment'] == segment]


def bound_of(row: dict[str, Any]) -> float:
  """Steps to the residual that was reached."""
  return row['condition'] / 2 * math.log(2 / row['residual'])


def line(rows: list[dict]) -> str:
  """A row of the table."""
  median = lambda key: float(np.median([row[key] for row in rows]))
  steps = [row['steps'] for row in rows]
  bound = float(np.median([bound_of(row) for row in rows]))
  return (
    f'| {rows[0]["segment"]} | {median("condition"):.3g} |'
    f' {median("steps"):.0f} ({min(steps)} … {max(steps)}) | {bound:.0f} |'
    f' {median("residual"):.0e} |'
  )


if __name__ == '__main__':
  tyro.cli(main)
