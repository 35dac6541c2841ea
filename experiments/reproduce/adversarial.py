r"""Explainable adversarial pictures beside gradient attacks, on MNIST.

Trains SimpleCNN with AdamW and with Bort, and makes each take test pictures for
another class: by editing the latent code of its last features
(``attacks.synthesize``), and by gradient attacks. Writes table, numbers and
figure (of the first seed) into ``adversarial/DATA_MODEL/``. From the project's
root, on two cores twenty minutes:

    python experiments/reproduce/adversarial.py --data mnist --seeds 3 \
      --train-split 'train[:20000]' --data-dir DIR
"""

import dataclasses
import json
import os
import pathlib
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from trained import train_both

from bort_jax import attacks, inversion, nn, plots
from bort_jax.train import TrainConfig

EPSILON, L2 = 0.2, 2.0
Rows: TypeAlias = dict[tuple[str, str], list[dict[str, float]]]


def main(
  config: tyro.conf.OmitArgPrefixes[TrainConfig],
  layer: str = 'act3',
  pictures: int = 64,
  method: inversion.Method = 'published',
  seeds: int = 1,
) -> None:
  """Attacks both networks.

  Args:
    config: how the networks are trained; its seed is the first.
    layer: whose code is edited.
    pictures: number of test pictures.
    method: how edited codes are run backwards.
    seeds: how many.
  """
  folder = pathlib.Path(__file__).parent / 'adversarial'
  folder = folder / f'{config.data}_{config.model}'
  folder.mkdir(parents=True, exist_ok=True)
  rows: Rows = {}
  accuracies: dict[str, list[float]] = {}
  for seed in range(config.seed, config.seed + seeds):
    settings = dataclasses.replace(config, seed=seed)
    trained = train_both(settings, 4 * pictures)
    for name, accuracy in trained.accuracies.items():
      accuracies.setdefault(name, []).append(accuracy)
    x, others = trained.pictures[:pictures], trained.pictures[pictures:]
    shown = {'input': np.asarray(x[:8])}
    for name, model, judge in (
      ('AdamW', trained.plain, trained.bort),
      ('Bort', trained.bort, trained.plain),
    ):
      for attack, made in attacked(
        model, judge, layer, method, x, others
      ).items():
        row = measured(made, x, judge)
        rows.setdefault((name, attack), []).append(row)
        shown[f'{name}\n{attack}'] = np.asarray(made.x[:8])
        print(seed, name, attack, row, flush=True)
    if seed == config.seed:
      plots.picture_grid(shown).savefig(folder / 'figure.png', dpi=70)
  write(folder, config, pictures, accuracies, rows)


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


def write(
  folder: pathlib.Path,
  config: TrainConfig,
  pictures: int,
  accuracies: dict[str, list[float]],
  rows: Rows,
) -> None:
  """Writes table.md and results.json."""
  columns = next(iter(rows.values()))[0]
  lines = [
    f'| network | attack | {" | ".join(columns)} |',
    '| --- | --- |' + ' ---: |' * len(columns),
  ]
  for (name, attack), found in rows.items():
    cells = [spread([row[column] for row in found]) for column in columns]
    lines.append(f'| {name} | {attack} | {" | ".join(cells)} |')
  reached = ', '.join(
    f'{name} {spread([100 * value for value in values], 4)} %'
    for name, values in accuracies.items()
  )
  seeds = len(next(iter(accuracies.values())))
  lines += [
    '',
    f'{config.data} ({config.train_split or "train"}), {config.model},'
    f' {config.num_epochs} epochs, {seeds} seeds from {config.seed} (mean ±'
    f' standard deviation), {pictures} test pictures, towards the second most'
    ' likely class (least likely: that one). All but success are means over the'
    ' pictures that succeeded. Noise: what white noise has. The other: the'
    ' network trained the other way predicts the same class for the picture.'
    f' Test accuracy: {reached}. jax {jax.__version__} on'
    f' {jax.devices()[0].device_kind} ({os.cpu_count()} cores).',
  ]
  (folder / 'table.md').write_text('\n'.join(lines) + '\n')
  numbers = [
    {'network': name, 'attack': attack, 'seed': config.seed + i, **row}
    for (name, attack), found in rows.items()
    for i, row in enumerate(found)
  ]
  text = json.dumps(numbers, indent=1, ensure_ascii=False)
  (folder / 'results.json').write_text(text + '\n')
  print('\n'.join(lines))


def spread(values: list[float], digits: int = 3) -> str:
  """Mean ± standard deviation."""
  mean = f'{np.mean(values):.{digits}g}'
  if len(values) == 1:
    return mean
  return f'{mean} ± {np.std(values, ddof=1):.2g}'


if __name__ == '__main__':
  tyro.cli(main)
