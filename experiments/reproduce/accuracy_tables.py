"""Tables and the figure of the accuracy experiment, from its kept runs."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from arms import Arm
from matplotlib.figure import Figure
from paired import Difference, difference, holm, p_value
from runs_report import (
  FAILED_NOTE,
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

PLAIN, INIT, BORT = 'plain', 'orthogonal init', 'Bort'
_HEADER = (
  'optimizer',
  'way',
  'learning rate',
  'decay',
  'seeds',
  'test accuracy (%)',
  '− plain',
  '− orthogonal init',
  'orthogonality error',
)
_FAR = 5.0  # points; differences beyond are drawn on a logarithmic axis


class Line(NamedTuple):
  """The seeds of one arm."""

  optimizer: str
  way: str
  learning_rate: float
  weight_decay: float
  accuracies: dict[int, float]  # by seed, in per cent
  orthogonality_error: str
  seeds: str


def write_tables(
  folder: pathlib.Path,
  rows: Sequence[Mapping[str, Any]],
  names: Mapping[Arm, tuple[str, str]],
  rates: Mapping[str, Sequence[float]],
) -> None:
  """Writes runs.csv, table.md and a figure for each task."""
  judged = tested(rows)
  if not judged:
    return
  write_runs_csv(folder / 'runs.csv', rows)
  sections = [_FOREWORD]
  for i, (task, of_task) in enumerate(by_task(judged).items(), 1):
    lines = lines_of(of_task, names)
    name = f'differences_{i}.png'
    figure_of(lines).savefig(folder / name, dpi=80)
    sections += [
      f'## {task_line(task)}',
      table_of(lines, rates),
      claims_of(lines),
      made_line(of_task),
      f'![The differences]({name})',
    ]
  write_page(folder, sections)


_FOREWORD = (
  'Mean ± standard deviation over the seeds; differences are means over the'
  ' seeds, paired, with their 95 % interval (Student). One in **bold** excludes'
  ' zero after the correction for all differences of its table (Bonferroni).'
  ' Each line had six trainings to find learning rate and weight decay; a'
  ' learning rate with a * is at an end of what was tried, and a better one may'
  ' lie outside. Strengths (γ of Bort, λ of SO and SRIP) were not tuned. The'
  ' orthogonality error is the largest entry of W Wᵀ − I over all kernels, mean'
  ' over the seeds.' + FAILED_NOTE
)


def lines_of(
  rows: Sequence[Mapping[str, Any]], names: Mapping[Arm, tuple[str, str]]
) -> list[Line]:
  """A line for each arm, in the order of ``names``."""
  lines = []
  for arm, (optimizer, way) in names.items():
    of_arm = [row for row in rows if arm_in(row['facts']) == arm]
    if of_arm:
      facts = of_arm[0]['facts']
      line = Line(
        optimizer,
        way,
        facts['learning_rate'],
        facts['weight_decay'],
        {r['facts']['seed']: 100 * r['found']['accuracy'] for r in of_arm},
        worst_error(of_arm),
        seeds_cell(of_arm),
      )
      lines.append(line)
  return lines


def differences_of(
  lines: Sequence[Line], to: str, looks: int = 1
) -> dict[tuple[str, str], Difference]:
  """Of each other line to that of the same optimizer."""
  return {
    key: difference(*pair, looks=looks)
    for key, pair in pairs_of(lines, to).items()
  }


def pairs_of(
  lines: Sequence[Line], to: str
) -> dict[tuple[str, str], tuple[list[float], list[float]]]:
  """The accuracies behind :func:`differences_of`, seed by seed."""
  bases = {line.optimizer: line for line in lines if line.way == to}
  found = {}
  for line in lines:
    base = bases.get(line.optimizer)
    if base is None or line.way in (PLAIN, to):
      continue
    seeds = sorted(line.accuracies.keys() & base.accuracies.keys())
    if seeds:
      one, other = ([of.accuracies[s] for s in seeds] for of in (line, base))
      found[line.optimizer, line.way] = one, other
  return found


def claims_of(lines: Sequence[Line]) -> str:
  """The paper's claim, and the same against its own start, by optimizer."""
  pairs = {
    (to, optimizer): pair
    for to in (PLAIN, INIT)
    for (optimizer, way), pair in pairs_of(lines, to).items()
    if way == BORT
  }
  held = holm([p_value(*pair) for pair in pairs.values()])
  told = [
    f'− {to}, {optimizer}: {difference(*pair).text()} (p = {p:.2g})'
    for ((to, optimizer), pair), p in zip(pairs.items(), held, strict=True)
  ]
  if not told:
    return ''
  return (
    f'Primary, Bort, with p values corrected for all {len(told)} (Holm):'
    f' {"; ".join(told)}. All else is secondary.'
  )


def table_of(
  lines: Sequence[Line], rates: Mapping[str, Sequence[float]]
) -> str:
  """Markdown."""
  text = [
    f'| {" | ".join(_HEADER)} |',
    '| --- | --- |' + ' ---: |' * (len(_HEADER) - 2),
  ]
  bases = (PLAIN, INIT)
  looks = sum(len(differences_of(lines, to)) for to in bases)
  apart = [differences_of(lines, to) for to in bases]
  strict = [differences_of(lines, to, max(looks, 1)) for to in bases]
  for line in lines:
    values = list(line.accuracies.values())
    key = line.optimizer, line.way
    cells = [
      *key,
      rate_in(rates[line.optimizer], line.learning_rate),
      f'{line.weight_decay:g}',
      line.seeds,
      spread(values, 2),
      *(
        _cell(of.get(key), sure.get(key))
        for of, sure in zip(apart, strict, strict=True)
      ),
      line.orthogonality_error,
    ]
    text.append(f'| {" | ".join(cells)} |')
  text += ['', f'{len(lines)} arms, {looks} differences looked at.']
  return '\n'.join(text)


def _cell(apart: Difference | None, sure: Difference | None) -> str:
  return apart.text(sure) if apart and sure else ''


def figure_of(lines: Sequence[Line]) -> Figure:
  """Differences to plain training, by optimizer."""
  figure = Figure((9, 4), layout='constrained')
  panel = figure.subplots()
  apart = differences_of(lines, PLAIN)
  ways = list(dict.fromkeys(way for _, way in apart))
  optimizers = list(dict.fromkeys(optimizer for optimizer, _ in apart))
  for i, optimizer in enumerate(optimizers):
    shown = [way for way in ways if (optimizer, way) in apart]
    offset = 0.15 * (i - (len(optimizers) - 1) / 2)
    places = [ways.index(way) + offset for way in shown]
    found = [apart[optimizer, way] for way in shown]
    panel.errorbar(
      places,
      [of.mean for of in found],
      [of.half if np.isfinite(of.half) else 0 for of in found],
      fmt='o',
      capsize=3,
      color=OKABE_ITO[i],
      label=optimizer,
    )
  panel.axhline(0, color='grey', lw=0.8)
  if max(map(abs, panel.get_ylim())) > _FAR:  # a seed that diverged
    panel.set_yscale('symlog', linthresh=1)
  panel.set_xticks(range(len(ways)), ways)
  panel.set_xlim(-0.5, max(len(ways), 1) - 0.5)
  panel.set_ylabel('test accuracy − plain (points)')
  if optimizers:
    panel.legend(
      frameon=False, ncols=4, loc='lower right', bbox_to_anchor=(1, 1)
    )
  return figure
