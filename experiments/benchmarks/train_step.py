"""Steps of training: ours, Flax's Linen's and PyTorch's, side by side.

Random pictures on one device, float32. Ours is the step of ``bort-jax train``,
batch transfer included, without the constraint, with it, with turns, and as a
pmap. The others have a network of the same layers and as many parameters: a
step as Flax's ImageNet example has it, decay in the loss, compiled by
``jax.jit``; and torchvision's network in channels-last memory, as it is and
compiled by ``torch.compile``, with PyTorch's fused optimizer. Convolutional
networks train by SGD with momentum, transformers by AdamW.

Contestants take turns in one process, and a product of matrices with them, for
a float32 rate; each time is the median of several. "To the product" is three
forward passes, as XLA counts their operations, over what JAX's product of
2048×2048 does in that time: no share of a peak, and PyTorch's can be above one.
From the project's root, where torch and torchvision may be missing:

    python experiments/benchmarks/train_step.py

Below is what Bort adds to a step of a larger batch, by extrapolation: the step
grows in proportion with its pictures, optimizer and constraint not at all. Once
by what update.py has kept of the update alone, that and the step each in units
of the matrix product of their own run, a unit that differs by a fifth between
runs, so without an interval; and once by the steps timed here. Every number is
of the optimizer that the network is trained by.
"""

import importlib.util
import json
import pathlib
import statistics
from functools import partial
from typing import Any

import jax
import numpy as np
import tyro
from contestants import SIDE, Contestant, machine, matmul, ratio, take_turns
from flax import nnx
from train_step_cases import CASES, Case, Step, config_of
from train_step_linen import linen_step
from train_step_ours import OURS, ours
from train_step_torch import torch_step

from bort_jax import nn
from bort_jax.train.network import make_model

LARGE = 128  # pictures in the step of which Bort's share is told
TURNS = (1, 2, 4, 8)
STEPS = {1: 'ours, Bort', 4: 'ours, Bort every=4'}


def main(repeats: int = 7, cases: tuple[str, ...] = tuple(CASES)) -> None:
  """Times every contestant.

  Args:
    repeats: steps of each.
    cases: networks; of the others the last rows are kept.
  """
  path = pathlib.Path(__file__).with_suffix('.json')
  kept = json.loads(path.read_text()) if path.exists() else {}
  for name in cases:
    kept[name] = measured(CASES[name], repeats)
  found = {name: kept[name] for name in CASES if name in kept}
  path.write_text(json.dumps(found, indent=1) + '\n')
  updates = json.loads(path.with_name('update.json').read_text())
  text = page(found, updates)
  print(text)
  path.with_suffix('.md').write_text(text)


def page(found: dict[str, Any], updates: dict[str, Any]) -> str:
  """All tables."""
  tables = [line for name in found for line in table(found[name])]
  return '\n'.join([*tables, *shares(found, updates)]) + '\n'


