"""Half of a Gram matrix is enough: by blocks, beside the whole at once.

A Gram matrix equals its adjoint, so its upper half says all. Computed in blocks
by halving its side, level by level, the products shrink to 3/4, 5/8 … of the
whole one's, and the correction's two products to 7/8, 13/16 …. Contestants take
turns on each shape of the kernels of ResNet-50 with a side of 128 or more; each
time is the median of several; the last row is of all kernels together. From the
project's root:

    python experiments/benchmarks/gram.py
"""

import json
import pathlib
import statistics
from collections import Counter
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import tyro
import update
from contestants import Contestant, machine, take_turns

LEVELS = (0, 1, 2)
SMALLEST = 128


def main(repeats: int = 15) -> None:
  """Times every shape.

  Args:
    repeats: calls of each contestant.
  """
  sizes = Counter(
    (min(view.num_out, view.num_in), max(view.num_out, view.num_in))
    for view in update.kernels('resnet50').values()
  )
  rows = [
    {'size': (m, n), 'kernels': number, 'ms': timed(m, n, repeats)}
    for (m, n), number in sorted(sizes.items())
    if m >= SMALLEST
  ]
  total: list[float] = [
    sum(row['kernels'] * row['ms'][level] for row in rows) for level in LEVELS
  ]
  lines = [
    '| m × n | kernels | whole, ms | 1 level | 2 levels | 1 / whole |'
    ' 2 / whole |',
    '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
    *(
      f'| {row["size"][0]} × {row["size"][1]} | {row["kernels"]} |'
      f' {cells(row["ms"])}'
      for row in rows
    ),
    f'| all | {sum(row["kernels"] for row in rows)} | {cells(total)}',
    '',
    f'Predicted, if all products ran at one rate: 0.75 and 0.625. {machine()}.',
  ]
  print('\n'.join(lines))
  path = pathlib.Path(__file__).with_suffix('.json')
  found = {'rows': rows, 'total_ms': total, 'machine': machine()}
  path.write_text(json.dumps(found, indent=1) + '\n')
  path.with_suffix('.md').write_text('\n'.join(lines) + '\n')


def cells(ms: list[float]) -> str:
  """Times, and ratios to the first."""
  whole, one, two = ms
  return (
    f'{whole:.2f} | {one:.2f} | {two:.2f} | {one / whole:.2f} |'
    f' {two / whole:.2f} |'
  )


def timed(m: int, n: int, repeats: int) -> list[float]:
  """Milliseconds of W Wᵀ at every level; W is stored transposed, as kernels."""
  w = jax.random.normal(jax.random.key(0), (n, m))

  def contestant(level: int) -> Contestant:
    compiled = jax.jit(partial(gram, level=level))
    return Contestant(lambda: jax.block_until_ready(compiled(w)))

  contestants: Any = {str(level): contestant(level) for level in LEVELS}
  take_turns(contestants, repeats)
  return [1e3 * statistics.median(c.seconds) for c in contestants.values()]


def gram(w: jax.Array, level: int) -> jax.Array:
  """Wᵀ W, of its upper half."""
  product = partial(
    jnp.einsum, 'ab,ac->bc', precision=jax.lax.Precision.HIGHEST
  )
  if level == 0:
    return product(w, w)
  first, second = jnp.split(w, 2, axis=1)
  corner = product(first, second)
  return jnp.block(
    [
      [gram(first, level - 1), corner],
      [corner.T, gram(second, level - 1)],
    ]
  )


if __name__ == '__main__':
  tyro.cli(main)
