"""A deletion curve beside as many forward passes.

The network and pictures of attribution.py; ``metrics.deletion`` with 50 steps,
which needs 51 passes of the same pictures, against 51 calls of the compiled
network. Contestants take turns; the ratio is the median of those of all rounds.
From the project's root:

    python experiments/benchmarks/deletion.py
"""

import statistics
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from attribution import CLASSES, SIDE, arrays, jax_network
from contestants import Contestant, machine, ratio, take_turns
from results import write_results

from bort_jax import inversion, metrics

STEPS = 50


def main(repeats: int = 9, pictures: tuple[int, ...] = (1, 8, 64)) -> None:
  """Times every size.

  Args:
    repeats: calls of each contestant.
    pictures: sizes of the batch.
  """
  rows = [measured(count, repeats) for count in pictures]
  lines = [
    f'| pictures | {STEPS + 1} forward passes (ms) | deletion (ms) | ratio |'
    ' 95 % interval |',
    '| ---: | ---: | ---: | ---: | ---: |',
    *(
      f'| {r["pictures"]} | {r["forward_ms"]:.1f} | {r["deletion_ms"]:.1f} |'
      f' {r["ratio"][0]:.2f} | {r["ratio"][1]:.2f} … {r["ratio"][2]:.2f} |'
      for r in rows
    ),
    '',
    f'{SIDE}×{SIDE}, {STEPS} steps. {machine()}.',
  ]
  write_results(__file__, rows, lines)


def measured(count: int, repeats: int) -> dict[str, Any]:
  """The row of one batch size."""
  kernels, images = arrays(count)
  params = [jnp.asarray(kernel) for kernel in kernels]
  x = jnp.asarray(np.moveaxis(images, 1, -1))
  target = jnp.arange(count) % CLASSES
  importance = jax.random.normal(jax.random.key(0), x.shape[:3])
  apply_fn = inversion.until(jax_network, 'logits')
  forward = jax.jit(apply_fn)

  def passes():
    for _ in range(STEPS + 1):
      jax.block_until_ready(forward(params, x))

  delete = partial(
    metrics.deletion, apply_fn, params, x, target, importance, steps=STEPS
  )
  contestants = {
    'forward': Contestant(passes),
    'deletion': Contestant(lambda: jax.block_until_ready(delete())),
  }
  take_turns(contestants, repeats)
  seconds = {name: c.seconds for name, c in contestants.items()}
  return {
    'pictures': count,
    **{f'{n}_ms': 1e3 * statistics.median(s) for n, s in seconds.items()},
    'ratio': ratio(seconds['deletion'], seconds['forward']),
  }


if __name__ == '__main__':
  tyro.cli(main)
