"""Tables of the glass-box experiment, from its rows."""

import csv
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]


def write_csv(path: pathlib.Path, rows: Rows) -> None:
  """All rows, all numbers to six digits."""
  names = list(dict.fromkeys(name for row in rows for name in row))
  short = lambda value: f'{value:.6g}' if isinstance(value, float) else value
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, names, lineterminator='\n')
    writer.writeheader()
    writer.writerows({k: short(v) for k, v in row.items()} for row in rows)


def write_json(path: pathlib.Path, settings: dict, found: dict) -> None:
  """All rows, all digits, and the settings they depend on."""
  text = json.dumps({'settings': settings, **found}, indent=1)
  path.write_text(text + '\n')


def grouped(rows: Rows, by: Sequence[str]) -> dict[tuple, Rows]:
  """Rows that agree in some columns, in the order of their coming."""
  groups: dict[tuple, Rows] = {}
  for row in rows:
    groups.setdefault(tuple(row[name] for name in by), []).append(row)
  return groups


def table(
  rows: Rows, by: Sequence[str], columns: Sequence[str], digits: int = 3
) -> str:
  """A line for each group: mean ± standard deviation over its seeds."""
  lines = [
    f'| {" | ".join([*by, *columns])} |',
    f'|{" --- |" * len(by)}{" ---: |" * len(columns)}',
  ]
  for names, group in grouped(rows, by).items():
    cells = [_spread(group, column, digits) for column in columns]
    lines.append(f'| {" | ".join([*map(str, names), *cells])} |')
  return '\n'.join(lines) + '\n'


def _spread(group: Rows, column: str, digits: int) -> str:
  values = np.array([row.get(column, np.nan) for row in group], float)
  if np.isnan(values).any():
    return '–'
  mean = f'{values.mean():.{digits}f}'
  if values.mean() != 0 and abs(values.mean()) < 10.0**-digits:
    mean = f'{values.mean():.1e}'
  if len(values) == 1:
    return mean
  return f'{mean} ± {values.std(ddof=1):.{digits}f}'


def accuracy_table(rows: Rows, task: str, how: str) -> str:
  """Representations down, classifiers across, of one measure ``how``."""
  wide: Rows = []
  of_task = [row for row in rows if row['task'] == task]
  for (name, seed), group in grouped(
    of_task, ('representation', 'seed')
  ).items():
    by_kind = {row['classifier']: row.get(how) for row in group}
    wide.append({'representation': name, 'seed': seed, **by_kind})
  kinds = list(dict.fromkeys(row['classifier'] for row in of_task))
  return table(wide, ('representation',), kinds)
