"""What tables of kept runs have in common."""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from arms import Arm
from fitting import Task

Row = Mapping[str, Any]
CHANCE = 0.2  # test accuracy below which ten classes might be guessed
FAILED_NOTE = (
  f' A seed failed whose accuracy is below {CHANCE:.0%}, or below two thirds'
  ' of the best of its arm, or whose numbers are not finite; it counts in means'
  ' and differences, whose intervals then say little, but not in the'
  ' orthogonality error if they are not finite.'
)


def arm_in(facts: Mapping[str, Any]) -> Arm:
  """The arm of a run."""
  names = [field.name for field in dataclasses.fields(Arm)]
  return Arm(**{name: facts[name] for name in names if name in facts})


def task_in(facts: Mapping[str, Any]) -> Task:
  """The task of a run."""
  names = [field.name for field in dataclasses.fields(Task)]
  task = Task(**{name: facts[name] for name in names})
  return dataclasses.replace(task, model_options=tuple(task.model_options))


def task_line(task: Task) -> str:
  """A task in words."""
  options = ', '.join(task.model_options)
  return (
    f'{task.data}, {task.model}{f" ({options})" if options else ""}, trained on'
    f' {task.train_split} for {task.epochs} epochs, batches of'
    f' {task.batch_size}'
    + (
      f', cropped by {task.pad_crop}{" and flipped" if task.flip else ""}'
      if task.pad_crop or task.flip
      else ''
    )
  )


def made_line(rows: Sequence[Row]) -> str:
  """By what some runs were made, and how long they took."""
  of = lambda name: ', '.join(sorted({row['made'][name] for row in rows}))
  minutes = sum(row['found']['seconds'] for row in rows) / 60
  return (
    f'{len(rows)} trainings, {minutes:.0f} minutes in all; commit'
    f' {of("commit")}; jax {of("jax")} on {of("device")}; {of("date")}.'
  )


def tested(rows: Sequence[Row]) -> list[Row]:
  """Those on the test set; the others were for tuning."""
  return [row for row in rows if row['facts']['test_split'] is None]


def by_task(rows: Sequence[Row]) -> dict[Task, list[Row]]:
  """The runs of each task, in the order of their coming."""
  tasks: dict[Task, list[Row]] = {}
  for row in rows:
    tasks.setdefault(task_in(row['facts']), []).append(row)
  return tasks


def spread(values: Sequence[float], digits: int) -> str:
  """Mean ± standard deviation."""
  mean = f'{np.mean(values):.{digits}f}'
  if len(values) < 2:
    return mean
  return f'{mean} ± {np.std(values, ddof=1):.{digits}f}'


def rate_in(grid: Sequence[float], rate: float) -> str:
  """A tuned number; with a star at an end of what was tried."""
  return f'{rate:g}{"*" if rate in (min(grid), max(grid)) else ""}'


def seeds_cell(rows: Sequence[Row]) -> str:
  """How many seeds there are, and how many of them failed."""
  accuracies = [row['found']['accuracy'] for row in rows]
  least = max(CHANCE, 2 / 3 * max(accuracies))
  failed = sum(
    not row['found']['kernels'] or accuracy < least
    for row, accuracy in zip(rows, accuracies, strict=True)
  )
  return f'{len(rows)}, {failed} failed' if failed else str(len(rows))


def worst_error(rows: Sequence[Row]) -> str:
  """The largest orthogonality error of all kernels, mean over the runs."""
  errors = [
    max(kernel[-1] for kernel in row['found']['kernels'].values())
    for row in rows
    if row['found']['kernels']
  ]
  return f'{np.mean(errors):.2g}' if errors else 'diverged'


def write_runs_csv(path: pathlib.Path, rows: Sequence[Row]) -> None:
  """A line for each run; kernels are left to the JSON."""
  flat = [
    {**row['facts'], **_single(row['found']), 'commit': row['made']['commit']}
    for row in rows
  ]
  write_csv(path, flat)


def write_csv(path: pathlib.Path, rows: Sequence[Row]) -> None:
  """All rows, with a column for every name that any of them has."""
  names = list(dict.fromkeys(name for row in rows for name in row))
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, names, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


def write_page(folder: pathlib.Path, sections: Sequence[str]) -> None:
  """Writes and prints table.md."""
  text = '\n\n'.join(sections) + '\n'
  (folder / 'table.md').write_text(text)
  print(text)


def _single(found: Mapping[str, Any]) -> dict[str, Any]:
  return {k: v for k, v in found.items() if not isinstance(v, dict | list)}
