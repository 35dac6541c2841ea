r"""Pictures run to a layer and back, by networks, controls and methods.

Trains a network with AdamW and with Bort, and runs test pictures to one of its
layers and back: by untrained networks (Flax's usual kernels, and orthogonal
ones), by both trained ones with the published rule, and by both with least
squares. Writes figures (as they come, and each at its best scale), table and
numbers into ``inversion/DATA_MODEL/``. From the project's root:

    python experiments/reproduce/inversion.py act3 --data mnist \
      --model simple_cnn --epochs 3 --batch-size 128 --data-dir DIR
    python experiments/reproduce/inversion.py features --data mnist \
      --model patch_net --epochs 3 --batch-size 128 --data-dir DIR
    python experiments/reproduce/inversion.py act2_2 --data imagenet2012 \
      --image-size 64 --train-split 'validation[:936]' \
      --test-split 'validation[936:]' --model vgg16 --epochs 2 \
      --batch-size 32 --pictures 8 --data-dir DIR
"""

import dataclasses
import json
import os
import pathlib

import jax
import numpy as np
import tyro
from trained import train_both, untrained

from bort_jax import inversion, metrics, nn, plots
from bort_jax.train import TrainConfig

SHOWN = 8


def main(
  layer: tyro.conf.Positional[str],
  config: tyro.conf.OmitArgPrefixes[TrainConfig],
  pictures: int = 64,
  max_steps: int = 200,
) -> None:
  """Runs pictures to a layer and back.

  Args:
    layer: name of the layer.
    config: how the networks are trained.
    pictures: number of test pictures; eight are shown.
    max_steps: most iterations of least squares in a segment.
  """
  folder = pathlib.Path(__file__).parent / 'inversion'
  folder = folder / f'{config.data}_{config.model}'
  folder.mkdir(parents=True, exist_ok=True)
  trained = train_both(config, pictures)
  x = trained.pictures
  arms = {
    'untrained,\nlecun normal': (untrained(config, 'lecun'), 'published'),
    'untrained,\northogonal': (untrained(config, 'orthogonal'), 'published'),
    'AdamW': (trained.plain, 'published'),
    'Bort': (trained.bort, 'published'),
    'AdamW +\nleast squares': (trained.plain, 'least_squares'),
    'Bort +\nleast squares': (trained.bort, 'least_squares'),
  }
  results = {}
  for name, (model, method) in arms.items():
    outputs, params = nn.functional(model, 'intermediates')
    found = inversion.reconstruct(
      inversion.until(outputs, layer),
      params,
      x,
      method=method,
      max_steps=max_steps,
    )
    results[name] = np.asarray(found.x)
  errors = {
    name: jax.tree.map(np.asarray, metrics.reconstruction_error(x, result))
    for name, result in results.items()
  }
  shown = slice(0, SHOWN)
  few = {name: result[shown] for name, result in results.items()}
  for name, rescaled in (('figure', False), ('figure_scaled', True)):
    figure = plots.inversions(
      np.asarray(x[shown]), few, errors, rescaled=rescaled
    )
    figure.savefig(folder / f'{name}.png', dpi=70)
  write(folder, layer, config, trained.accuracies, errors)


def write(
  folder: pathlib.Path, layer: str, config: TrainConfig, accuracies, errors
) -> None:
  """Writes table.md and results.json."""
  lines = [
    '| network | raw error | scale-fitted error | correlation | SSIM |',
    '| --- | ---: | ---: | ---: | ---: |',
  ]
  for name, error in errors.items():
    cells = [f'{np.mean(e):.3g} ± {np.std(e):.2g}' for e in error]
    lines.append(f'| {name.replace(chr(10), " ")} | {" | ".join(cells)} |')
  count = len(next(iter(errors.values())).raw)
  reached = ', '.join(f'{n} {a:.2%}' for n, a in accuracies.items())
  lines += [
    '',
    f'{config.data}, {config.model} to {layer} and back, {config.num_epochs}'
    f' epochs, seed {config.seed}, {count} test pictures: mean ± standard'
    ' deviation over the pictures. The published rule but where least squares'
    f' are named. Test accuracy: {reached}. jax {jax.__version__} on'
    f' {jax.devices()[0].device_kind} ({os.cpu_count()} cores).',
  ]
  (folder / 'table.md').write_text('\n'.join(lines) + '\n')
  numbers = {
    'layer': layer,
    'config': dataclasses.asdict(config),
    'errors': {
      name.replace('\n', ' '): {
        field: [_rounded(v) for v in values]
        for field, values in error._asdict().items()
      }
      for name, error in errors.items()
    },
  }
  text = json.dumps(numbers, indent=1, default=str)
  (folder / 'results.json').write_text(text + '\n')
  print('\n'.join(lines))


def _rounded(value: np.ndarray) -> float | None:
  """None where it is not defined: JSON has no NaN."""
  return None if np.isnan(value) else round(float(value), 5)


if __name__ == '__main__':
  tyro.cli(main)
