"""Accuracy and separability of glass boxes, one representation at a time."""

import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from glassbox_data import Sample, Task, turned

from bort_jax import metrics, symmetry
from bort_jax.nn import glassbox
from bort_jax.nn.glassbox.layers import GlassBoxOutputs, fit_layers, in_passes

BANK = glassbox.CosineBank(size=3, cell=2)
COPIES = 4096


class Representation(NamedTuple):
  """The first layer of a glass box."""

  features: Any
  group: symmetry.Group
  parts: tuple


_pixels = functools.partial(Representation, glassbox.pixels)
_bank = functools.partial(Representation, BANK)
REPRESENTATIONS = {
  'pixels (control)': _pixels(symmetry.D4, ('plain',)),
  'pixels, D4 average': _pixels(symmetry.D4, ('average',)),
  'pixels, D4 orbit': _pixels(symmetry.D4, ('orbit',)),
  'bank (control)': _bank(symmetry.D4, ('plain',)),
  'bank, C4 average': _bank(symmetry.C4, ('average',)),
  'bank, D4 average': _bank(symmetry.D4, ('average',)),
  'bank, D4 average + maximum': _bank(symmetry.D4, ('average', 'maximum')),
  'bank, D4 orbit': _bank(symmetry.D4, ('orbit',)),
  'bank, D4 isotypic': _bank(symmetry.D4, ('isotypic',)),
  'bank, 4×4 shifts average + maximum': _bank(
    symmetry.Shifts(4, 4), ('average', 'maximum')
  ),
}
CLASSIFIERS = {
  'lda': glassbox.LDA(),
  'ridge': glassbox.Ridge(),
  'knn': glassbox.KNN(),
  'logistic': glassbox.Logistic(),
  'mlp': glassbox.MLP(steps=1000),
}


def measured(
  task: Task,
  train: Sample,
  test: Sample,
  name: str,
  representation: Representation,
  components: int,
  seed: int,
  params: Any = None,
) -> dict[str, list[dict[str, Any]]]:
  """Rows of the tables of accuracy and of separability."""
  about = {'task': task.name, 'representation': name, 'seed': seed}
  before = 0.0  # CPU seconds until a classifier is fitted
  classes, labels = np.unique(train.y, return_inverse=True)
  truth = np.searchsorted(classes, test.y)
  tests = turned(test.x, seed)
  outputs = GlassBoxOutputs(*representation, CLASSIFIERS['lda'])
  fit = functools.partial(
    fit_layers,
    params=params,
    x=train.x,
    labels=jnp.asarray(labels),
    num_classes=len(classes),
    components=components,
    scale=False,
    batch_size=COPIES,
    key=jax.random.key(seed),
  )
  jax.block_until_ready(fit(outputs))  # compiled, so that times are of work
  fitted, seconds = timed(lambda: fit(outputs))
  size = outputs.pictures_in_pass(COPIES)
  reduced = functools.partial(_reduced, outputs, fitted)
  seen = in_passes(reduced, train.x, size)
  codes = {how: in_passes(reduced, x, size) for how, x in tests.items()}
  jax.block_until_ready((seen, codes))  # no work of theirs is timed below
  accuracy = []
  for kind, classifier in CLASSIFIERS.items():
    learn = functools.partial(
      classifier.fit,
      seen,
      jnp.asarray(labels),
      len(classes),
      jax.random.key(seed),
    )
    jax.block_until_ready(learn())
    learned, own = timed(learn)
    before = seconds - own if kind == 'lda' else before
    row = about | {'classifier': kind, 'fit CPU seconds': before + own}
    for how, code in codes.items():
      best = np.asarray(jnp.argmax(classifier.scores(learned, code), axis=1))
      row[how] = float(np.mean(best == truth))
    accuracy.append(row)
  found = metrics.separability(
    outputs,
    fitted,
    [(test.x, truth)],
    layers=[*outputs.parts, 'reduced', 'logits'],
    num_classes=len(classes),
    key=jax.random.key(seed),
  )
  separability = [
    about | {'layer': layer, **_numbers(result)}
    for layer, result in found.items()
  ]
  return {'accuracy': accuracy, 'separability': separability}


@functools.partial(jax.jit, static_argnums=0)
def _reduced(outputs: GlassBoxOutputs, fitted, x: jax.Array) -> jax.Array:
  return outputs.reduced(fitted, x)


def timed(function) -> tuple[Any, float]:
  """What a function returns, and its seconds of all processor cores.

  Not those of the clock: they would count what else runs on the machine.
  """
  start = time.process_time()
  result = function()
  jax.block_until_ready(result)
  return result, time.process_time() - start


def _numbers(result: metrics.Separability) -> dict[str, float]:
  return {name: float(value) for name, value in result._asdict().items()}
