"""Tables and the figure of what was measured of units under attack."""

import csv
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from neurons_case import SETS

from bort_jax.plots.colors import OKABE_ITO

_NETWORKS = {'adamw': 'AdamW', 'bort': 'Bort'}
_ACCURACIES = {'clean': 'clean', 'fgsm': 'FGSM', 'pgd': 'PGD'}
_MEASURES = {
  'real': 'consistency, real',
  'adversarial': 'adversarial',
  'both': 'both',
  'chance': 'chance, real',
  'adversarial_chance': 'chance, adversarial',
  'pictures': 'top pictures, real',
  'adversarial_pictures': 'top pictures, adversarial',
  'cosine': 'cosine',
  'relative_distance': 'relative distance',
  'drift': 'drift',
  'bound': 'bound',
  'of_bound': 'greatest share of it',
}


def write_tables(
  folder: pathlib.Path,
  rows: Sequence[Mapping[str, Any]],
  options: Mapping[str, int],
  device: str,
) -> None:
  """Writes results.json, two CSV files, table.md and figure.png."""
  (folder / 'results.json').write_text(json.dumps(rows, indent=1) + '\n')
  accuracies, layers = _accuracies(rows), _layers(rows)
  _write_csv(folder / 'accuracies.csv', accuracies)
  _write_csv(folder / 'layers.csv', layers)
  sections = [_foreword(options, device)]
  for data in SETS:
    if any(row['data'] == data for row in rows):
      of_data = lambda all_rows, data=data: [
        row for row in all_rows if row['data'] == data
      ]
      sections += [
        f'## {data}',
        _markdown(of_data(accuracies), (), _ACCURACIES, '.1%'),
        _markdown(of_data(layers), ('layer',), _MEASURES, '.3g'),
      ]
  text = '\n\n'.join(sections) + '\n'
  (folder / 'table.md').write_text(text)
  figure_of(layers).savefig(folder / 'figure.png', dpi=80)
  print(text)


def _foreword(options: Mapping[str, int], device: str) -> str:
  sizes = '; '.join(
    f'{name}: {s.pictures} training pictures, {s.epochs} epochs, ε up to'
    f' {s.trained:.3g} in training on adversarial pictures, {s.judged:.3g} of'
    ' the attacks here'
    for name, s in SETS.items()
  )
  return (
    f'Mean ± standard deviation over {options["seeds"]} seeds. {sizes}.'
    ' CIFAR-10 here is a copy that was recompressed as JPEG.'
    ' SimpleCNN of widths 8 16 32 48 64, FGSM in training, β = 0.1.'
    ' Clean accuracy is of all test pictures, all else of the first'
    f' {options["pictures"]}; adversarial pictures are those of PGD,'
    f' {options["pgd_steps"]} steps, on each network itself. Consistency is of'
    f' the {options["count"]} top pictures of each unit, mean over the units;'
    ' chance is that of as many random pictures as each unit has top ones, for'
    ' a unit that few pictures activate has few (of both it is more, for a'
    ' picture and its adversarial one are of one class). Cosine, relative'
    ' distance and drift ‖φ(x) − φ(x*)‖ are means over the pairs; the bound is'
    ' L ‖x − x*‖.'
    f' {device}.'
  )


def _setting(row: Mapping[str, Any]) -> dict[str, Any]:
  return {
    'data': row['data'],
    'loss': row['loss'],
    'network': _NETWORKS[row['network']],
    'seed': row['seed'],
  }


def _accuracies(rows) -> list[dict[str, Any]]:
  return [{**_setting(r), **{k: r[k] for k in _ACCURACIES}} for r in rows]


def _layers(rows) -> list[dict[str, Any]]:
  return [{**_setting(row), **layer} for row in rows for layer in row['layers']]


def _write_csv(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


def _by_setting(rows, names: Sequence[str]) -> dict[tuple, list]:
  groups: dict[tuple, list] = {}
  for row in rows:
    groups.setdefault(tuple(row[name] for name in names), []).append(row)
  return groups


def _markdown(
  rows, more: Sequence[str], columns: Mapping[str, str], spec: str
) -> str:
  names = ('loss', 'network', *more)
  lines = [
    f'| {" | ".join((*names, *columns.values()))} |',
    '|' + ' --- |' * len(names) + ' ---: |' * len(columns),
  ]
  for setting, group in _by_setting(rows, names).items():
    cells = [_cell([row[name] for row in group], spec) for name in columns]
    lines.append(f'| {" | ".join((*setting, *cells))} |')
  return '\n'.join(lines)


def _cell(values: Sequence[float], spec: str) -> str:
  mean = format(np.mean(values), spec)
  if len(values) < 2:
    return mean
  return f'{mean} ± {format(np.std(values, ddof=1), spec)}'


def figure_of(layers: Sequence[Mapping[str, Any]]) -> Figure:
  """Consistency, and drift under its bound, by layer."""
  data = list(dict.fromkeys(row['data'] for row in layers))
  figure = Figure((13, 3.9 * len(data)), layout='constrained')
  axes = figure.subplots(len(data), 2, squeeze=False)
  for (left, right), name in zip(axes, data, strict=True):
    of_data = [row for row in layers if row['data'] == name]
    groups = _by_setting(of_data, ('loss', 'network'))
    for color, (setting, rows) in zip(OKABE_ITO, groups.items(), strict=False):
      label = ', '.join(setting)
      _draw(left, rows, 'real', color, '-', 'o', f'{label}: real')
      _draw(left, rows, 'adversarial', color, '--', 'x', f'{label}: attacked')
      _draw(right, rows, 'drift', color, '-', 'o', f'{label}: drift')
      _draw(right, rows, 'bound', color, ':', None, f'{label}: bound')
    _draw(left, of_data, 'chance', 'grey', ':', None, 'random pictures')
    left.set(title=f'{name}: consistency of units', ylabel='pᵀAp')
    right.set(title=f'{name}: drift of layers', ylabel='2-norm', yscale='log')
    for axis in (left, right):
      axis.legend(fontsize=7, bbox_to_anchor=(1, 1), loc='upper left')
  return figure


def _draw(axis, rows, column, color, line, marker, label) -> None:
  """Means over the seeds, and every seed as a point."""
  groups = _by_setting(rows, ('layer',))
  names = [layer for (layer,) in groups]
  means = [np.mean([r[column] for r in group]) for group in groups.values()]
  axis.plot(names, means, line, color=color, label=label)
  if marker is not None:
    axis.scatter(
      [row['layer'] for row in rows],
      [row[column] for row in rows],
      s=12,
      color=color,
      marker=marker,
      alpha=0.6,
    )