def measured(case: Case, repeats: int) -> dict[str, Any]:
  """All numbers of one network."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (case.batch, *case.image_shape), np.uint8)
  labels = rng.integers(0, case.num_classes, case.batch).astype(np.int32)
  steps = steps_of(case, images, labels)
  contestants = {name: Contestant(step.run) for name, step in steps.items()}
  contestants['matmul'] = matmul()
  take_turns(contestants, repeats)
  seconds = {name: c.seconds for name, c in contestants.items()}
  medians = {name: statistics.median(s) for name, s in seconds.items()}
  rate = 2 * SIDE**3 / medians['matmul']
  forward = forward_flop(case)
  return {
    **case._asdict(),
    'forward_gflop': forward / 1e9,
    'gflop_per_s': rate / 1e9,
    'matmul_seconds': medians['matmul'],
    'machine': machine(),
    'rows': [
      {
        'contestant': name,
        'parameters': step.parameters,
        'seconds': medians[name],
        'all_seconds': [round(x, 4) for x in seconds[name]],
        'pictures_per_s': case.batch / medians[name],
        'ratio': ratio(seconds[name], seconds['ours']),
        'spread': (max(seconds[name]) - min(seconds[name])) / medians[name],
        'to_product': 3 * forward * case.batch / medians[name] / rate,
      }
      for name, step in steps.items()
    ],
  }


def steps_of(case: Case, images, labels) -> dict[str, Step]:
  """All contestants."""
  steps = {
    name: ours(case, images, labels, **options)
    for name, options in OURS.items()
    if case.rivals or 'parallel' not in options
  }
  if case.rivals:
    steps['Linen'] = linen_step(case, images, labels)
    if importlib.util.find_spec('torchvision'):
      for name, compiles in (('torch', False), ('torch, compiled', True)):
        steps[name] = torch_step(case, images, labels, compiles=compiles)
  return steps


def forward_flop(case: Case) -> float:
  """Operations of a forward pass of one picture."""
  make = partial(
    make_model, config_of(case), case.image_shape, case.num_classes
  )
  model = nnx.eval_shape(make)
  model.eval()
  apply_fn, params = nn.functional(model)
  x = jax.ShapeDtypeStruct((1, *case.image_shape), 'float32')
  counted: Any = jax.jit(apply_fn).lower(params, x).cost_analysis()
  return counted['flops']


def table(found: dict[str, Any]) -> list[str]:
  """The rows of one network."""
  height, width, _ = found['image_shape']
  return [
    f'**{found["network"]}**: {found["batch"]} pictures of {height}×{width},'
    f' {found["forward_gflop"]:.2f} GFLOP forward each; float32 matmul'
    f' {found["gflop_per_s"]:.0f} GFLOP/s. {found["machine"]}.',
    '',
    '| contestant | pictures/s | spread | time / ours | 95 % interval |'
    ' to the product | parameters |',
    '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
    *(
      f'| {r["contestant"]} | {r["pictures_per_s"]:.2f} | {r["spread"]:.0%} |'
      f' {r["ratio"][0]:.3f} | {r["ratio"][1]:.3f} … {r["ratio"][2]:.3f} |'
      f' {r["to_product"]:.2f} | {r["parameters"]:,} |'
      for r in found['rows']
    ),
    '',
  ]


def shares(found: dict[str, Any], updates: dict[str, Any]) -> list[str]:
  """Bort's share of a large step, by turns."""
  lines = [
    f'What Bort adds to a step of {LARGE} pictures, extrapolated from the steps'
    ' above, by `every`.',
    '',
    '| network | optimizer | pictures timed | every | by update.md |'
    ' by the steps above | 95 % interval |',
    '| --- | --- | ---: | ---: | ---: | ---: | ---: |',
  ]
  for trained in found.values():
    name = trained['network']
    if name in updates:
      updated = updates[name]
      optimizer = config_of(CASES[name]).optimizer
      ratios = {row['contestant']: row['ratio'] for row in trained['rows']}
      small, large = steps_in_matmuls(optimizer, trained, updated)
      for every in TURNS:
        added = added_in_matmuls(f'bort_{optimizer}', every, updated)
        by_update = '' if added is None else f'{added / large:.2%}'
        line = (
          f'| {name} | bort_{optimizer} | {trained["batch"]} | {every} |'
          f' {by_update} |'
        )
        if every in STEPS:
          timed = ratios[STEPS[every]]
          median, low, high = ((r - 1) * small / large for r in timed)
          line += f' {median:.2%} | {low:.2%} … {high:.2%} |'
        else:
          line += ' | |'
        if added is not None or every in STEPS:
          lines.append(line)
  return lines


def in_matmuls(contestant: str, updated: dict[str, Any], key: str) -> Any:
  """Milliseconds of update.py over those of its matrix product, if timed."""
  rows = {row['contestant']: row for row in updated['rows']}
  product = rows['matmul']['ms']
  return rows[contestant][key] / product if contestant in rows else None


def added_in_matmuls(
  optimizer: str, every: int, updated: dict[str, Any]
) -> float | None:
  """What the constraint adds, as long as so many matrix products."""
  turns = '' if every == 1 else f', every={every}'
  return in_matmuls(optimizer + turns, updated, 'added_ms')


def steps_in_matmuls(
  optimizer: str, trained: dict[str, Any], updated: dict[str, Any]
) -> tuple[float, float]:
  """The step without constraint as timed, and that of a large batch.

  The optimizer's own work does not grow with the pictures.
  """
  (seconds,) = (
    row['seconds'] for row in trained['rows'] if row['contestant'] == 'ours'
  )
  small = seconds / trained['matmul_seconds']
  fixed = in_matmuls(f'optax {optimizer}', updated, 'ms')
  return small, (small - fixed) * LARGE / trained['batch'] + fixed


if __name__ == '__main__':
  tyro.cli(main)
