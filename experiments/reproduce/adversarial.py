r"""Explainable adversarial pictures beside gradient attacks, on MNIST.

Trains SimpleCNN with AdamW and with Bort, and makes each take test pictures for
another class: by editing the latent code of its last features
(``attacks.synthesize``), and by gradient attacks. Writes table, numbers and
figure into ``adversarial/DATA_MODEL/``. From the project's root:

    python experiments/reproduce/adversarial.py --data mnist --epochs 1 \
      --data-dir DIR
"""

import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from trained import train_both

from bort_jax import attacks, inversion, nn, plots
from bort_jax.train import TrainConfig

EPSILON, L2 = 0.2, 2.0


def main(
  config: tyro.conf.OmitArgPrefixes[TrainConfig],
  layer: str = 'act3',
  pictures: int = 64,
  method: inversion.Method = 'published',
) -> None:
  """Attacks both networks.

  Args:
    config: how the networks are trained.
    layer: whose code is edited.
    pictures: number of test pictures.
    method: how edited codes are run backwards.
  """
  folder = pathlib.Path(__file__).parent / 'adversarial'
  folder = folder / f'{config.data}_{config.model}'
  folder.mkdir(parents=True, exist_ok=True)
  trained = train_both(config, 4 * pictures)
  x, others = trained.pictures[:pictures], trained.pictures[pictures:]
  rows, shown = {}, {'input': np.asarray(x[:8])}
  for name, model, judge in (
    ('AdamW', trained.plain, trained.bort),
    ('Bort', trained.bort, trained.plain),
  ):
    for attack, made in attacked(
      model, judge, layer, method, x, others
    ).items():
      rows[name, attack] = measured(made, x, judge)
      shown[f'{name}\n{attack}'] = np.asarray(made.x[:8])
      print(name, attack, rows[name, attack])
  write(folder, config, pictures, trained.accuracies, rows)
  figure = plots.picture_grid(shown)
  figure.savefig(folder / 'figure.png', dpi=70)


def attacked(
  model: nnx.Module, other: nnx.Module, layer: str, method, x, others
):
  """Every attack towards one class, the second most likely."""
  apply_fn, params = nn.functional(model)
  outputs, _ = nn.functional(model, 'intermediates')
  target = jnp.argsort(apply_fn(params, x), axis=1)[:, -2]
  labels = jnp.argmax(apply_fn(params, others), axis=1)
  prototypes = attacks.class_prototypes(
    outputs, params, others, labels, layer=layer, num_classes=10
  )
  edit = lambda **options: attacks.synthesize(
    outputs, params, x, target, layer=layer, method=method, **options
  )
  second, more = nn.functional(other)
  return {
    'latent direction': edit(),
    'latent units': edit(edit='units', prototypes=prototypes),
    f'FGSM, ε = {EPSILON}': attacks.fgsm(
      apply_fn, params, x, target, EPSILON, targeted=True
    ),
    f'PGD L∞, ε = {EPSILON}': attacks.pgd(
      apply_fn, params, x, target, EPSILON, steps=20, targeted=True
    ),
    f'PGD L2, ε = {L2}': attacks.pgd(
      apply_fn, params, x, target, L2, norm='l2', steps=20, targeted=True
    ),
    'least likely, L∞': attacks.least_likely(
      apply_fn, params, x, EPSILON, steps=20
    ),
    'ensemble of both': attacks.ensemble(
      (apply_fn, second), (params, more), x, target
    ),
  }


def measured(made, x: jax.Array, judge: nnx.Module) -> dict[str, float]:
  """Success, size and place of changes; whether the other network agrees."""
  apply_fn, params = nn.functional(judge)
  succeeded = np.asarray(made.success)
  own = succeeded if succeeded.ndim == 1 else succeeded[0]
  after = np.asarray(made.after)
  after = after if after.ndim == 1 else after[0]
  seen = np.asarray(jnp.argmax(apply_fn(params, made.x), axis=1))
  low = attacks.low_frequency_share(made.change)
  inside = attacks.object_share(made.change, attacks.foreground(x, 0.1))
  mean = lambda values: float(np.nanmean(np.asarray(values)[own]))
  return {
    'success': float(own.mean()),
    'L2': mean(made.l2),
    'L∞': mean(made.linf),
    'low frequency': mean(low.share),
    'low frequency, noise': mean(np.broadcast_to(low.random, own.shape)),
    'on object': mean(inside.share),
    'on object, noise': mean(np.broadcast_to(inside.random, own.shape)),
    'the other agrees': mean(seen == after),
  }


def write(folder, config: TrainConfig, pictures: int, accuracies, rows) -> None:
  """Writes table.md and results.json."""
  columns = next(iter(rows.values()))
  lines = [
    f'| network | attack | {" | ".join(columns)} |',
    '| --- | --- |' + ' ---: |' * len(columns),
  ]
  for (name, attack), row in rows.items():
    cells = ' | '.join(f'{value:.3g}' for value in row.values())
    lines.append(f'| {name} | {attack} | {cells} |')
  reached = ', '.join(f'{n} {a:.2%}' for n, a in accuracies.items())
  lines += [
    '',
    f'{config.data}, {config.model}, {config.num_epochs} epochs, seed'
    f' {config.seed}, {pictures} test pictures, towards the second most likely'
    ' class (least likely: that one). All but success are means over the'
    ' pictures that succeeded. Noise: what white noise has. The other: the'
    ' network trained the other way predicts the same class for the picture.'
    f' Test accuracy: {reached}. jax {jax.__version__} on'
    f' {jax.devices()[0].device_kind} ({os.cpu_count()} cores).',
  ]
  (folder / 'table.md').write_text('\n'.join(lines) + '\n')
  numbers = [{'network': n, 'attack': a, **row} for (n, a), row in rows.items()]
  text = json.dumps(numbers, indent=1, ensure_ascii=False)
  (folder / 'results.json').write_text(text + '\n')
  print('\n'.join(lines))


if __name__ == '__main__':
  tyro.cli(main)
