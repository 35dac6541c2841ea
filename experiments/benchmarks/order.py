"""What it costs, and saves, that few matrices are worked on at once.

Steps of optimizers on all kernels of a network, compiled with the order of
:mod:`bort_jax.few_at_once` and, its barriers left out, without, in turns in one
process. Parameters and state change in place, gradients are the caller's.
Columns: what XLA plans beside arguments and results; milliseconds; time with
the order over time without, the median of the rounds and its 95 % interval.
Rows of other versions of jax are kept. From the project's root:

    python experiments/benchmarks/order.py
"""

import contextlib
import json
import pathlib
import statistics
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import tyro
import update
from contestants import machine, ratio, take_turns
from results import write_results

NETWORKS = ('resnet50', 'vit_s', 'simple_cnn')
CONTESTANTS = ('bort_sgd', 'bort_adamw')


def main(
  repeats: int = 25,
  networks: tuple[str, ...] = NETWORKS,
  contestants: tuple[str, ...] = CONTESTANTS,
) -> None:
  """Times with and without.

  Args:
    repeats: steps of each.
    networks: whose kernels.
    contestants: names of optimizers, as in update.py.
  """
  path = pathlib.Path(__file__).with_suffix('.json')
  kept = json.loads(path.read_text()) if path.exists() else []
  rows = [r for r in kept if r['machine'] != machine()]
  for network in networks:
    rows += measured(network, contestants, repeats)
  lines = [
    '| jax | network | optimizer | planned MB without order | with |'
    ' ms without | with | with / without |',
    '| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |',
    *(
      f'| {r["jax"]} | {r["network"]} | {r["optimizer"]} |'
      f' {r["planned"][0] / 1e6:.1f} | {r["planned"][1] / 1e6:.1f} |'
      f' {r["ms"][0]:.1f} | {r["ms"][1]:.1f} |'
      f' {r["ratio"][0]:.3f} ({r["ratio"][1]:.3f} … {r["ratio"][2]:.3f}) |'
      for r in rows
    ),
    '',
    ' '.join(f'{name}.' for name in dict.fromkeys(r['machine'] for r in rows)),
  ]
  write_results(__file__, rows, lines)


def measured(
  network: str, contestants: tuple[str, ...], repeats: int
) -> list[dict[str, Any]]:
  """A row for each optimizer."""
  views = update.kernels(network)
  params = update.random_kernels(views, 0)
  grads = jax.tree.map(lambda x: 0.1 * x, update.random_kernels(views, 1))
  programs, steps = {}, {}
  for name in contestants:
    tx, _ = update.optimizers(views)[name]
    for ordered in (False, True):
      with contextlib.nullcontext() if ordered else without_order():
        program = update.compiled(tx, params)
      programs[name, ordered] = program
      own = jax.tree.map(jnp.copy, params)
      steps[name, ordered] = update.in_place(program, grads, tx.init(own), own)
  take_turns(steps, repeats)
  rows = []
  for name in contestants:
    pair = [(name, False), (name, True)]
    seconds = [steps[key].seconds for key in pair]
    rows.append(
      {
        'jax': jax.__version__,
        'network': network,
        'optimizer': name,
        'planned': [
          programs[key].memory_analysis().temp_size_in_bytes for key in pair
        ],
        'ms': [1e3 * statistics.median(s) for s in seconds],
        'ratio': ratio(seconds[1], seconds[0]),
        'machine': machine(),
      }
    )
  return rows


def without_order() -> Any:
  """Barriers let everything through."""
  return mock.patch.object(jax.lax, 'optimization_barrier', lambda x: x)


if __name__ == '__main__':
  tyro.cli(main)
