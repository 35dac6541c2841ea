r"""Do explanations of Bort networks point better? Every method, with controls.

Trains a plain and a Bort network, and a B-cos network beside them, and judges
every attribution method on each: deletion and insertion, by probability and by
logit, less what random maps get on the same pictures; and how like the map is
to that of the network with all parameters drawn anew, beside how like it is to
that network's map of another picture. A second table has what Bort changes,
seed by seed. What runs a network backwards is left out of the B-cos network,
where it takes Gauss–Newton steps for every class. Writes CSV and table into
``saliency/DATA_MODEL/``. What is measured is kept in ``--runs`` and not
measured again. From the project's root:

    python experiments/reproduce/saliency.py --data mnist \
      --train-split 'train[:10000]' --data-dir DIR
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from arms_kept import accuracies, refuse_another
from paired import difference
from runs_report import spread, write_csv

from bort_jax import configs, metrics
from bort_jax.metrics.correlation import spearman
from bort_jax.report.gather import first_test_pictures
from bort_jax.report.method import Method
from bort_jax.report.methods import choose_methods
from bort_jax.report.own import with_own
from bort_jax.report.shown import attempt
from bort_jax.report.subject import Subject, fresh_parameters, make_subject
from bort_jax.train import TrainConfig, train
from bort_jax.train.report import Restored, restore_run
from bort_jax.train.run_dir import read_config
from bort_jax.train.step import to_unit_range

_BACKGROUND = 16  # pictures for expected gradients
_STEPS = 28
_RANDOM = 5  # maps of which the control is the mean
SCORES = ('softmax', 'logit')
_BCOS = 'mnist_bcos_resnet8'  # whose recipe the network beside them has


def main(
  config: tyro.conf.OmitArgPrefixes[TrainConfig],
  seeds: int = 3,
  bcos_seeds: int = 1,
  pictures: int = 64,
  runs: pathlib.Path = pathlib.Path('runs/saliency'),
) -> None:
  """Trains, explains and judges.

  Args:
    config: how the plain and the Bort network are trained.
    seeds: how many of the plain and the Bort network, from 0.
    bcos_seeds: how many of the B-cos network, which takes five times as long.
    pictures: number of test pictures.
    runs: where the runs are kept.
  """
  rows = []
  for settings, count in ((config, seeds), (beside(config), bcos_seeds)):
    for seed in range(count):
      run = dataclasses.replace(settings, seed=seed)
      rows += rows_of_run(run, runs, pictures)
      print(run.model, seed, len(rows), flush=True)
  folder = pathlib.Path(__file__).parent / 'saliency'
  write(folder / f'{config.data}_{config.model}', config, rows, pictures)


def beside(config: TrainConfig) -> TrainConfig:
  """How the B-cos network is trained that stands beside the others."""
  return dataclasses.replace(
    configs.load_config(_BCOS),
    data=config.data,
    data_dir=config.data_dir,
    train_split=config.train_split,
    epochs=config.epochs,
  )


def rows_of_run(
  config: TrainConfig, runs: pathlib.Path, pictures: int
) -> list[dict[str, Any]]:
  """What is measured of a run, done or found done with the same settings."""
  run_dir = runs / f'{config.data}-{config.model}-{config.seed}'
  config = dataclasses.replace(config, run_dir=run_dir, resume=True)
  if (run_dir / 'config.json').exists():
    refuse_another(read_config(run_dir), config)
  if not (run_dir / 'results.json').exists():
    train(config)
  path = run_dir / f'saliency_{pictures}.json'
  if not path.exists():
    found = measured_run(restore_run(config), pictures)
    path.write_text(json.dumps(found))
  return json.loads(path.read_text())


def measured_run(run: Restored, pictures: int) -> list[dict[str, Any]]:
  """A row for each network, method and picture's mean."""
  count = pictures + _BACKGROUND
  x = to_unit_range(first_test_pictures(run.source, count).pixels)
  x, background = x[:pictures], x[pictures:]
  fresh = fresh_parameters(run)
  rows = []
  for name, weights in run.weights.items():
    subject = make_subject(run.network, weights, background)
    methods = with_own(choose_methods(()), run.network, weights)
    if is_bcos(run.config):
      methods = [method for method in methods if not method.backwards]
    about = {
      'network': run.config.model if is_bcos(run.config) else name,
      'seed': run.config.seed,
      'accuracy': float(run.evaluate(*weights)[1]),
    }
    forgotten = fresh, weights[1]
    for row in judged(subject, weights, forgotten, methods, x):
      rows.append(about | row)
  return rows


def is_bcos(config: TrainConfig) -> bool:
  """Whether a run is that of the network beside the others."""
  return config.loss == 'bce'


def judged(
  subject: Subject, weights: Any, forgotten: Any, methods: list[Method], x
) -> list[dict[str, Any]]:
  """A row for each method, of the class that the network predicts."""
  target = jnp.argmax(subject.logits(weights, x), axis=1)
  areas = lambda maps: areas_under(subject, weights, x, target, maps)
  keys = jax.random.split(jax.random.key(0), _RANDOM)
  drawn = [areas(metrics.random_attribution(key, x)) for key in keys]
  control = {
    name: np.mean([one[name] for one in drawn], 0) for name in drawn[0]
  }
  random = {name: float(np.nanmean(value)) for name, value in control.items()}
  rows: list[dict[str, Any]] = [{'method': metrics.CONTROL} | random]
  for method in methods:
    if method.kind == 'colours':
      continue  # ranks no pixels
    maps = attempt(method.explain, subject, weights, x, target)
    if isinstance(maps, str):
      continue
    others = method.explain(subject, forgotten, x, target)
    elsewhere = jnp.roll(others, 1, axis=0)
    found = areas(maps)
    row: dict[str, Any] = {'method': method.label}
    for name, value in found.items():
      sign = -1 if name.startswith('deletion') else 1
      gain = sign * (value - control[name])
      row[name] = float(np.nanmean(value))
      row[f'{name} gain'] = float(np.nanmean(gain))
    row['like after randomizing'] = likeness(maps, others)
    row['like by chance'] = likeness(maps, elsewhere)
    rows.append(row)
  return rows


