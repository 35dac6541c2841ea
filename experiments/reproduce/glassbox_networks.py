"""Separability and equivariance of the layers of trained networks."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from glassbox_models import BANK
from trained import untrained

from bort_jax import metrics, nn, symmetry
from bort_jax.nn import glassbox
from bort_jax.train import Dataset, TrainConfig, train

LAYERS = {
  'small_alexnet': (
    *('pool1', 'pool2', 'act3', 'act4', 'pool5', 'act_fc1', 'act_fc2'),
    'logits',
  ),
  'resnet8': (
    *('stem', 'stage1/block1', 'stage2/block1', 'stage3/block1', 'pool'),
    'logits',
  ),
}
BOXES: dict[str, dict[str, Any]] = {
  'bank, D4 average + maximum': {'features': BANK},
  'bank, D4 orbit': {'features': BANK, 'parts': ('orbit',)},
  'pixels, D4 isotypic': {'parts': ('isotypic',)},
}
_BATCH = 250


def of_network(
  model: str,
  seed: int,
  dataset: Dataset,
  pictures: int,
  run_dir: pathlib.Path,
  **settings: Any,
) -> dict[str, list[dict[str, Any]]]:
  """Trains with and without Bort, and measures both and the untrained one."""
  config = TrainConfig(
    model=model, seed=seed, run_dir=run_dir, resume=True, **settings
  )
  comparison = train(config)
  accuracy = {row.network: row.test_accuracy for row in comparison.rows}
  arms = {
    name: fit.network.merge(fit.params, fit.stats)
    for name, fit in comparison.fits.items()
  }
  fresh = dataclasses.replace(config, run_dir=None, resume=False)
  arms['untrained'] = untrained(fresh, config.init)
  rows = []
  for arm, module in arms.items():
    outputs, params = nn.functional(module, 'intermediates')
    about = {'network': model, 'arm': arm, 'seed': seed}
    about['accuracy'] = accuracy[arm]
    rows += measured(about, outputs, params, LAYERS[model], dataset, pictures)
  return {'layers': rows}


def of_box(
  name: str, seed: int, dataset: Dataset, pictures: int, train_pictures: int
) -> dict[str, list[dict[str, Any]]]:
  """Fits a glass box, and measures its layers."""
  rng = np.random.default_rng(seed)
  chosen = rng.permutation(len(dataset.train_labels))[:train_pictures]
  x = dataset.train_images[chosen] / np.float32(255)
  box = glassbox.GlassBox(**BOXES[name], seed=seed)
  box.fit(x, dataset.train_labels[chosen])
  outputs, fitted = box.functional()
  about = {'network': f'glass box: {name}', 'arm': 'lda', 'seed': seed}
  test = dataset.test_images[:pictures] / np.float32(255)
  about['accuracy'] = box.score(test, dataset.test_labels[:pictures])
  layers = ('features', *outputs.parts, 'reduced', 'logits')
  return {'layers': measured(about, outputs, fitted, layers, dataset, pictures)}


def measured(
  about, outputs, params, layers, dataset: Dataset, pictures: int
) -> list[dict[str, Any]]:
  """A row for each layer: means over the moves that are not the identity."""
  x = jnp.asarray(dataset.test_images[:pictures] / np.float32(255))
  y = dataset.test_labels[:pictures]
  parts = [slice(i, i + _BATCH) for i in range(0, pictures, _BATCH)]
  separable = metrics.separability(
    outputs,
    params,
    [(x[part], y[part]) for part in parts],
    layers=layers,
    num_classes=10,
    key=jax.random.key(about['seed']),
  )
  moved = metrics.equivariance(
    outputs,
    params,
    [x[part] for part in parts],
    group=symmetry.D4,
    layers=layers,
  )
  rows = []
  for layer, found in separable.items():
    row = about | {'layer': layer}
    row |= {name: float(value) for name, value in found._asdict().items()}
    if layer in moved:
      errors = moved[layer]._asdict().items()
      row |= {name: float(jnp.mean(value[1:])) for name, value in errors}
    rows.append(row)
  return rows
