"""What turns cost in orthogonality: Bort at one step of k, with k·γ.

A SimpleCNN is trained on scikit-learn's digits with every matrix corrected at
every step, and with the matrices taking turns. The error is that of
``bort_jax.spectrum.orthogonality_error``, the mean over the kernels and over
the last fifth of the steps; its ratio is to the same seed corrected at every
step. Nothing is timed: for times see update.py. From the project's root:

    python experiments/benchmarks/every.py
"""

import itertools
import json
import pathlib
import statistics
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from bort_jax import bort_adamw, bort_sgd, spectrum
from bort_jax.nn import SimpleCNN
from bort_jax.train import load_dataset
from bort_jax.train.data import batches
from bort_jax.train.network import Network, make_network
from bort_jax.train.step import StepOptions, init_state, train_step

WIDTHS = (8, 16, 32, 64, 128)
PERIODS = (None, 2, 4, 8)
SETTINGS: dict[str, tuple[Any, float, float, dict[str, Any]]] = {
  'bort_sgd, γ = 10': (bort_sgd, 1e-3, 10.0, {'momentum': 0.9}),
  'bort_adamw, γ = 10': (bort_adamw, 1e-3, 10.0, {}),
  'bort_adamw, γ = 100': (bort_adamw, 1e-3, 100.0, {}),
}


def main(seeds: int = 2, steps: int = 300, batch_size: int = 128) -> None:
  """Trains with every setting.

  Args:
    seeds: runs of each.
    steps: of a run.
    batch_size: pictures in a step.
  """
  rows = []
  for setting in SETTINGS:
    found = {
      every: [
        trained(setting, every, s, steps, batch_size) for s in range(seeds)
      ]
      for every in PERIODS
    }
    rows += [row(setting, every, found) for every in PERIODS]
    print(*map(line, rows[-len(PERIODS) :]), sep='\n', flush=True)
    write(rows, f'{steps} steps of {batch_size}, {seeds} seeds')


def write(rows: list[dict[str, Any]], runs: str) -> None:
  """Writes what there is so far."""
  lines = [
    '| optimizer | every | k·h·a | error | ratio to every step | range | loss |'
    ' spectrum.check |',
    '| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |',
    *map(line, rows),
    '',
    f'SimpleCNN of widths {WIDTHS} on digits, {runs}: means, and the range of'
    ' the ratio over the seeds. Loss: mean over the last fifth. jax'
    f' {jax.__version__} on {jax.devices()[0].device_kind}.',
  ]
  path = pathlib.Path(__file__).with_suffix('.json')
  path.write_text(json.dumps(rows, indent=1) + '\n')
  path.with_suffix('.md').write_text('\n'.join(lines) + '\n')


def row(setting: str, every: int | None, found) -> dict[str, Any]:
  """Means over the seeds."""
  _, rate, gamma, _ = SETTINGS[setting]
  errors, losses = zip(*found[every], strict=True)
  ratios = [e / f[0] for e, f in zip(errors, found[None], strict=True)]
  return {
    'optimizer': setting,
    'every': every or 1,
    'step': rate * gamma * (every or 1),
    'error': statistics.mean(errors),
    'ratio': statistics.mean(ratios),
    'smallest': min(ratios),
    'largest': max(ratios),
    'loss': statistics.mean(losses),
    'check': ', '.join(predicted(setting, every)),
  }


def line(row: dict[str, Any]) -> str:
  """A row of the table."""
  return (
    f'| {row["optimizer"]} | {row["every"]} | {row["step"]:.3g} |'
    f' {row["error"]:.3g} | {row["ratio"]:.3f} | {row["smallest"]:.3f} …'
    f' {row["largest"]:.3f} | {row["loss"]:.3f} | {row["check"]} |'
  )


def trained(
  setting: str, every: int | None, seed: int, steps: int, batch_size: int
) -> tuple[float, float]:
  """Error and loss."""
  images, labels = data()
  tx, step = compiled(setting, every)
  state = init_state(network(seed), tx)
  drawn = itertools.chain.from_iterable(
    batches(images, labels, batch_size, (seed, epoch))
    for epoch in itertools.count()
  )
  key, history = jax.random.key(seed), []
  for x, y in itertools.islice(drawn, steps):
    state, numbers = step(state, x, y, key)
    history.append(numbers)
  errors, losses = np.asarray(jax.device_get(history))[-steps // 5 :].mean(0)
  return float(errors), float(losses)


def predicted(setting: str, every: int | None) -> set[str]:
  """What is wrong with a setting, by the law, for one orthogonal matrix."""
  _, rate, gamma, options = SETTINGS[setting]
  momentum = options.get('momentum', 0.0)
  found = spectrum.check(
    {'kernel': jnp.eye(2)}, rate, gamma, momentum=momentum, every=every
  )
  return {finding.kind for finding in found}


def network(seed: int) -> Network:
  """A SimpleCNN with orthogonal kernels."""
  images, _ = data()
  return make_network(
    lambda: SimpleCNN(
      images.shape[1:],
      10,
      widths=WIDTHS,
      kernel_init=nnx.initializers.orthogonal(),
      rngs=nnx.Rngs(seed),
    )
  )


@cache
def compiled(setting: str, every: int | None) -> tuple[Any, Any]:
  """The optimizer, and a step that also measures the error."""
  make, rate, gamma, options = SETTINGS[setting]
  tx, any_network = make(rate, gamma, every=every, **options), network(0)

  @partial(jax.jit, donate_argnums=0)
  def step(state, images, labels, key):
    state, metrics = train_step(
      any_network, tx, StepOptions(), state, images, labels, key
    )
    errors = jax.tree.leaves(spectrum.orthogonality_error(state.params))
    return state, (jnp.mean(jnp.stack(errors)), metrics.loss)

  return tx, step


@cache
def data() -> tuple[np.ndarray, np.ndarray]:
  """Pictures and labels."""
  loaded = load_dataset('digits')
  return loaded.train_images, loaded.train_labels


if __name__ == '__main__':
  tyro.cli(main)
