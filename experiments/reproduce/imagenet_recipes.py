r"""Do the ImageNet recipes run? A few hundred steps of each, on few pictures.

Trains every ``imagenet_*`` config as it stands (network, picture size,
augmentation, optimizer, constraint) but for what a CPU cannot do: batches of
four, with the learning rate scaled by as much, float32 in the place of
bfloat16, and 200 or 40 pictures seen four times. It tells whether the loss
falls and what a step costs. Accuracies of networks that saw so few mean
nothing, and none is given. Writes into ``imagenet_recipes/``. From the
project's root, on two cores an hour:

    python experiments/reproduce/imagenet_recipes.py --data-dir DIR \
      --names imagenet_resnet50 imagenet_deit_s imagenet_bcos_resnet50
    python experiments/reproduce/imagenet_recipes.py --data-dir DIR \
      --names imagenet_vgg16 --pictures 40

VGG16 has fewer pictures, since Bort takes 2 TFLOP for its first dense layer, at
every step.
"""

import dataclasses
import itertools
import json
import pathlib
import tempfile
from typing import Any

import numpy as np
import tyro
from kept_runs import KeptRuns
from runs_report import made_line, write_page

from bort_jax import configs
from bort_jax.train import TrainConfig, train
from bort_jax.train.kernels import Spread
from bort_jax.train.metrics import read_metrics

RESULTS = pathlib.Path(__file__).parent / 'imagenet_recipes'
NAMES = tuple(
  f'imagenet_{model}'
  for model in ('resnet50', 'deit_s', 'vgg16', 'bcos_resnet50')
)
_HEADER = (
  'config',
  'pictures',
  'batch',
  'steps',
  'loss, first pass',
  'last pass',
  'singular values before',
  'after',
  'seconds per step',
)

_CAVEAT = (
  'Loss of training, mean over the first and the last pass; singular values of'
  ' all kernels. The recipe as it stands, but for small batches with the'
  ' learning rate scaled by as much, float32, and few pictures seen several'
  ' times: it shows that the recipe runs and learns, and says nothing of'
  ' accuracy. Seconds include compiling.'
)


def main(
  names: tuple[str, ...] = NAMES,
  pictures: int = 200,
  epochs: int = 4,
  batch_size: int = 4,
  split: str = 'validation',
  data_dir: pathlib.Path | None = None,
) -> None:
  """Trains and tells.

  Args:
    names: of the configs.
    pictures: how many are learned.
    epochs: how often each is seen.
    batch_size: pictures per step.
    split: part of ImageNet from which they are.
    data_dir: TFDS directory; by default $TFDS_DATA_DIR.
  """
  kept = KeptRuns(RESULTS / 'runs.jsonl')
  for name in names:
    recipe = configs.load_config(name)
    small = shrunk(recipe, pictures, epochs, batch_size, split)
    facts = {'config': name, 'settings': dataclasses.asdict(small)}
    if kept.find(facts) is None:
      kept.add(facts, trained(dataclasses.replace(small, data_dir=data_dir)))
  write(kept.rows)


def shrunk(
  config: TrainConfig, pictures: int, epochs: int, batch_size: int, split: str
) -> TrainConfig:
  """A recipe, for few pictures on a CPU."""
  return dataclasses.replace(
    config,
    train_split=f'{split}[:{pictures}]',
    test_split=f'{split}[{pictures}:{pictures + 100}]',
    epochs=epochs,
    batch_size=batch_size,
    learning_rate=config.learning_rate * batch_size / config.batch_size,
    precision='float32',
    num_workers=0,
    measure_every=1,
  )


def trained(config: TrainConfig) -> dict[str, Any]:
  """What is found of a run, which is not kept."""
  with tempfile.TemporaryDirectory() as scratch:
    run_dir = pathlib.Path(scratch, 'run')
    train(dataclasses.replace(config, run_dir=run_dir))
    return found_in(run_dir)


def found_in(run_dir: pathlib.Path) -> dict[str, Any]:
  """What a run of one network wrote."""
  (result,) = [
    row
    for row in json.loads((run_dir / 'results.json').read_text())
    if row['network'] != 'untrained'
  ]
  steps, passes = read_metrics(run_dir, result['network'])
  ends = [one.step for one in passes]
  return {
    'steps': ends[-1],
    'losses': [
      float(np.mean([s.loss for s in steps if start < s.step <= end]))
      for start, end in itertools.pairwise(ends)
    ],
    'spectra': [spectrum(one.kernels) for one in (passes[0], passes[-1])],
    'seconds': result['seconds'],
  }


def spectrum(kernels: dict[str, Spread]) -> tuple[float, float]:
  """The smallest and the largest singular value of all kernels."""
  return (
    min(kernel.smallest for kernel in kernels.values()),
    max(kernel.largest for kernel in kernels.values()),
  )


def write(rows: list[dict[str, Any]]) -> None:
  """Writes table.md."""
  lines = [
    f'| {" | ".join(_HEADER)} |',
    '| --- |' + ' ---: |' * (len(_HEADER) - 1),
  ]
  for row in rows:
    found = row['found']
    settings = row['facts']['settings']
    cells = [
      row['facts']['config'],
      settings['train_split'],
      str(settings['batch_size']),
      str(found['steps']),
      f'{found["losses"][0]:.4g}',
      f'{found["losses"][-1]:.4g}',
      *('{:.2g} … {:.2g}'.format(*ends) for ends in found['spectra']),
      f'{found["seconds"] / found["steps"]:.1f}',
    ]
    lines.append(f'| {" | ".join(cells)} |')
  write_page(RESULTS, ['\n'.join(lines), _CAVEAT, made_line(rows)])


if __name__ == '__main__':
  tyro.cli(main)
