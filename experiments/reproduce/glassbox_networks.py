"""Trained networks: how separable and equivariant their layers are.

And glass boxes whose features are a layer of such a network.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from glassbox_data import TEN_DIGITS, drawn
from glassbox_models import BANK, Representation
from glassbox_models import measured as measured_box
from trained import untrained

from bort_jax import inversion, metrics, nn, symmetry
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


# Steps as large as those that other residual networks here are trained with:
# with those of the plain ones it learns little in so few.
TRAINING: dict[str, dict[str, Any]] = {'resnet8': {'learning_rate': 0.01}}
# Of the layer before the dense ones.
ON_FEATURES = {'small_alexnet': 'pool5'}
PARTS = {
  'control': (symmetry.C4, 'plain'),
  'C4 average': (symmetry.C4, 'average'),
  'D4 average': (symmetry.D4, 'average'),
}


class Arm(NamedTuple):
  """One network of a training."""

  outputs: Callable[[Any, jax.Array], dict[str, jax.Array]]
  params: Any
  accuracy: float  # on all test pictures


def trained_arms(
  model: str, seed: int, run_dir: pathlib.Path, **settings: Any
) -> dict[str, Arm]:
  """Trains with and without Bort, if it is not done; and the untrained one."""
  config = TrainConfig(
    model=model,
    seed=seed,
    run_dir=run_dir,
    resume=True,
    **TRAINING.get(model, {}),
    **settings,
  )
  comparison = train(config)
  accuracy = {row.network: row.test_accuracy for row in comparison.rows}
  modules: dict[str, nnx.Module] = {
    name: fit.network.merge(fit.params, fit.stats)
    for name, fit in comparison.fits.items()
  }
  fresh = dataclasses.replace(config, run_dir=None, resume=False)
  modules['untrained'] = untrained(fresh, config.init)
  return {
    name: Arm(*nn.functional(module, 'intermediates'), accuracy[name])
    for name, module in modules.items()
  }


def of_network(
  model: str,
  seed: int,
  dataset: Dataset,
  pictures: int,
  run_dir: pathlib.Path,
  **settings: Any,
) -> dict[str, list[dict[str, Any]]]:
  """Measures every layer of the trained networks and of the untrained one."""
  rows = []
  for name, arm in trained_arms(model, seed, run_dir, **settings).items():
    about = {'network': model, 'arm': name, 'seed': seed}
    about['accuracy'] = arm.accuracy
    rows += measured(
      about, arm.outputs, arm.params, LAYERS[model], dataset, pictures
    )
  return {'layers': rows}


def of_boxes_on(
  model: str,
  seed: int,
  dataset: Dataset,
  counts: tuple[int, int],
  components: int,
  run_dir: pathlib.Path,
  **settings: Any,
) -> dict[str, list[dict[str, Any]]]:
  """Glass boxes for ten digits whose features are a layer of the networks.

  They are fitted as all others are; that layer has learned from the labels of
  its own training pictures before.
  """
  train_pictures, test_pictures = drawn(dataset, TEN_DIGITS, *counts, seed)
  found: dict[str, list[dict[str, Any]]] = {}
  layer = ON_FEATURES[model]
  for name, arm in trained_arms(model, seed, run_dir, **settings).items():
    features = inversion.until(arm.outputs, layer)
    for part, (group, kind) in PARTS.items():
      rows = measured_box(
        TEN_DIGITS,
        train_pictures,
        test_pictures,
        f'{model}, {name}, {layer} ({part})',
        Representation(features, group, (kind,)),
        components,
        seed,
        arm.params,
      )
      for table, measures in rows.items():
        found.setdefault(table, []).extend(measures)
  return found


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
