"""Tables and the figure of judged B-cos networks."""

import csv
import itertools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import paired
from bcos_measures import OWN, RANDOM
from bcos_scope import COSINE, among
from matplotlib.figure import Figure

# Nine layers, MaxOut 2, 100 epochs on CIFAR-10: accuracy in %, and the median
# of 3×3 grids, read off a plot.
PUBLISHED = {
  1.0: (93.5, 0.18),
  1.25: (93.8, 0.34),
  1.5: (93.7, 0.72),
  1.75: (93.7, 0.94),
  2.0: (93.2, 0.97),
}
_TRAINING = {None: 'plain', 'l2-full': 'Bort', 'l2-row': 'unit rows'}
_MARKERS = dict(zip(_TRAINING.values(), 'os^', strict=True))


def write(
  folder: pathlib.Path, arms: Mapping[str, Any], note: str = ''
) -> None:
  """Writes table.md, table.csv and figure.png.

  Args:
    folder: where.
    arms: what is known of each network.
    note: what else is said under the table.
  """
  groups = grouped(arms)
  text = '\n\n'.join(
    [
      networks_table(groups),
      methods_table(groups),
      *differences_tables(groups),
      ' '.join([_words(arms), *([note] if note else [])]),
    ]
  )
  (folder / 'table.md').write_text(text + '\n')
  with (folder / 'table.csv').open('w', newline='') as file:
    rows = [_flat(arm) for arm in arms.values()]
    names = sorted({name for row in rows for name in row})
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    writer.writerows(rows)
  figure(groups).savefig(folder / 'figure.png', dpi=90)
  print(text)


def grouped(arms: Mapping[str, Any]) -> dict[tuple[float, str], list[Any]]:
  """Networks that differ in their seeds alone, by B and training."""
  groups: dict[tuple[float, str], list[Any]] = {}
  for arm in arms.values():
    exponent = float(arm['facts']['options'][0].partition('=')[2])
    key = exponent, _TRAINING[arm['facts']['mode']]
    groups.setdefault(key, []).append(arm)
  order = list(_TRAINING.values()).index
  return dict(
    sorted(groups.items(), key=lambda item: (item[0][0], order(item[0][1])))
  )


def networks_table(groups: Mapping[tuple[float, str], list[Any]]) -> str:
  """A row for each B and training."""
  first = next(iter(groups.values()))[0]
  back = [name for name in first if name.startswith('back from')]
  published = any(
    a['facts']['data'] == 'cifar10' for g in groups.values() for a in g
  )
  heads = [
    'B',
    'training',
    'seeds',
    'accuracy',
    'localisation 2×2',
    'median',
    '3×3',
    'median',
    *(['published accuracy', 'published 3×3, median'] if published else []),
    'orthogonality error',
    COSINE,
    'mean abs. cos',
    'of the best unit',
    *(f'error {layer}' for layer in back),
  ]
  rows = []
  for (exponent, training), group in groups.items():
    rows.append(
      [
        f'{exponent:g}',
        training,
        str(len(group)),
        _cell([100 * arm['accuracy'] for arm in group], '.1f', ' %'),
        *(
          _cell(_scores(group, grid, OWN, middle), '.2f')
          for grid in ('2', '3')
          for middle in ('mean', 'median')
        ),
        *(_published(exponent, training) if published else []),
        _cell([arm['orthogonality error'] for arm in group], '.2g'),
        _cell([arm[COSINE] for arm in group], '.2f'),
        *(
          _cell([a['alignment'][k] for a in group], '.3f')
          for k in ('all', 'best')
        ),
        *(_back(group, layer) for layer in back),
      ]
    )
  return _table(heads, rows)


def _published(exponent: float, training: str) -> list[str]:
  if training != 'plain' or exponent not in PUBLISHED:
    return ['–', '–']
  accuracy, localisation = PUBLISHED[exponent]
  return [f'{accuracy} %', f'{localisation:.2f}']


