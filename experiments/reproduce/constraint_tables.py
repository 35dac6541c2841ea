"""Tables and figures of the constraint experiment, from its kept runs."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from constraint_laws import decayed, drifted, noise, step_norm
from matplotlib.figure import Figure
from runs_report import (
  Row,
  by_task,
  made_line,
  task_line,
  write_csv,
  write_page,
)

from bort_jax.plots.colors import OKABE_ITO

_HEADER = (
  'optimizer',
  'constraint',
  'decay',
  'σ max',
  'law of drift',
  'share of the step',
  'off diagonal / law of noise',
  'mean σ²',
  'law of decay',
  'error at the end',
)
_FOREWORD = (
  'Half way through training, before the learning rate falls, mean over the'
  ' seeds, smallest … largest over the kernels (each kernel is in'
  ' [layers.csv](layers.csv)); the error, max |W Wᵀ − I|, is at the end. The'
  ' law of drift is for a gradient of rank one that never changes; the share'
  ' of the step is what part of such a step would hold σ max where it is,'
  ' γσ(σ² − 1 + λ/γ)/s. A share above one would break the law. The law of noise'
  ' is for gradients without any direction.'
)


def write_tables(folder: pathlib.Path, rows: Sequence[Row]) -> None:
  """Writes layers.csv, table.md and a figure for each task."""
  if not rows:
    return
  sections, flat = [_FOREWORD], []
  for i, (task, of_task) in enumerate(by_task(rows).items(), 1):
    lines = [line for case in cases_of(of_task) for line in lines_of(case)]
    flat += [{'task': task_line(task), **line} for line in lines]
    name = f'figure_{i}.png'
    figure_of(cases_of(of_task)).savefig(folder / name, dpi=80)
    sections += [
      f'## {task_line(task)}',
      table_of([lines_of(case) for case in cases_of(of_task)]),
      seeds_line(of_task),
      f'![Singular values over training]({name})',
    ]
  write_csv(folder / 'layers.csv', flat)
  write_page(folder, sections)


def seeds_line(rows: Sequence[Row]) -> str:
  """Seeds, and by what they were made."""
  seeds = sorted({row['facts']['seed'] for row in rows})
  diverged = sum(not row['found']['kernels'] for row in rows)
  lost = f' {diverged} trainings diverged and are left out.' if diverged else ''
  return f'Seeds {", ".join(map(str, seeds))}.{lost} {made_line(rows)}'


def cases_of(rows: Sequence[Row]) -> list[list[Row]]:
  """The seeds of each case."""
  groups: dict[tuple, list[Row]] = {}
  for row in rows:
    facts = row['facts']
    if row['found']['kernels']:  # not diverged
      key = _case(facts)
      groups.setdefault(key, []).append(row)
  return list(groups.values())


def _case(facts: Mapping[str, Any]) -> tuple:
  return (
    facts.get('optimizer', 'adamw'),
    facts.get('constraint', 'none'),
    facts.get('gamma', 0.0),
    facts['weight_decay'],
  )


def lines_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
  """Laws and what was measured, for each kernel of one case."""
  optimizer, constraint, gamma, decay = _case(rows[0]['facts'])
  rate = rows[0]['facts']['learning_rate']
  lines = []
  for kernel in rows[0]['found']['history'][0]['kernels']:
    half = lambda what, kernel=kernel: _mean(rows, kernel, what, _half)
    m, n = int(half('outputs')), int(half('inputs'))
    line: dict[str, Any] = {
      'optimizer': optimizer,
      'constraint': name_of(constraint, gamma),
      'decay': decay,
      'kernel': kernel.removesuffix('/kernel'),
      'shape': f'{m}×{n}',
      'largest': half('largest'),
      'drift': None,
      'share': None,
      'off': half('off'),
      'noise': None,
      'mean square': half('mean square'),
      'decayed': decayed(gamma, decay) if constraint == 'soft' else None,
      'error': _mean(rows, kernel, 'error', lambda history: history[-1]),
    }
    norm = step_norm(optimizer, m, n)
    if constraint == 'soft' and norm is not None:
      line['drift'] = drifted(norm, gamma, decay)
      excess = line['largest'] * (line['largest'] ** 2 - decayed(gamma, decay))
      line['share'] = gamma * excess / norm
    if constraint == 'soft' and optimizer == 'adamw':
      line['noise'] = noise(rate, gamma)
    lines.append(line)
  return lines


def _half(history: Sequence[Any]) -> Any:
  return history[len(history) // 2]


def _mean(
  rows: Sequence[Row], kernel: str, what: str, at: Callable[[Any], Any]
) -> float:
  values = [
    at(row['found']['history'])['kernels'][kernel][what] for row in rows
  ]
  return float(np.mean(values))


def table_of(cases: Sequence[Sequence[Mapping[str, Any]]]) -> str:
  """Markdown, a line for each case."""
  text = [
    f'| {" | ".join(_HEADER)} |',
    '| --- | --- |' + ' ---: |' * (len(_HEADER) - 2),
  ]
  for lines in cases:
    first = lines[0]
    noisy = [
      line['off'] / line['noise'] for line in lines if line['noise'] is not None
    ]
    of = lambda name, lines=lines: [line[name] for line in lines]
    cells = [
      first['optimizer'],
      first['constraint'],
      f'{first["decay"]:g}',
      *map(_range, (of('largest'), of('drift'), of('share'), noisy)),
      _range(of('mean square')),
      _range(of('decayed')[:1]),
      _range(of('error')),
    ]
    text.append(f'| {" | ".join(cells)} |')
  return '\n'.join(text)


def _range(values: Sequence[float | None]) -> str:
  known = [value for value in values if value is not None]
  if not known:
    return ''
  ends = dict.fromkeys(f'{end(known):.3g}' for end in (min, max))
  return ' … '.join(ends)


def name_of(constraint: str, gamma: float) -> str:
  """A constraint in words."""
  return {'none': 'free', 'soft': f'γ = {gamma:g}', 'hard': 'hard'}[constraint]


def figure_of(cases: Sequence[Sequence[Row]]) -> Figure:
  """Largest and smallest singular value of every kernel, first seed."""
  columns = 4
  height = -(-len(cases) // columns)
  figure = Figure((3 * columns, 2.2 * height), layout='constrained')
  axes = list(figure.subplots(height, columns, sharex=True, squeeze=False).flat)
  for axis, rows in zip(axes, cases, strict=False):
    optimizer, constraint, gamma, decay = _case(rows[0]['facts'])
    history = rows[0]['found']['history']
    steps = [look['step'] for look in history]
    for i, kernel in enumerate(history[0]['kernels']):
      for what, style in (('largest', '-'), ('smallest', ':')):
        axis.plot(
          steps,
          [look['kernels'][kernel][what] for look in history],
          style,
          color=OKABE_ITO[i % len(OKABE_ITO)],
          lw=1,
          label=kernel.removesuffix('/kernel') if style == '-' else None,
        )
    more = f', decay {decay:g}' if decay else ''
    axis.set_title(
      f'{optimizer}, {name_of(constraint, gamma)}{more}', fontsize=9
    )
    axis.axhline(1, color='grey', lw=0.5)
  for axis in axes[len(cases) :]:
    axis.set_axis_off()
  figure.legend(*axes[0].get_legend_handles_labels(), loc='outside right upper')
  figure.supxlabel('step')
  figure.supylabel('singular values: largest, smallest dotted')
  return figure
