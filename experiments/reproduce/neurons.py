r"""Units under attack: {plain, consistent loss} × {AdamW, Bort}, three seeds.

Trains small convolutional networks on parts of MNIST and CIFAR-10, attacks each
with FGSM and PGD, and measures how consistent its units are on real and on
adversarial pictures, and how far its layers drift under their bounds. Writes
into ``neurons/``. What is there already in ``--runs`` is not done again, so the
command can be stopped and repeated. From the project's root:

    python experiments/reproduce/neurons.py --control --data-dir DIR
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from arms_kept import refuse_another
from neurons_case import BETAS, CONTROL, LAYERS, SETS, VERSION, config_of
from neurons_tables import write_tables

from bort_jax import attacks
from bort_jax.metrics import neurons
from bort_jax.report.gather import first_test_pictures
from bort_jax.report.subject import Logits, Outputs
from bort_jax.train import train
from bort_jax.train.report import Restored, restore_run
from bort_jax.train.run_dir import read_config
from bort_jax.train.step import to_unit_range

_BATCH = 250


def main(
  data: tuple[str, ...] = tuple(SETS),
  seeds: int = 3,
  pictures: int = 1000,
  count: int = 10,
  pgd_steps: int = 10,
  control: bool = False,
  runs: pathlib.Path = pathlib.Path('runs/neurons'),
  data_dir: pathlib.Path | None = None,
) -> None:
  """Trains, attacks and measures all networks.

  Args:
    data: which sets.
    seeds: how many.
    pictures: test pictures that are attacked.
    count: top pictures of each unit.
    pgd_steps: of the stronger attack, whose pictures units are judged on.
    control: whether networks are trained too on adversarial pictures without
      the consistent loss, which takes as long again.
    runs: where the runs are kept.
    data_dir: TFDS directory; by default $TFDS_DATA_DIR.
  """
  options = {'pictures': pictures, 'count': count, 'pgd_steps': pgd_steps}
  done = (runs, options, data_dir)
  losses = [loss for loss in BETAS if control or loss != CONTROL]
  rows = []
  for name in data:
    for seed in range(seeds):
      for loss in losses:
        found = rows_of_run(name, seed, loss, *done)
        setting = {'data': name, 'seed': seed, 'loss': loss}
        rows += [{**setting, **row} for row in found]
        print(*(one_line({**setting, **row}) for row in found), sep='\n')
  folder = pathlib.Path(__file__).parent / 'neurons'
  folder.mkdir(exist_ok=True)
  device = f'{jax.devices()[0].device_kind}, {os.cpu_count()} cores'
  write_tables(folder, rows, {**options, 'seeds': seeds}, device)


def rows_of_run(
  name: str,
  seed: int,
  loss: str,
  runs: pathlib.Path,
  options: Mapping[str, int],
  data_dir: pathlib.Path | None,
) -> list[dict[str, Any]]:
  """What is measured of a run, done or found done with the same settings."""
  config = config_of(runs, name, seed, loss, data_dir)
  assert config.run_dir is not None
  if (config.run_dir / 'results.json').exists():
    refuse_another(read_config(config.run_dir), config)
  else:
    train(config)
  path = config.run_dir / 'neurons.json'
  kept = json.loads(path.read_text()) if path.exists() else {}
  asked = {
    **options,
    'set': list(SETS[name]),
    'beta': BETAS[loss],
    'layers': list(LAYERS),
    'version': VERSION,
  }
  if kept.get('options') != asked:
    kept = {'options': asked, 'rows': measured_run(config, options)}
    path.write_text(json.dumps(kept))
  return kept['rows']


def measured_run(config, options: Mapping[str, int]) -> list[dict[str, Any]]:
  """What is measured of both networks of a run."""
  run = restore_run(config)
  test = first_test_pictures(run.source, options['pictures'])
  x, labels = to_unit_range(test.pixels), jnp.asarray(test.labels)
  return [
    {'network': name, **measured(run, name, x, labels, options)}
    for name in run.weights
  ]


def measured(
  run: Restored, name: str, x: jax.Array, labels: jax.Array, options
) -> dict[str, Any]:
  """Accuracies of one network, and a row for each of its layers."""
  weights, epsilon = run.weights[name], SETS[run.config.data].judged
  logits, steps = Logits(run.network), options['pgd_steps']
  batches = [slice(i, i + _BATCH) for i in range(0, len(x), _BATCH)]
  fgsm = [
    attacks.fgsm(logits, weights, x[rows], labels[rows], epsilon)
    for rows in batches
  ]
  pgd = [
    attacks.pgd(logits, weights, x[rows], labels[rows], epsilon, steps=steps)
    for rows in batches
  ]
  wrong = lambda made: np.concatenate([attack.success for attack in made])
  outputs = Outputs(run.network)
  found = neurons.survey_pairs(
    outputs,
    weights,
    (
      (x[rows], attack.x, labels[rows])
      for rows, attack in zip(batches, pgd, strict=True)
    ),
    layers=LAYERS,
    count=options['count'],
    num_classes=run.source.num_classes,
  )
  bounds = neurons.layer_bounds(outputs, weights, x[:1], LAYERS)
  near = neurons.class_affinity(run.config.data)
  summaries = neurons.summarize(found, near, bounds)
  return {
    'clean': run.evaluate(*weights)[1],
    'fgsm': float(1 - wrong(fgsm).mean()),
    'pgd': float(1 - wrong(pgd).mean()),
    'change': float(found.change.average),
    'layers': [summary._asdict() for summary in summaries],
  }


def one_line(row: Mapping[str, Any]) -> str:
  """What a reader of the log wants to know first."""
  reached = ', '.join(f'{k} {row[k]:.1%}' for k in ('clean', 'fgsm', 'pgd'))
  where = f'{row["data"]} {row["loss"]} {row["seed"]} {row["network"]}'
  return f'{where}: {reached}'


if __name__ == '__main__':
  tyro.cli(main)