def methods_table(groups: Mapping[tuple[float, str], list[Any]]) -> str:
  """A row for each network and method."""
  rows = []
  for (exponent, training), group in groups.items():
    for name, judged in group[0]['perturbation'].items():
      if 'why' in judged:
        cells = ['–'] * 4
      else:
        curves = [arm['perturbation'][name] for arm in group]
        cells = [
          *(_cell(_beside(group, grid, name), '.2f') for grid in (2, 3)),
          *(
            _cell([c[order]['mean'] for c in curves], '.2f')
            for order in ('least first', 'most first')
          ),
        ]
      rows.append([f'{exponent:g}', training, name, *cells])
  heads = (
    'B',
    'training',
    'explanation',
    '2×2',
    '3×3',
    'least first ↑',
    'most first ↓',
  )
  return _table(heads, rows)


def differences_tables(
  groups: Mapping[tuple[float, str], list[Any]],
) -> list[str]:
  """Paired differences of localisation; none of fewer than three seeds."""
  found = {
    (exponent, f'{other} − {one}'): pairs
    for (exponent, one), (beside, other) in itertools.combinations(groups, 2)
    if exponent == beside
    and len(pairs := _pairs(groups[exponent, one], groups[beside, other])) > 2
  }
  looks = len(found) * len(_LOOKED_AT)
  if not looks:
    return []
  rows = [
    [
      f'{exponent:g}',
      label,
      str(len(pairs)),
      *(_difference(pairs, *what, looks) for what in _LOOKED_AT),
    ]
    for (exponent, label), pairs in found.items()
  ]
  heads = ('B', 'paired by seed', 'seeds', '2×2', 'median', '3×3', 'median')
  words = (
    'Differences of the localisation of B-cos explanations, ± the half width of'
    " Student's 95 % interval, each by itself; in bold without zero after the"
    f' correction for all {looks} (Bonferroni).'
  )
  return [_table(heads, rows), words]


_LOOKED_AT = tuple(itertools.product(('2', '3'), ('mean', 'median')))


def _pairs(one: list[Any], other: list[Any]) -> list[tuple[Any, Any]]:
  """Networks of the same seed."""
  by_seed = {arm['facts']['seed']: arm for arm in other}
  return [
    (arm, by_seed[arm['facts']['seed']])
    for arm in one
    if arm['facts']['seed'] in by_seed
  ]


def _difference(
  pairs: list[tuple[Any, Any]], grid: str, middle: str, looks: int
) -> str:
  one, other = (
    _scores([*arms], grid, OWN, middle) for arms in zip(*pairs, strict=True)
  )
  strict = paired.difference(other, one, looks=looks)
  return paired.difference(other, one).text(strict)


def figure(groups: Mapping[tuple[float, str], list[Any]]) -> Figure:
  """Localisation over accuracy, by B."""
  found = Figure(figsize=(5.5, 4), layout='constrained')
  panel = found.subplots()
  for training, marker in _MARKERS.items():
    points = [
      (
        np.mean([100 * arm['accuracy'] for arm in group]),
        np.mean(_scores(group, '3', OWN) or np.nan),
        exponent,
      )
      for (exponent, name), group in groups.items()
      if name == training
    ]
    if not points:
      continue
    accuracy, localisation, exponents = zip(*points, strict=True)
    panel.plot(accuracy, localisation, marker + '-', label=f'B-cos, {training}')
    for x, y, b in zip(accuracy, localisation, exponents, strict=True):
      panel.annotate(f'B = {b:g} ', (x, y), fontsize=8, ha='right')
  random = [s for g in groups.values() for s in _scores(g, '3', RANDOM)]
  if random:
    panel.axhline(
      float(np.mean(random)), color='grey', ls=':', label='random maps'
    )
  panel.set(xlabel='test accuracy, %', ylabel='grid pointing, 3×3', ylim=(0, 1))
  panel.legend(frameon=False)
  return found


