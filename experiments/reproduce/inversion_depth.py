r"""What comes back from each depth: training, initialization or orthogonality?

Runs test pictures to every layer of a network and back, by untrained networks
(Flax's usual kernels, and orthogonal ones), by plain and Bort networks trained
from either, and by the hard form, each with the published rule, the scaled
transpose and least squares. Writes CSV, table and figure into
``inversion_depth/DATA_MODEL/``. Runs are kept in ``--runs`` and not made again.
From the project's root:

    python experiments/reproduce/inversion_depth.py --data mnist \
      --train-split 'train[:10000]' --data-dir DIR
    python experiments/reproduce/inversion_depth.py --data mnist \
      --train-split 'train[:10000]' --model patch_net --data-dir DIR
"""

import json
import os
import pathlib
from typing import Any

import jax
import numpy as np
import tyro
from arms_kept import ARMS, accuracies, arm
from matplotlib.figure import Figure
from runs_report import write_csv

from bort_jax import inversion, metrics, nn
from bort_jax.train import TrainConfig
from bort_jax.train.source import make_source
from bort_jax.train.step import to_unit_range

METHODS: tuple[inversion.Method, ...] = (
  'published',
  'transpose',
  'least_squares',
)
# What a network is run back from: where its values are still maps.
LAYERS = {
  'simple_cnn': ('act1', 'down1', 'act2', 'down2', 'act3'),
  'patch_net': ('act1', 'act2', 'features'),
}
MEASURES = ('raw', 'scale_fitted', 'pearson')


def main(
  config: tyro.conf.OmitArgPrefixes[TrainConfig],
  seeds: int = 3,
  pictures: int = 64,
  max_steps: int = 200,
  runs: pathlib.Path = pathlib.Path('runs/inversion_depth'),
) -> None:
  """Trains every arm and runs pictures back from every layer.

  Args:
    config: what all arms share.
    seeds: how many, from 0.
    pictures: number of test pictures.
    max_steps: most iterations of least squares in a segment.
    runs: where the runs are kept.
  """
  x = to_unit_range(make_source(config).pictures(pictures))
  rows = []
  outputs = None
  for seed in range(seeds):
    for name in ARMS:
      network = arm(name, config, seed, runs)
      apply_fn, params = nn.functional(network.module, 'intermediates')
      outputs = outputs or apply_fn  # one function, so one compilation, for all
      about = {'arm': name, 'seed': seed, 'accuracy': network.accuracy}
      rows += measured(about, outputs, params, config.model, x, max_steps)
      print(rows[-1], flush=True)
  write(config, rows, {'seeds': seeds, 'pictures': pictures})


def measured(
  about: dict[str, Any], outputs, params, model: str, x, max_steps: int
) -> list[dict[str, Any]]:
  """A row for each method and layer: means over the pictures."""
  rows = []
  for method in METHODS:
    for layer in LAYERS[model]:
      found = inversion.reconstruct(
        inversion.until(outputs, layer),
        params,
        x,
        method=method,
        max_steps=max_steps,
      )
      error = metrics.reconstruction_error(x, found.x)
      numbers = {
        name: float(np.mean(getattr(error, name))) for name in MEASURES
      }
      rows.append(
        about
        | {'method': method, 'layer': layer, 'steps': int(found.steps)}
        | numbers
      )
  return rows


def write(
  config: TrainConfig, rows: list[dict[str, Any]], counts: dict[str, int]
) -> None:
  """Writes rows.csv, table.md, results.json and figure.png."""
  folder = pathlib.Path(__file__).parent / 'inversion_depth'
  folder = folder / f'{config.data}_{config.model}'
  folder.mkdir(parents=True, exist_ok=True)
  write_csv(folder / 'rows.csv', rows)
  text = [table(rows, config.model, measure) for measure in MEASURES]
  reached = ', '.join(
    f'{name} {spread(list(by_seed.values()), 4)}'
    for name, by_seed in accuracies(rows, 'arm').items()
  )
  note = (
    f'{config.data} ({config.train_split or "train"}), {config.model},'
    f' {config.optimizer}, {config.num_epochs} epochs, {counts["pictures"]}'
    ' test pictures; mean ± standard deviation over'
    f' {counts["seeds"]} seeds of the means over pictures. Test accuracy:'
    f' {reached}. jax {jax.__version__} on'
    f' {jax.devices()[0].device_kind} ({os.cpu_count()} cores).\n'
  )
  (folder / 'table.md').write_text('\n'.join([*text, note]))
  about = {'split': config.train_split, 'epochs': config.num_epochs, **counts}
  (folder / 'results.json').write_text(json.dumps(about, indent=1) + '\n')
  draw(rows, config.model).savefig(folder / 'curves.png', dpi=80)
  print('\n'.join([*text, note]))


def spread(values: list[float], digits: int = 3) -> str:
  """Mean ± standard deviation."""
  mean = f'{np.mean(values):.{digits}g}'
  if len(values) == 1:
    return mean
  return f'{mean} ± {np.std(values, ddof=1):.1g}'


def of(rows, **wanted) -> list[dict[str, Any]]:
  """The rows that have these."""
  return [r for r in rows if all(r[k] == v for k, v in wanted.items())]


def table(rows, model: str, measure: str) -> str:
  """Arms and methods down, layers across."""
  layers = LAYERS[model]
  heading = {
    'raw': 'Relative error, as it comes',
    'scale_fitted': 'Relative error after the best scale of each picture',
    'pearson': "Pearson's correlation",
  }
  lines = [
    f'# {heading[measure]}\n',
    f'| arm | method | {" | ".join(layers)} |',
    '| --- | --- |' + ' ---: |' * len(layers),
  ]
  for name in ARMS:
    for method in METHODS:
      found = [of(rows, arm=name, method=method, layer=one) for one in layers]
      cells = [spread([r[measure] for r in some]) for some in found]
      lines.append(f'| {name} | {method} | {" | ".join(cells)} |')
  return '\n'.join(lines) + '\n'


def draw(rows, model: str) -> Figure:
  """Scale-fitted error by layer, a panel for each method."""
  layers = LAYERS[model]
  figure = Figure(figsize=(11, 3.6), layout='constrained')
  panels = figure.subplots(1, len(METHODS), sharey=True)
  for panel, method in zip(panels, METHODS, strict=True):
    for i, name in enumerate(ARMS):
      values = np.array(
        [
          [
            r['scale_fitted']
            for r in of(rows, arm=name, method=method, layer=one)
          ]
          for one in layers
        ]
      )
      panel.errorbar(
        range(len(layers)),
        values.mean(1),
        values.std(1, ddof=1) if values.shape[1] > 1 else None,
        fmt=':' if name.startswith('untrained') else '-',
        color=f'C{i}',
        capsize=2,
        label=name,
      )
    panel.set_xticks(range(len(layers)), layers)
    panel.set_yscale('log')
    panel.set_title(method.replace('_', ' '))
  panels[0].set_ylabel('scale-fitted relative error')
  figure.legend(
    *panels[0].get_legend_handles_labels(), loc='outside right upper'
  )
  return figure


if __name__ == '__main__':
  tyro.cli(main)
