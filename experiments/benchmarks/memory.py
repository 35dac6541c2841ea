"""Memory that a step needs beside its arguments and results, as planned.

All kernels of a network, gradients that the step itself makes, parameters and
state that change in place: as in training, without a network's own memory.
Results come in the order of the arguments, for jax to pair them with the memory
that they take over.
Columns: what XLA plans for the step; what that is more than for the same
optimizer without a constraint; and, of the latter, how much is due to the order
in which XLA's CPU compiler does things, by the same step with one kernel alone.
Nothing is run. From the project's root:

    python experiments/benchmarks/memory.py
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro
import update
from contestants import machine
from results import write_results

from bort_jax.matrices import MatrixView

NETWORKS = ('resnet50', 'vit_s', 'simple_cnn')
CONTESTANTS = (
  'optax sgd',
  'optax adamw',
  'bort_sgd',
  'bort_adamw',
  'bort_sgd, every=4',
  'keep_orthogonal',
)


def main(networks: tuple[str, ...] = NETWORKS) -> None:
  """Compiles and weighs.

  Args:
    networks: whose kernels.
  """
  rows = [row for network in networks for row in weighed(network)]
  lines = [
    '| network | contestant | planned MB | added MB | added by the largest'
    ' kernel alone, MB | largest Gram matrix and weight, MB |',
    '| --- | --- | ---: | ---: | ---: | ---: |',
    *(
      f'| {r["network"]} | {r["contestant"]} | {r["planned"] / 1e6:.1f} |'
      f' {cell(r, "added")} | {cell(r, "added_alone")} |'
      f' {r["limit"] / 1e6:.1f} |'
      for r in rows
    ),
    '',
    f'{machine()}.',
  ]
  write_results(__file__, rows, lines)


def cell(row: dict[str, Any], key: str) -> str:
  """Megabytes, or nothing."""
  return f'{row[key] / 1e6:.1f}' if key in row else ''


def weighed(network: str) -> list[dict[str, Any]]:
  """A row for each contestant."""
  views = update.kernels(network)
  path = max(views, key=lambda path: math.prod(views[path].shape))
  alone = {path: views[path]}
  limit = largest_gram(views.values()) + 4 * math.prod(views[path].shape)
  planned, planned_alone = (
    {
      name: planned_bytes(tx, kernels)
      for name, (tx, _) in update.optimizers(kernels).items()
      if name in CONTESTANTS
    }
    for kernels in (views, alone)
  )
  rows = []
  for name, (_, plain) in update.optimizers(views).items():
    if name not in CONTESTANTS:
      continue
    row = {
      'network': network,
      'contestant': name,
      'planned': planned[name],
      'limit': limit,
    }
    if plain:
      row['added'] = planned[name] - planned[plain]
      row['added_alone'] = planned_alone[name] - planned_alone[plain]
    rows.append(row)
  return rows


def largest_gram(views) -> int:
  """Bytes of the largest Gram matrix, or stack of them."""
  return 4 * max(
    math.prod(v.stack) * min(v.num_out, v.num_in) ** 2 for v in views
  )


def planned_bytes(tx, views: dict[str, MatrixView]) -> int:
  """What a compiled step needs beside arguments and results."""
  entries = lambda *shape: jax.ShapeDtypeStruct(shape, 'float32')
  params = update.tree_of({k: entries(*v.shape) for k, v in views.items()})
  factors = update.tree_of(
    {
      path: (entries(math.prod(v.shape[:-1]), 8), entries(8, v.shape[-1]))
      for path, v in views.items()
    }
  )

  def step(factors, state, params):
    grads = jax.tree.map(
      lambda w, pair: jnp.dot(*pair).reshape(w.shape), params, factors
    )
    updates, state = tx.update(grads, state, params)
    return state, optax.apply_updates(params, updates)

  state = jax.eval_shape(tx.init, params)
  program = jax.jit(step, donate_argnums=(1, 2)).lower(factors, state, params)
  analysis: Any = program.compile().memory_analysis()
  return analysis.temp_size_in_bytes


if __name__ == '__main__':
  tyro.cli(main)
