"""Tables and figures of what helps, from its kept runs."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from arms import Arm
from logit_scale_tables import accuracies, by_arm
from matplotlib import ticker
from matplotlib.figure import Figure
from paired import difference
from runs_report import (
  Row,
  by_task,
  made_line,
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
  'orthogonality error',
)
_FOREWORD = (
  'Mean ± standard deviation over the seeds. The difference is to the same'
  ' optimizer without the constraint, of the same start and normalization (of'
  ' ``ada``, the start at a = 1), paired by seed, with its 95 % interval'
  ' (Student, each by itself); in **bold** zero is outside after the correction'
  ' for all differences of the table (Bonferroni). The orthogonality error is'
  ' the largest entry of W Wᵀ/a − I'
  ' over all kernels, a free head included; of ``ada`` it is taken at a = 1.'
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
          table_of(there, arms),
          f'![Accuracy against orthogonality]({name})',
        ]
  told = [f'{name} {a}' for name, a in fitted.items() if a is not None]
  if told:
    sections.append(f'Amplitude fitted on held-out pictures: {", ".join(told)}')
  write_page(folder, sections)


def table_of(
  asked: Sequence[Arm], arms: Mapping[Arm, Mapping[int, Row]]
) -> str:
  """Markdown."""
  lines = [
    f'| {" | ".join(_HEADER)} |',
    '| --- | --- | ---: | --- | --- |' + ' ---: |' * (len(_HEADER) - 5),
  ]
  pairs = {arm: _to_free(arm, arms) for arm in asked}
  looks = sum(pair is not None for pair in pairs.values())
  for arm, pair in pairs.items():
    rows = list(arms[arm].values())
    cells = [
      arm.optimizer,
      name_of(arm),
      str(arm.amplitude),
      'yes' if arm.batch_norm else 'no',
      'constrained' if arm.head and arm.constraint != 'none' else 'free',
      str(arm.every or 1) if arm.constraint == 'soft' else '',
      str(len(rows)),
      spread([100 * row['found']['accuracy'] for row in rows], 2),
      difference(*pair).text(difference(*pair, looks=looks)) if pair else '',
      worst_error(rows),
    ]
    lines.append(f'| {" | ".join(cells)} |')
  lines += ['', f'{len(asked)} arms, {looks} differences looked at.']
  return '\n'.join(lines)


def _to_free(arm: Arm, arms: Mapping[Arm, Mapping[int, Row]]):
  free = free_of(arm)
  if arm == free or free not in arms:
    return None
  pair = accuracies(arms[arm], arms[free])
  return pair if pair[0] else None


def free_of(arm: Arm) -> Arm:
  """What an arm is compared with: it lacks the constraint alone."""
  start = 1.0 if arm.amplitude == 'ada' else arm.amplitude
  return Arm(arm.optimizer, batch_norm=arm.batch_norm, amplitude=start)


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
