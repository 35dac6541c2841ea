"""How far B-cos layers and networks are from the published code's numbers.

Reruns the comparisons of ``tests/nn/bcos`` with ``tests/golden/bcos.npz`` and
writes ``bcos/golden.md``: of each group of cases the largest deviation, in
units of the largest number of the array, in float64 and in float32. From the
project's root:

    python experiments/reproduce/bcos_golden.py
"""

import importlib
import pathlib
import sys
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

_ROOT = pathlib.Path(__file__).parents[2]
sys.path.append(str(_ROOT / 'tests' / 'nn' / 'bcos'))
golden_layers = importlib.import_module('golden_layers')
golden_networks = importlib.import_module('golden_networks')

Found = dict[str, float]
_LAYERS = {
  'y': 'forward',
  'gx_train': 'training gradient',
  'gw_train': 'of the kernel',
  'gx_explain': 'explanation gradient',
}
_NETWORKS = {
  'logits': 'logits',
  'W': 'W(x)',
  'map': 'contribution map',
  'sums': 'sums of all classes',
  'constant': 'constant part',
  'picture': 'picture',
}


def main() -> None:
  """Compares and writes."""
  layers = lambda name: (
    lambda dtype: golden_layers.layer_deviations(name, dtype)
  )
  norms = lambda case: lambda dtype: golden_layers.norm_deviations(*case, dtype)
  nets = lambda name: lambda dtype: golden_networks.deviations(name, dtype)
  transformers = ('netE', 'netF')
  chosen = lambda inside: [
    nets(n) for n in golden_networks.NETS if (n in transformers) == inside
  ]
  text = '\n\n'.join(
    [
      _table(
        _LAYERS,
        {
          'convolutions': [layers(name) for name in golden_layers.CONVS],
          'dense layers': [layers(name) for name in golden_layers.DENSES],
          'norms': [norms(case) for case in golden_layers.NORM_CASES],
          'norm of tokens': [golden_layers.token_norm_deviations],
        },
      ),
      _table(
        _NETWORKS,
        {'CNNs': chosen(False), 'transformers': chosen(True)},
      ),
      'Largest deviations from what the published code gives in float64, in'
      ' units of the largest number of each array. Transformers: positions are'
      ' rounded to float32 there, in both precisions; with theirs fitted, the'
      ' rest agrees to 1e-14 (`tests/nn/bcos/test_bcos_networks.py`). Pictures'
      ' in float32: their colours are quotients, of numbers near zero too. jax'
      f' {jax.__version__} on {jax.devices()[0].device_kind}.',
    ]
  )
  path = pathlib.Path(__file__).parent / 'bcos' / 'golden.md'
  path.write_text(text + '\n')
  print(text)


def _table(
  columns: dict[str, str],
  groups: dict[str, Sequence[Callable[[type], Found]]],
) -> str:
  """A row for each group and precision."""
  lines = [
    ['', 'cases', 'precision', *columns.values()],
    ['---', '---:', '---', *['---:'] * len(columns)],
  ]
  for group, cases in groups.items():
    for dtype in (np.float64, np.float32):
      with jax.enable_x64(dtype is np.float64):
        found = [compare(dtype) for compare in cases]
      cells = [_largest(one[key] for one in found) for key in columns]
      lines.append([group, str(len(cases)), dtype.__name__, *cells])
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _largest(deviations: Iterable[float]) -> str:
  known = [d for d in deviations if not np.isnan(d)]
  return f'{max(known):.1e}' if known else '–'


if __name__ == '__main__':
  main()
