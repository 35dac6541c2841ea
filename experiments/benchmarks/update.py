"""One step of every optimizer on all kernels of a network, side by side.

Random kernels and gradients; the parameters change in place, as in training.
Contestants take turns in one process, the machine's float32 matmul rate among
them; each time is the median of several. With torch installed beside the
project its optimizers take part, and with a checkout of the published code
(github.com/zbr17/Bort) that code does too. From the project's root:

    python experiments/benchmarks/update.py --reference PATH

Columns: milliseconds of a step; what is added to the same optimizer without a
constraint; the multiplications and additions that the constraint needs at
least, per second of a whole step, over the matmul rate. For memory see
memory.py.
"""

import json
import math
import pathlib
import statistics
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from contestants import SIDE, Contestant, machine, matmul, take_turns
from flax import nnx
from update_torch import GAMMA, MOMENTUM, RATE, torch_contestants

from bort_jax import (
  bort_adamw,
  bort_muon,
  bort_sgd,
  keep_orthogonal,
  nn,
)
from bort_jax.matrices import MatrixView
from bort_jax.selection import matrix_views

NETWORKS = {  # name: (picture, classes)
  'resnet50': ((224, 224, 3), 1000),
  'vit_s': ((224, 224, 3), 1000),
  'simple_cnn': ((28, 28, 1), 10),
  'vgg16': ((224, 224, 3), 1000),
}
# VGG16's first dense layer weighs 0.4 GB, and takes minutes a step with Muon.
ONLY = {
  'vgg16': (
    'optax sgd',
    'bort_sgd',
    'bort_sgd, every=4',
    'torch SGD',
    'published BortS',
  )
}


def main(
  repeats: int = 9,
  networks: tuple[str, ...] = tuple(NETWORKS),
  reference: pathlib.Path | None = None,
) -> None:
  """Times every contestant.

  Args:
    repeats: steps of each; of vgg16 a third.
    networks: whose kernels; of the others the last rows are kept.
    reference: checkout of the published code.
  """
  path = pathlib.Path(__file__).with_suffix('.json')
  kept = json.loads(path.read_text()) if path.exists() else {}
  for network in networks:
    few = math.ceil(repeats / 3) if network == 'vgg16' else repeats
    kept[network] = measured(network, few, reference)
    path.write_text(json.dumps(kept, indent=1) + '\n')
  found = {name: kept[name] for name in NETWORKS if name in kept}
  path.write_text(json.dumps(found, indent=1) + '\n')
  tables = [line for name in found for line in table(name, found[name])]
  text = '\n'.join([*tables, *ratios(found)]) + '\n'
  print(text)
  path.with_suffix('.md').write_text(text)


def measured(network: str, repeats: int, reference) -> dict[str, Any]:
  """All numbers of one network."""
  views = kernels(network)
  contestants: dict[str, Contestant] = {'matmul': matmul()}
  for name, (tx, plain) in optimizers(views).items():
    if takes_part(network, name):
      contestants[name] = ours(tx, plain, views)
  contestants |= torch_contestants(
    partial(takes_part, network), views, reference
  )
  take_turns(contestants, repeats)
  medians = {n: statistics.median(c.seconds) for n, c in contestants.items()}
  rate = 2 * SIDE**3 / medians['matmul']
  work = 4 * sum(view.products for view in views.values())
  rows = []
  for name, c in contestants.items():
    row = {
      'contestant': name,
      'ms': 1e3 * medians[name],
      'spread': (max(c.seconds) - min(c.seconds)) / medians[name],
    }
    if c.plain:
      row['added_ms'] = 1e3 * (medians[name] - medians[c.plain])
      if name in ('bort_sgd', 'bort_adamw') or name.startswith('published'):
        row['share'] = work / medians[name] / rate
    rows.append(row)
  return {
    'gflop': work / 1e9,
    'gflop_per_s': rate / 1e9,
    'matrices': len(views),
    'weights_mb': 4 * sum(math.prod(v.shape) for v in views.values()) / 1e6,
    'rows': rows,
    'machine': machine(),
  }


def kernels(network: str) -> dict[str, MatrixView]:
  """How every kernel of a network is a matrix, by its path."""
  shape, classes = NETWORKS[network]
  model = nnx.eval_shape(
    lambda: nn.create(
      network, image_shape=shape, num_classes=classes, rngs=nnx.Rngs(0)
    )
  )
  return matrix_views(None, nnx.to_pure_dict(nnx.state(model, nnx.Param)))


def random_kernels(views: dict[str, MatrixView], seed: int) -> Any:
  """Entries such that rows have length one, by path."""
  rng = np.random.default_rng(seed)

  def kernel(view):
    entries = rng.standard_normal(view.shape, np.float32)
    return jnp.asarray(entries / view.num_in**0.5)

  return tree_of({path: kernel(view) for path, view in views.items()})