def areas_under(
  subject: Subject, weights: Any, x, target, maps
) -> dict[str, np.ndarray]:
  """Areas (N,) under the curves.

  Logits are measured in units of their mean fall, from the whole picture to
  none of it: networks differ in their scale.
  """
  found = {}
  for score in SCORES:
    options: Mapping[str, Any] = {'steps': _STEPS, 'score': score}
    args = subject.logits, weights, x, target, maps
    deletion = metrics.deletion(*args, **options, chunk=subject.chunk)
    insertion = metrics.insertion(*args, **options, chunk=subject.chunk)
    for name, curve in (('deletion', deletion), ('insertion', insertion)):
      area = np.asarray(curve.auc)
      if score == 'logit':
        area = area / fall(deletion.scores)
      found[f'{name} {score}'] = area
  return found


def fall(scores: jax.Array) -> float:
  """Mean difference of the scores of whole pictures and of deleted ones."""
  return float(np.mean(np.asarray(scores[:, 0] - scores[:, -1])))


def likeness(maps: jax.Array, others: jax.Array) -> float:
  """Mean absolute rank correlation of the pixels of two maps."""
  rows = [jnp.abs(a).reshape(len(a), -1) for a in (maps, others)]
  return float(np.nanmean(np.abs(spearman(*rows))))


GAINS = {
  'deletion softmax gain': 'deletion',
  'insertion softmax gain': 'insertion',
  'deletion logit gain': 'deletion, logit',
  'insertion logit gain': 'insertion, logit',
  'like after randomizing': 'likeness after randomizing',
  'like by chance': 'to another picture',
}


Groups: TypeAlias = dict[tuple[str, str], list[dict[str, Any]]]


def write(
  folder: pathlib.Path, config: TrainConfig, rows, pictures: int
) -> None:
  """Writes rows.csv and table.md."""
  folder.mkdir(parents=True, exist_ok=True)
  write_csv(folder / 'rows.csv', rows)
  lines = [
    f'| network | method | {" | ".join(GAINS.values())} |',
    '| --- | --- |' + ' ---: |' * len(GAINS),
  ]
  groups: Groups = {}
  for row in rows:
    if row['method'] != metrics.CONTROL:
      groups.setdefault((row['network'], row['method']), []).append(row)
  for (network, method), group in groups.items():
    cells = [spread([row[name] for row in group], 3) for name in GAINS]
    lines.append(f'| {network} | {method} | {" | ".join(cells)} |')
  lines += ['', *changes_by_bort(groups, config.optimizer)]
  reached = ', '.join(
    f'{name} {spread(list(by_seed.values()), 3)}'
    for name, by_seed in accuracies(rows, 'network').items()
  )
  lines += [
    '',
    'Area under the curve, better by so much than that of random maps on the'
    f' same pictures (mean of {_RANDOM} for each): positive is better than'
    ' chance, in both. Probability of the predicted class, and its logit in'
    ' units of its mean fall from whole pictures to black ones. Likeness: rank'
    ' correlation of absolute maps with those of a network whose parameters'
    ' were all drawn anew, and with the maps that those have of another'
    ' picture: more than that is likeness that the weights did not make. Mean ±'
    ' standard deviation over the seeds (one where there is no ±) of the means'
    f' over {pictures} test pictures. {config.data}'
    f' ({config.train_split or "train"}), {config.num_epochs} epochs. Test'
    f' accuracy: {reached}. jax {jax.__version__} on'
    f' {jax.devices()[0].device_kind} ({os.cpu_count()} cores).',
  ]
  (folder / 'table.md').write_text('\n'.join(lines) + '\n')
  print('\n'.join(lines))


def changes_by_bort(groups: Groups, plain: str) -> list[str]:
  """Bort less the plain optimizer, paired by seed, with 95 % intervals."""
  gains = [name for name in GAINS if name.endswith('gain')]
  pairs = {
    method: (group, groups[plain, method])
    for (network, method), group in groups.items()
    if network == 'bort' and (plain, method) in groups
  }
  looks = len(pairs) * len(gains)
  lines = [
    f'| Bort − {plain} | {" | ".join(GAINS[name] for name in gains)} |',
    '| --- |' + ' ---: |' * len(gains),
  ]
  for method, pair in pairs.items():
    one, other = ({row['seed']: row for row in rows} for rows in pair)
    both = [(one[seed], other[seed]) for seed in one.keys() & other.keys()]
    columns = [
      [[row[name] for row in rows] for rows in zip(*both, strict=True)]
      for name in gains
    ]
    cells = [
      difference(one, other).text(difference(one, other, looks=looks), 3)
      for one, other in columns
    ]
    lines.append(f'| {method} | {" | ".join(cells)} |')
  return [*lines, '', f'{looks} differences looked at, bold after Bonferroni.']


if __name__ == '__main__':
  tyro.cli(main)
