r"""Glass boxes beside trained networks, on MNIST and Fashion-MNIST.

What glass boxes (``bort_jax.nn.glassbox``) reach with each representation and
classifier, on upright and on turned test pictures, with raw pixels as control;
and how separable and how equivariant every layer is of glass boxes, of a small
network in AlexNet's manner and of ResNet-8, untrained and trained with AdamW
and with Bort; and glass boxes on features of the former. Writes tables, numbers
and figures into ``glassbox/``. What is done is kept in ``--work-dir`` and not
done again. From the project's root:

    apt-get install dataset-fashion-mnist
    python experiments/reproduce/glassbox.py --seeds 3 --network-seeds 3 \
      --data-dir DIR
"""

import dataclasses
import functools
import itertools
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import glassbox_tables as tables
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from glassbox_data import TASKS, drawn, load, turned
from glassbox_models import REPRESENTATIONS, measured
from glassbox_networks import (
  BOXES,
  LAYERS,
  ON_FEATURES,
  of_box,
  of_boxes_on,
  of_network,
)

from bort_jax import plots, symmetry
from bort_jax.train import load_dataset

FOLDER = pathlib.Path(__file__).parent / 'glassbox'
# What the numbers of a job depend on, beside its name.
_RULING = ('train', 'test', 'components', 'pictures', 'split', 'epochs')


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is measured, and with what."""

  data_dir: pathlib.Path | None = None
  """TFDS directory that has mnist."""
  fashion_dir: pathlib.Path = pathlib.Path('/usr/share/datasets/fashion-mnist')
  """Directory of Fashion-MNIST's idx files; left out if it is not there."""
  work_dir: pathlib.Path = pathlib.Path('runs/glassbox')
  """Where finished parts and runs are kept."""
  seeds: int = 1
  """Draws of pictures for glass boxes."""
  network_seeds: int = 1
  """Trainings of the networks, and draws for the boxes beside them."""
  train: int = 500
  """Training pictures of a glass box for two classes; twice as many for ten."""
  test: int = 500
  """Test pictures of it."""
  components: int = 40
  """Of the PCA."""
  pictures: int = 400
  """Test pictures that layers are judged on."""
  split: str = 'train[:10%]'
  """Part of MNIST that networks are trained on."""
  epochs: int = 3
  """Passes of the networks over it."""
  networks: tuple[str, ...] = tuple(LAYERS)
  """Which networks are trained."""


def main(settings: tyro.conf.OmitArgPrefixes[Settings]) -> None:
  """Measures, and writes what was found."""
  FOLDER.mkdir(exist_ok=True)
  settings.work_dir.mkdir(parents=True, exist_ok=True)
  names = dict.fromkeys(task.data for task in TASKS)
  sets = {
    name: load(name, settings.data_dir, settings.fashion_dir) for name in names
  }
  for name in [name for name, dataset in sets.items() if dataset is None]:
    print(f'{name} is not at {settings.fashion_dir}: left out.')
  found: dict[str, tables.Rows] = {}
  for name, job in jobs(settings, sets):
    for kind, rows in kept(settings, name, job).items():
      found.setdefault(kind, []).extend(rows)
  for kind, rows in found.items():
    tables.write_csv(FOLDER / f'{kind}.csv', rows)
  tables.write_json(FOLDER / 'results.json', about(settings), found)
  write_tables(settings, found)
  draw()


def jobs(settings: Settings, sets):
  """Names of what is to be measured, and functions that do, seed by seed."""
  for seed in range(settings.seeds):
    yield from box_jobs(settings, sets, seed)
  for seed in range(settings.network_seeds):
    yield from layer_jobs(settings, sets['mnist'], seed)


def box_jobs(settings: Settings, sets, seed: int):
  """Accuracy and separability of glass boxes."""

  def measure(task, name):
    count = settings.train * (2 if len(task.classes) > 2 else 1)
    train, test = drawn(sets[task.data], task, count, settings.test, seed)
    representation, components = REPRESENTATIONS[name], settings.components
    return measured(task, train, test, name, representation, components, seed)

  for task, name in itertools.product(TASKS, REPRESENTATIONS):
    if sets[task.data] is not None:
      job = functools.partial(measure, task, name)
      yield f'{task.name}, {name}, {seed}', job