def tree_of(leaves: dict[str, Any]) -> dict[str, Any]:
  """Nested dicts, whose paths decide what is a matrix."""
  tree: dict[str, Any] = {}
  for path, leaf in leaves.items():
    *above, name = path.split('/')
    node = tree
    for part in above:
      node = node.setdefault(part, {})
    node[name] = leaf
  return tree


def compiled(tx, params: Any) -> Any:
  """A step that gives (state, parameters) and takes over their memory.

  They come in the order of the arguments, in which jax hands memory on: in the
  other, buffers of one shape would change places and be copied.
  """

  def step(grads, state, params):
    updates, state = tx.update(grads, state, params)
    return state, optax.apply_updates(params, updates)

  state = jax.eval_shape(tx.init, params)
  program = jax.jit(step, donate_argnums=(1, 2))
  return program.lower(params, state, params).compile()


def takes_part(network: str, contestant: str) -> bool:
  """Whether a contestant is timed on a network."""
  return network not in ONLY or contestant in ONLY[network]


def optimizers(views: dict[str, MatrixView]) -> dict[str, tuple[Any, Any]]:
  """By name: an optimizer, and the name of the same without constraint."""
  sgd = optax.sgd(RATE, MOMENTUM)
  numbers = tree_of({path: view.muon_numbers for path, view in views.items()})
  muon = optax.contrib.muon(RATE, muon_weight_dimension_numbers=numbers)
  bort = partial(bort_sgd, RATE, GAMMA, momentum=MOMENTUM)
  return {
    'optax sgd': (sgd, None),
    'optax adamw': (optax.adamw(RATE), None),
    'optax muon': (muon, None),
    'bort_sgd': (bort(), 'optax sgd'),
    'bort_adamw': (bort_adamw(RATE, GAMMA), 'optax adamw'),
    'bort_muon': (bort_muon(RATE, GAMMA), 'optax muon'),
    'bort_sgd, every=2': (bort(every=2), 'optax sgd'),
    'bort_sgd, every=4': (bort(every=4), 'optax sgd'),
    'bort_sgd, every=8': (bort(every=8), 'optax sgd'),
    'keep_orthogonal': (optax.chain(sgd, keep_orthogonal()), 'optax sgd'),
  }


def ours(tx, plain: str | None, views: dict[str, MatrixView]) -> Contestant:
  """A step of an optimizer of JAX."""
  params = random_kernels(views, 0)
  grads = _shared_gradients(views)
  program = compiled(tx, params)
  return in_place(program, grads, tx.init(params), params, plain)


def in_place(
  program: Any, grads: Any, state: Any, params: Any, plain: str | None = None
) -> Contestant:
  """Steps of a compiled program, which takes over state and parameters."""
  carry = [state, params]

  def step():
    carry[:] = jax.block_until_ready(program(grads, *carry))

  return Contestant(step, plain)


_gradients: dict[Any, Any] = {}


def _shared_gradients(views) -> Any:
  key = tuple((path, view.shape) for path, view in views.items())
  if key not in _gradients:
    _gradients.clear()
    scale = lambda x: 0.1 * x
    _gradients[key] = jax.tree.map(scale, random_kernels(views, 1))
  return _gradients[key]


def table(network: str, found: dict[str, Any]) -> list[str]:
  """The rows of one network."""
  cell = lambda row, key, form: format(row[key], form) if key in row else ''
  return [
    f'**{network}**: {found["matrices"]} matrices of {found["weights_mb"]:.0f}'
    f' MB; the constraint takes {found["gflop"]:.1f} GFLOP; float32 matmul'
    f' {found["gflop_per_s"]:.0f} GFLOP/s. {found["machine"]}.',
    '',
    '| contestant | ms | spread | added ms | share of matmul rate |',
    '| --- | ---: | ---: | ---: | ---: |',
    *(
      f'| {row["contestant"]} | {row["ms"]:.1f} | {row["spread"]:.0%} |'
      f' {cell(row, "added_ms", ".1f")} | {cell(row, "share", ".0%")} |'
      for row in found['rows']
    ),
    '',
  ]


RATIOS = (  # of times
  ('published BortS', 'bort_sgd'),
  ('published BortA', 'bort_adamw'),
  ('optax muon', 'bort_sgd'),
  ('keep_orthogonal', 'bort_sgd'),
)


def ratios(found: dict[str, Any]) -> list[str]:
  """How the contestants compare, network by network."""
  heads = [f'{a} / {b}' for a, b in RATIOS]
  lines = [
    f'| kernels of | {" | ".join(heads)} | bort_sgd, share of matmul rate |',
    '| --- |' + ' ---: |' * (len(RATIOS) + 1),
  ]
  for network, of_network in found.items():
    rows = {row['contestant']: row for row in of_network['rows']}
    cells = [
      f'{rows[a]["ms"] / rows[b]["ms"]:.1f}' if {a, b} <= {*rows} else ''
      for a, b in RATIOS
    ]
    share = f'{rows["bort_sgd"]["share"]:.0%}'
    lines.append(f'| {network} | {" | ".join(cells)} | {share} |')
  return lines


if __name__ == '__main__':
  tyro.cli(main)
