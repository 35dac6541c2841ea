"""Convolutions in loops, beside the same ones alone.

One 3×3 convolution, its transpose and its kernel's gradient, in the layouts of
Flax, PyTorch and both mixed: alone, in :func:`jax.lax.scan` and in
``bort_jax.loops.scan``. Contestants take turns; each time is per step, the
median of several. From the project's root:

    python experiments/benchmarks/loops.py
"""

import json
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from bort_jax import loops

STEPS = 6
SIDE, CHANNELS, PICTURES = 32, 64, 8
LAYOUTS = (
  ('NHWC', 'HWIO', 'NHWC'),
  ('NCHW', 'OIHW', 'NCHW'),
  ('NHWC', 'OIHW', 'NHWC'),
)


def main(repeats: int = 5) -> None:
  """Times every case.

  Args:
    repeats: calls of each contestant.
  """
  rows = []
  for layout in LAYOUTS:
    for name, function, args in cases(layout):
      contestants = {
        'alone': jax.jit(lambda *args, f=function: jnp.mean(f(*args))),
        'lax': looped(jax.lax.scan, function),
        'ours': looped(loops.scan, function),
      }
      times = timed(contestants, args, repeats)
      times = {k: t / (1 if k == 'alone' else STEPS) for k, t in times.items()}
      rows.append({'layout': ' '.join(layout), 'operation': name, **times})
      print(rows[-1], flush=True)
  lines = [
    '| layout | operation | alone (ms) | in lax.scan (ms) | in loops.scan (ms)'
    ' | lax / alone | ours / alone |',
    '| --- | --- | ---: | ---: | ---: | ---: | ---: |',
    *map(line, rows),
    '',
    f'{PICTURES} pictures of {SIDE}×{SIDE}, {CHANNELS} channels, float32,'
    f' {jax.default_backend()}, jax {jax.__version__}; per step.',
  ]
  text = '\n'.join(lines) + '\n'
  print(text)
  path = pathlib.Path(__file__).with_suffix('.json')
  path.write_text(json.dumps(rows, indent=1) + '\n', 'utf-8')
  path.with_suffix('.md').write_text(text, 'utf-8')


def line(row: dict[str, Any]) -> str:
  """A row of the table."""
  alone, lax, ours = (1e3 * row[name] for name in ('alone', 'lax', 'ours'))
  return (
    f'| {row["layout"]} | {row["operation"]} | {alone:.1f} | {lax:.1f} |'
    f' {ours:.1f} | {lax / alone:.1f} | {ours / alone:.1f} |'
  )


def cases(layout: tuple[str, str, str]) -> Iterator[tuple[str, Callable, Any]]:
  """Operations, and what they take; the last of it changes in a loop."""
  sizes = {'N': PICTURES, 'H': SIDE, 'W': SIDE, 'C': CHANNELS}
  x = jax.random.normal(jax.random.key(0), [sizes[axis] for axis in layout[0]])
  sizes = {'H': 3, 'W': 3, 'I': CHANNELS, 'O': CHANNELS}
  kernel = jax.random.normal(
    jax.random.key(1), [sizes[axis] for axis in layout[1]]
  )

  def convolve(kernel, x):
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=layout
    )

  y = convolve(kernel, x)
  pull = lambda kernel, x, y: jax.vjp(convolve, kernel, x)[1](y)
  yield 'forward', convolve, (kernel, x)
  yield 'transpose', lambda kernel, y: pull(kernel, x, y)[1], (kernel, y)
  yield 'kernel gradient', lambda x, y: pull(kernel, x, y)[0], (x, y)


def looped(scan: Callable, function: Callable) -> Callable:
  """The operation several times, on numbers that depend on the last ones."""

  @jax.jit
  def run(*args):
    *fixed, moving = args

    def step(scale, _):
      mean = jnp.mean(function(*fixed, scale * moving))
      return scale + 0 * mean, mean

    return scan(step, jnp.ones(()), length=STEPS)[1]

  return run


def timed(
  contestants: dict[str, Callable], args: Any, repeats: int
) -> dict[str, float]:
  """Median seconds of each; they take turns."""
  times: dict[str, list[float]] = {name: [] for name in contestants}
  for run in contestants.values():
    jax.block_until_ready(run(*args))
  for _ in range(repeats):
    for name, run in contestants.items():
      start = time.perf_counter()
      jax.block_until_ready(run(*args))
      times[name].append(time.perf_counter() - start)
  return {name: statistics.median(found) for name, found in times.items()}


if __name__ == '__main__':
  tyro.cli(main)