def layer_jobs(settings: Settings, mnist, seed: int):
  """Separability and equivariance of layers."""
  count, pictures = 2 * settings.train, settings.pictures
  for name in BOXES:
    job = functools.partial(of_box, name, seed, mnist, pictures, count)
    yield f'layers of {name}, {seed}', job
  for model in settings.networks:
    training = {
      'run_dir': settings.work_dir / f'{model}_{seed}',
      'data': 'mnist',
      'data_dir': settings.data_dir,
      'train_split': settings.split,
      'epochs': settings.epochs,
    }
    job = functools.partial(
      of_network, model, seed, mnist, pictures, **training
    )
    yield f'layers of {model}, {seed}', job
    if model in ON_FEATURES:
      counts = 2 * settings.train, settings.test
      where = model, seed, mnist, counts, settings.components
      job = functools.partial(of_boxes_on, *where, **training)
      yield f'boxes on {model}, {seed}', job


def about(settings: Settings) -> dict[str, Any]:
  """The settings that numbers depend on."""
  return {field: getattr(settings, field) for field in _RULING}


def kept(settings: Settings, name: str, job: Callable[[], Any]) -> Any:
  """What a job found, from an earlier run if its settings were the same."""
  file = name.replace('/', ' ').replace(' ', '_') + '.json'
  path = settings.work_dir / file
  if path.exists():
    stored = json.loads(path.read_text())
    if stored['settings'] == about(settings):
      return stored['found']
  found = job()
  print(name, flush=True)
  scratch = path.with_suffix('.tmp')
  scratch.write_text(json.dumps({'settings': about(settings), 'found': found}))
  scratch.rename(path)
  return found


def write_tables(settings: Settings, found: dict[str, tables.Rows]) -> None:
  """Writes table.md."""
  accuracy, separability = found['accuracy'], found['separability']
  text = ['# Accuracy\n']
  for task in dict.fromkeys(row['task'] for row in accuracy):
    for how in ('upright', 'quarter turns', 'any angle'):
      text += [f'## {task}: test pictures {how}\n']
      text += [tables.accuracy_table(accuracy, task, how)]
  text += ['# CPU seconds to fit (LDA)\n']
  timed = [row for row in accuracy if row['classifier'] == 'lda']
  timed = [row for row in timed if 'fit CPU seconds' in row]
  by = ('task', 'representation')
  text += [tables.table(timed, by, ['fit CPU seconds'])]
  measures = ['intra', 'inter', 'ratio', 'fisher', 'silhouette']
  text += ['# Separability of glass boxes, upright test pictures\n']
  text += [
    tables.table(separability, ('task', 'representation', 'layer'), measures)
  ]
  by = ('network', 'arm', 'layer')
  layers = found['layers']
  text += ['# Layers on MNIST: separability\n']
  text += [tables.table(layers, by, ['accuracy', *measures])]
  text += ['# Layers on MNIST: error after moves of D4\n']
  errors = ['natural', 'fitted', 'invariance', 'mixed', 'chance']
  text += [tables.table(layers, by, errors)]
  text += [
    f'Mean ± standard deviation over seeds: {settings.seeds} draws of pictures'
    f' for glass boxes, {settings.network_seeds} for layers and trainings (one'
    f' has no spread). Glass boxes: {settings.train} training pictures for'
    f' two classes, twice that for ten, {settings.test} test pictures,'
    f' {settings.components} components. Networks: MNIST {settings.split},'
    f' {settings.epochs} epochs, accuracy on all test pictures; layers on the'
    f' first {settings.pictures} test pictures, errors as means over the seven'
    ' moves that are not the identity, every second picture measured. CPU'
    ' seconds: of the second fit, all three layers, summed over all cores;'
    f' what else runs on the machine is not in them, and parts kept from before'
    f' they were measured have none. jax {jax.__version__} on'
    f' {jax.devices()[0].device_kind} ({os.cpu_count()} cores).\n'
  ]
  (FOLDER / 'table.md').write_text('\n'.join(text))
  print(f'{FOLDER / "table.md"} is written.')


def draw() -> None:
  """Draws digits taken apart, and turned as those of the tests are."""
  x = jnp.asarray(load_dataset('digits').test_images[:4] / np.float32(255))
  figure = plots.symmetry_components(np.asarray(x), symmetry.D4)
  figure.savefig(FOLDER / 'components.png', dpi=70)
  columns = {how: np.asarray(a) for how, a in turned(x, 0).items()}
  plots.picture_grid(columns).savefig(FOLDER / 'turned.png', dpi=70)


if __name__ == '__main__':
  tyro.cli(main)
