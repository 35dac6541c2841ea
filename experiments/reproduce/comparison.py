"""Plain AdamW against Bort, soft and hard, over several seeds.

Runs the comparison of ``bort-jax train`` for each seed with both forms of the
constraint and writes, into a folder named after the data set, a table (mean ±
standard deviation over the seeds), its numbers as JSON, and the figures of the
first seed. From the project's root:

    python experiments/reproduce/comparison.py
    python experiments/reproduce/comparison.py --data mnist --data-dir DIR
"""

import dataclasses
import json
import os
import pathlib
import tempfile

import jax
import numpy as np
import tyro

from bort_jax import plots
from bort_jax.train import TrainConfig, train
from bort_jax.train.comparison import Comparison, Row

NAMES = {
  'adamw': 'AdamW',
  'soft': 'AdamW + Bort, γ = {gamma:g}',
  'hard': 'AdamW + keep_orthogonal',
  'untrained': 'untrained, orthogonal (control)',
}
COLUMNS = (
  'test accuracy (%)',
  'orthogonality error',
  'raw error',
  'scale-fitted error',
)


def main(
  config: tyro.conf.OmitArgPrefixes[TrainConfig],
  seeds: int = 5,
) -> None:
  """Compares AdamW with both forms of Bort over several seeds.

  Args:
    config: the settings of every run; its seed is the first.
    seeds: number of seeds.
  """
  folder = pathlib.Path(__file__).parent / config.data
  folder.mkdir(exist_ok=True)
  rows: dict[str, list[Row]] = {name: [] for name in NAMES}
  for seed in range(config.seed, config.seed + seeds):
    for constraint in ('soft', 'hard'):
      comparison = run(config, seed, constraint)
      adamw, bort, control = comparison.rows
      rows[constraint].append(bort)
      if constraint == 'soft':  # both are the same with the hard constraint
        rows['adamw'].append(adamw)
        rows['untrained'].append(control)
      if seed == config.seed:
        for name, figure in plots.comparison_figures(comparison).items():
          figure.savefig(folder / f'{constraint}_{name}.png', dpi=80)
  write(folder, config, seeds, rows)


def run(config: TrainConfig, seed: int, constraint: str) -> Comparison:
  """One comparison, whose run directory is not kept."""
  with tempfile.TemporaryDirectory() as scratch:
    run_dir = pathlib.Path(scratch, 'run')
    comparison = train(
      dataclasses.replace(
        config, seed=seed, constraint=constraint, run_dir=run_dir
      )
    )
  print(f'seed {seed}, {constraint}')
  for row in comparison.rows:
    print('  ', row._asdict())
  return comparison


def write(
  folder: pathlib.Path,
  config: TrainConfig,
  seeds: int,
  rows: dict[str, list[Row]],
) -> None:
  """Writes table.md and results.json."""
  lines = [
    f'| network | {" | ".join(COLUMNS)} |',
    '| --- |' + ' ---: |' * len(COLUMNS),
  ]
  for name, results in rows.items():
    values = np.array([_measured(row) for row in results])
    values[:, 0] *= 100  # per cent
    cells = [
      f'{mean:.3g} ± {deviation:.2g}' if i else f'{mean:.2f} ± {deviation:.2f}'
      for i, (mean, deviation) in enumerate(
        zip(values.mean(0), values.std(0, ddof=1), strict=True)
      )
    ]
    label = NAMES[name].format(gamma=config.gamma)
    lines.append(f'| {label} | {" | ".join(cells)} |')
  lines += [
    '',
    f'{config.data}, {config.num_epochs} epochs, {seeds} seeds from'
    f' {config.seed}: mean ± standard deviation. The errors are those of'
    ' pictures run back from the last feature map by the published rule: 0 is'
    ' perfect, 1 is what a black picture gets. jax'
    f' {jax.__version__} on {jax.devices()[0].device_kind}'
    f' ({os.cpu_count()} cores).',
  ]
  (folder / 'table.md').write_text('\n'.join(lines) + '\n')
  results = {
    'config': dataclasses.asdict(config),
    'columns': Row._fields[1:-1],
    'rows': {k: [_measured(row) for row in v] for k, v in rows.items()},
  }
  text = json.dumps(results, indent=1, default=str)
  (folder / 'results.json').write_text(text + '\n')


def _measured(row: Row) -> tuple[float | None, ...]:
  """All but the seconds, which are those of a machine."""
  _, *columns, _ = row
  return tuple(columns)


if __name__ == '__main__':
  tyro.cli(main)
