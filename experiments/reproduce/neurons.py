r"""Units under attack: {plain, consistent loss} × {AdamW, Bort}, three seeds.

Trains small convolutional networks on parts of MNIST and CIFAR-10, attacks each
with FGSM and PGD, and measures how consistent its units are on real and on
adversarial pictures, and how far its layers drift under their bounds. Writes
into ``neurons/``. What is there already in ``--runs`` is not done again, so the
command can be stopped and repeated. From the project's root:

    python experiments/reproduce/neurons.py --data-dir DIR
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
from neurons_case import BETAS, CONTROL, LAYERS, SETS, config_of
from neurons_tables import write_tables

from bort_jax import attacks
from bort_jax.metrics import neurons
from bort_jax.report.gather import first_test_pictures
from bort_jax.report.subject import Logits, Outputs
from bort_jax.train import train
from bort_jax.train.report import Restored, restore_run
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
  losses = [loss for loss in BETAS if control or loss != CONTROL]
  rows = []
  for name in data:
    for seed in range(seeds):
      for loss in losses:
        config = config_of(runs, name, seed, loss, data_dir)
        assert config.run_dir is not None
        if not (config.run_dir / 'results.json').exists():
          train(config)
        path = config.run_dir / 'neurons.json'
        kept = json.loads(path.read_text()) if path.exists() else {}
        if kept.get('options') != options:
          kept = {'options': options, 'rows': measured_run(config, options)}
          path.write_text(json.dumps(kept))
        setting = {'data': name, 'seed': seed, 'loss': loss}
        rows += [{**setting, **row} for row in kept['rows']]
        print(*(one_line({**setting, **row}) for row in kept['rows']), sep='\n')
  folder = pathlib.Path(__file__).parent / 'neurons'
  folder.mkdir(exist_ok=True)
  device = f'{jax.devices()[0].device_kind}, {os.cpu_count()} cores'
  write_tables(folder, rows, {**options, 'seeds': seeds}, device)


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
    pgd_by_steps(logits, weights, x[rows], labels[rows], epsilon, steps)
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


def pgd_by_steps(
  logits: Logits,
  weights: Any,
  x: jax.Array,
  labels: jax.Array,
  epsilon: float,
  steps: int,
) -> attacks.Attack:
  """``attacks.pgd`` with its steps one by one: on CPUs ten times as fast.

  Gradients of convolutions are slow in compiled loops there.
  """
  step = 2.5 * epsilon / steps
  made = attacks.fgsm(logits, weights, x, labels, 0.0)
  for _ in range(steps):
    made = attacks.fgsm(logits, weights, made.x, labels, step)
    made = made._replace(x=jnp.clip(made.x, x - epsilon, x + epsilon))
  return attacks.fgsm(logits, weights, made.x, labels, 0.0)


def one_line(row: Mapping[str, Any]) -> str:
  """What a reader of the log wants to know first."""
  reached = ', '.join(f'{k} {row[k]:.1%}' for k in ('clean', 'fgsm', 'pgd'))
  where = f'{row["data"]} {row["loss"]} {row["seed"]} {row["network"]}'
  return f'{where}: {reached}'


if __name__ == '__main__':
  tyro.cli(main)