def _scores(
  group: list[Any], grid: str, method: str, middle: str = 'mean'
) -> list[float]:
  """The mean or median of each seed that has one."""
  judged = [arm[f'localisation {grid}'].get(method, {}) for arm in group]
  return [one[middle] for one in judged if one.get(middle) is not None]


def _beside(group: list[Any], grid: int, method: str) -> list[float]:
  """Scores on the mosaics that all methods are judged on."""
  if method != OWN:
    return _scores(group, str(grid), method)
  judged = [arm[among(grid)] for arm in group]
  return [one['mean'] for one in judged if one.get('mean') is not None]


def _back(group: list[Any], layer: str) -> str:
  errors = [arm[layer]['raw']['mean'] for arm in group if 'raw' in arm[layer]]
  return _cell(errors, '.2g') if errors else 'refused'


def _cell(values: list[float], spec: str, unit: str = '') -> str:
  """The mean, and the standard deviation over seeds."""
  if not values:
    return '–'
  text = format(np.mean(values), spec)
  if len(values) > 1:
    text += f' ± {format(np.std(values, ddof=1), spec)}'
  return text + unit


def _table(heads, rows) -> str:
  lines = [heads, ['---'] * len(heads), *rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _flat(arm: Any, prefix: str = '') -> dict[str, Any]:
  """A network's numbers, each under the path to it."""
  flat = {}
  for name, value in arm.items():
    path = f'{prefix}{name}'
    flat |= (
      _flat(value, f'{path}/') if isinstance(value, dict) else {path: value}
    )
  return flat


def _words(arms: Mapping[str, Any]) -> str:
  facts = [arm['facts'] for arm in arms.values()]
  of = lambda key: _range([fact[key] for fact in facts])
  scope = lambda key: _range([fact['scope'][key] for fact in facts])
  options = _range([', '.join(fact['options'][1:]) for fact in facts])
  mosaics = ' and '.join(
    f'{_range(counts)} mosaics of {grid}×{grid}'
    for grid in (2, 3)
    if (counts := _mosaics(arms, grid))
  )
  return (
    f'{of("data")} ({of("train_split")}), {of("model")} with {options},'
    f' {of("epochs")} epochs. Means, and medians beside those of B-cos; ± is'
    ' the standard deviation over seeds. Localisation: the grid pointing game'
    f' of pictures predicted right{_sure(facts)}, by chance 0.25 and 0.11;'
    f' {mosaics} (published: 500) in the first table, the'
    f' {scope("posthoc_mosaics")} first of them in the second; integrated'
    f' gradients of {scope("steps")} steps.'
    ' Orthogonality error: of the weights as they are, whose lengths B-cos'
    ' layers ignore; the cos of two units is of all layers with no more units'
    ' than inputs. Least and most first: area under the probability of the'
    ' class while pixels of the coded picture go to zero,'
    f' {scope("perturbed")} pictures.'
    ' Error back: relative, of pictures run to a layer and back'
    f' ({scope("inverted")} pictures); 1 is a black picture. jax'
    f' {jax.__version__} on {jax.devices()[0].device_kind}'
    f' ({os.cpu_count()} cores).'
  )


def _sure(facts: list[Any]) -> str:
  """How sure of its pictures a network must be, as published or not."""
  sure = [fact['scope']['confidence'] for fact in facts]
  if not any(sure):
    return ' (the published filter, sigmoid > 0.5 too, is off)'
  return f' and surely (sigmoid > {_range(sure)})'


def _mosaics(arms: Mapping[str, Any], grid: int) -> list[int]:
  """How many each network's own explanations were judged on."""
  judged = [arm[f'localisation {grid}'] for arm in arms.values()]
  return [found[OWN]['count'] // grid**2 for found in judged if OWN in found]


def _range(values: list[Any]) -> str:
  """What all have in common, or all that there is."""
  different = sorted(set(values), key=str)
  if all(isinstance(value, int) for value in different):
    low, high = min(different), max(different)
    return str(low) if low == high else f'{low} to {high}'
  return ' or '.join(map(str, different))
