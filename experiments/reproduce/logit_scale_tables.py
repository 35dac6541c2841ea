"""Tables and the figure of the logit-scale experiment, from its kept runs."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from arms import Arm
from matplotlib.figure import Figure
from paired import difference, equivalent
from runs_report import (
  FAILED_NOTE,
  Row,
  arm_in,
  by_task,
  made_line,
  rate_in,
  seeds_cell,
  spread,
  task_line,
  tested,
  worst_error,
  write_page,
  write_runs_csv,
)

from bort_jax.plots.colors import OKABE_ITO

_NAMES = {'none': 'free', 'soft': 'Bort', 'hard': 'hard'}
MARGIN = 0.5  # points of accuracy that are taken for none
_HEADER = (
  'optimizer',
  'BatchNorm',
  'constraint',
  'scale',
  'learning rate',
  'seeds',
  'test accuracy (%)',
  '− free with scale',
  'gained by the scale',
  'orthogonality error',
  'back by transposition',
  'by least squares',
)
_FOREWORD = (
  'Mean ± standard deviation over the seeds; differences are means over the'
  ' seeds, paired, with their 95 % interval (Student, each by itself). In'
  ' **bold**: zero is outside after the correction for all differences of the'
  ' table (Bonferroni). With ≈: as accurate, the 90 % interval lies within'
  f' ±{MARGIN} points (two one-sided tests, each by itself). Every arm had'
  ' three trainings to find its learning rate, which has a * where it is at an'
  ' end of what was tried. The orthogonality error is the largest entry of'
  ' W Wᵀ − I over all kernels. The last two columns are relative errors of'
  ' pictures run to the last features and back, mean over pictures and seeds: 0'
  ' is perfect, 1 what a black picture gets.' + FAILED_NOTE
)


def write_tables(
  folder: pathlib.Path,
  rows: Sequence[Row],
  rates: Mapping[str, Sequence[float]],
) -> None:
  """Writes runs.csv, table.md and a figure for each task."""
  judged = tested(rows)
  if not judged:
    return
  write_runs_csv(folder / 'runs.csv', rows)
  sections = [_FOREWORD]
  for i, (task, of_task) in enumerate(by_task(judged).items(), 1):
    name = f'accuracies_{i}.png'
    arms = by_arm(of_task)
    figure_of(arms).savefig(folder / name, dpi=80)
    sections += [
      f'## {task_line(task)}',
      table_of(arms, rates),
      made_line(of_task),
      f'![Accuracies]({name})',
    ]
  write_page(folder, sections)


def by_arm(rows: Sequence[Row]) -> dict[Arm, dict[int, Row]]:
  """The runs of each arm by seed, constraint by constraint."""
  arms: dict[Arm, dict[int, Row]] = {}
  for row in rows:
    arms.setdefault(arm_in(row['facts']), {})[row['facts']['seed']] = row
  return arms


def accuracies(
  one: Mapping[int, Row], other: Mapping[int, Row]
) -> tuple[list[float], list[float]]:
  """Per cent of the seeds that both have."""
  seeds = sorted(one.keys() & other.keys())
  first, second = (
    [100 * runs[seed]['found']['accuracy'] for seed in seeds]
    for runs in (one, other)
  )
  return first, second


def table_of(
  arms: Mapping[Arm, Mapping[int, Row]], rates: Mapping[str, Sequence[float]]
) -> str:
  """Markdown."""
  lines = [
    f'| {" | ".join(_HEADER)} |',
    '| --- | --- | --- | --- |' + ' ---: |' * (len(_HEADER) - 4),
  ]
  pairs = {arm: (free_of(arm), without_scale(arm)) for arm in arms}
  looks = sum(
    base in arms and base != arm for arm in arms for base in pairs[arm]
  )
  for arm, runs in arms.items():
    rows = list(runs.values())
    cells = [
      arm.optimizer,
      'yes' if arm.batch_norm else 'no',
      _NAMES[arm.constraint],
      'yes' if arm.logit_scale else 'no',
      rate_in(rates[arm.optimizer], rows[0]['facts']['learning_rate']),
      seeds_cell(rows),
      spread([100 * row['found']['accuracy'] for row in rows], 2),
      *(difference_cell(arms, arm, base, looks) for base in pairs[arm]),
      worst_error(rows),
      *(_mean(rows, name) for name in ('back_error', 'solved_error')),
    ]
    lines.append(f'| {" | ".join(cells)} |')
  lines += ['', f'{len(arms)} arms, {looks} differences looked at.']
  return '\n'.join(lines)


def free_of(arm: Arm) -> Arm:
  """The free network with the scale; of a free one, itself.

  What a free one gains by the scale stands in another column.
  """
  if arm.constraint == 'none':
    return arm
  return Arm(arm.optimizer, batch_norm=arm.batch_norm)


def without_scale(arm: Arm) -> Arm:
  """The same arm without the scale; of one without it, itself."""
  return dataclasses.replace(arm, logit_scale=False)


def difference_cell(
  arms: Mapping[Arm, Mapping[int, Row]], arm: Arm, base: Arm, looks: int
) -> str:
  """What an arm has more than another; with ≈ if the two are as accurate."""
  if base == arm or base not in arms:
    return ''
  pair = accuracies(arms[arm], arms[base])
  if not pair[0]:
    return ''
  text = difference(*pair).text(difference(*pair, looks=looks))
  return f'{text} ≈' if equivalent(*pair, MARGIN) else text


def _mean(rows: Sequence[Row], name: str) -> str:
  values = [r['found'][name] for r in rows if r['found'].get(name) is not None]
  return f'{np.mean(values):.2g}' if values else ''


def figure_of(arms: Mapping[Arm, Mapping[int, Row]]) -> Figure:
  """Accuracy by constraint, with and without the scale, every seed a point."""
  panels: list[tuple[str, bool]] = list(
    dict.fromkeys((arm.optimizer, arm.batch_norm) for arm in arms)
  )
  figure = Figure((2.6 * len(panels), 3.4), layout='constrained')
  axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
  names = list(_NAMES)
  for axis, (optimizer, norm) in zip(axes, panels, strict=True):
    for arm, runs in arms.items():
      if (arm.optimizer, arm.batch_norm) == (optimizer, norm):
        values: list[Any] = [
          100 * row['found']['accuracy'] for row in runs.values()
        ]
        place = names.index(arm.constraint) + (-0.1, 0.1)[arm.logit_scale]
        axis.plot(
          [place] * len(values),
          values,
          'o' if arm.logit_scale else 'x',
          ms=5,
          color=OKABE_ITO[int(arm.logit_scale)],
        )
    axis.set_xticks(range(len(names)), list(_NAMES.values()))
    axis.set_title(f'{optimizer}{", BatchNorm" if norm else ""}')
  axes[0].set_ylabel('test accuracy (%); ● with, × without scale')
  return figure
