"""Tables and figures of what helps, from its kept runs."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from arms import Arm
from logit_scale_tables import MARGIN, by_arm, difference_cell
from matplotlib import ticker
from matplotlib.figure import Figure
from runs_report import (
  FAILED_NOTE,
  Row,
  by_task,
  made_line,
  seeds_cell,
  spread,
  task_line,
  tested,
  worst_error,
  write_page,
  write_runs_csv,
)

from bort_jax.plots.colors import OKABE_ITO

_HEADER = (
  'optimizer',
  'constraint',
  'a',
  'BatchNorm',
  'head',
  'every',
  'seeds',
  'test accuracy (%)',
  '− free',
  '− baseline',
  'orthogonality error',
)
_BASELINES: dict[str, dict[str, Any]] = {
  'strength': {},
  'amplitude': {'amplitude': 1.0},
  'shape': {'head': True},
  'turns': {'every': None},
}
_FOREWORD = (
  'Mean ± standard deviation over the seeds. The difference is to the same'
  ' optimizer without the constraint, of the same start and normalization (of'
  ' ``ada``, the start at a = 1), paired by seed, with its 95 % interval'
  ' (Student, each by itself); in **bold** zero is outside after the correction'
  ' for all differences of the table (Bonferroni). With ≈: as accurate, the'
  f' 90 % interval lies within ±{MARGIN} points, each by itself. The baseline'
  ' is the same constraint with a = 1, with a constrained head, or corrected at'
  ' every step. The orthogonality error is the largest entry of W Wᵀ/a − I'
  ' over all kernels, a free head included; of ``ada`` it is taken at a = 1.'
  + FAILED_NOTE
)


def write_tables(
  folder: pathlib.Path,
  rows: Sequence[Row],
  questions: Mapping[str, Sequence[Arm]],
  fitted: Mapping[str, float | str | None],
) -> None:
  """Writes runs.csv, table.md and a figure for each question and task."""
  judged = tested(rows)
  if not judged:
    return
  write_runs_csv(folder / 'runs.csv', rows)
  sections = [_FOREWORD]
  for i, (task, of_task) in enumerate(by_task(judged).items(), 1):
    arms = by_arm(of_task)
    sections += [f'## {task_line(task)}', made_line(of_task)]
    for question, asked in questions.items():
      there = [arm for arm in asked if arm in arms]
      if there:
        name = f'{question}_{i}.png'
        figure_of(there, arms).savefig(folder / name, dpi=80)
        sections += [
          f'### {question}',
          table_of(there, arms, question),
          f'![Accuracy against orthogonality]({name})',
        ]
  told = [f'{name} {a}' for name, a in fitted.items() if a is not None]
  if told:
    sections.append(f'Amplitude fitted on held-out pictures: {", ".join(told)}')
  write_page(folder, sections)


def table_of(
  asked: Sequence[Arm], arms: Mapping[Arm, Mapping[int, Row]], question: str
) -> str:
  """Markdown."""
  lines = [
    f'| {" | ".join(_HEADER)} |',
    '| --- | --- | ---: | --- | --- |' + ' ---: |' * (len(_HEADER) - 5),
  ]
  bases = {arm: (free_of(arm), base_of(question, arm)) for arm in asked}
  looks = sum(
    base in arms and base != arm for arm in asked for base in bases[arm]
  )
  for arm in asked:
    rows = list(arms[arm].values())
    cells = [
      arm.optimizer,
      name_of(arm),
      str(arm.amplitude),
      'yes' if arm.batch_norm else 'no',
      'constrained' if arm.head and arm.constraint != 'none' else 'free',
      str(arm.every or 1) if arm.constraint == 'soft' else '',
      seeds_cell(rows),
      spread([100 * row['found']['accuracy'] for row in rows], 2),
      *(difference_cell(arms, arm, base, looks) for base in bases[arm]),
      worst_error(rows),
    ]
    lines.append(f'| {" | ".join(cells)} |')
  lines += ['', f'{len(asked)} arms, {looks} differences looked at.']
  return '\n'.join(lines)


def free_of(arm: Arm) -> Arm:
  """What an arm is compared with: it lacks the constraint alone."""
  start = 1.0 if arm.amplitude == 'ada' else arm.amplitude
  return Arm(arm.optimizer, batch_norm=arm.batch_norm, amplitude=start)


def base_of(question: str, arm: Arm) -> Arm:
  """What a question compares an arm with, beside the free one."""
  if arm.constraint == 'none':
    return arm
  return dataclasses.replace(arm, **_BASELINES[question])


def name_of(arm: Arm) -> str:
  """The constraint in words."""
  names = {'none': 'free', 'soft': f'γ = {arm.gamma:g}', 'hard': 'hard'}
  return names[arm.constraint]


def figure_of(
  asked: Sequence[Arm], arms: Mapping[Arm, Mapping[int, Row]]
) -> Figure:
  """Test error, downwards, against orthogonality; seeds are faint points."""
  figure = Figure((8, 4.5), layout='constrained')
  axis = figure.subplots()
  optimizers = list(dict.fromkeys(arm.optimizer for arm in asked))
  for arm in asked:
    rows = [row for row in arms[arm].values() if row['found']['kernels']]
    if not rows:
      continue
    color = OKABE_ITO[optimizers.index(arm.optimizer)]
    errors = [
      max(kernel[-1] for kernel in row['found']['kernels'].values())
      for row in rows
    ]
    values = [100 - 100 * row['found']['accuracy'] for row in rows]
    axis.plot(errors, values, '.', color=color, alpha=0.3)
    place = (
      float(np.exp(np.mean(np.log(errors)))),
      float(np.exp(np.mean(np.log(values)))),
    )
    axis.plot(*place, 'o', color=color)
    axis.annotate(
      _short(arm), place, fontsize=7, xytext=(3, 3), textcoords='offset points'
    )
  for i, optimizer in enumerate(optimizers):
    axis.plot([], [], 'o', color=OKABE_ITO[i], label=optimizer)
  axis.set(
    xscale='log',
    yscale='log',
    xlabel='orthogonality error',
    ylabel='test error (%)',
  )
  axis.invert_yaxis()
  axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 4)))
  axis.yaxis.set_major_formatter(ticker.ScalarFormatter())
  axis.yaxis.set_minor_formatter(ticker.NullFormatter())
  axis.legend(frameon=False)
  return figure


def _short(arm: Arm) -> str:
  told = [name_of(arm)]
  if arm.amplitude != 1:
    told.append(f'a = {arm.amplitude}')
  if arm.batch_norm:
    told.append('BN')
  if arm.every:
    told.append(f'every {arm.every}')
  if not arm.head:
    told.append('free head')
  return ', '.join(told)
