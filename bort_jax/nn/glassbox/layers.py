"""The three layers of a glass box as one pure function, and their fit."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax.nn.glassbox.classifiers import KNN
from bort_jax.nn.glassbox.classifiers.classifier import Classifier
from bort_jax.nn.glassbox.pca import PCA, fit_pca, reduce
from bort_jax.nn.glassbox.representation import Features, Part, represent
from bort_jax.nn.glassbox.scikit_learn import imported
from bort_jax.symmetry import Group

_EXACT = 1024  # largest smaller side of rows that is decomposed exactly


class Fitted(NamedTuple):
  """What a glass box learned, layer by layer."""

  features: Any  # parameters of the features
  pca: PCA
  centre: jax.Array  # (k,) of the reduced rows, 0 without a scaler
  scale: jax.Array  # (k,) by which they are divided, 1 without
  classifier: Any


@dataclasses.dataclass(frozen=True)
class GlassBoxOutputs:
  """A glass box as ``apply_fn(fitted, x)``, every layer's output by its name.

  ``'features'``, each part of the representation by its own name, ``'reduced'``
  (N, k) and, but for k-NN, ``'logits'`` (N, K). So it is what
  :func:`bort_jax.inversion.until` and the metrics of layers take.

  Examples:
    >>> import numpy as np
    >>> from bort_jax.nn import glassbox
    >>> x = np.random.default_rng(0).uniform(size=(20, 6, 6, 1))
    >>> box = glassbox.GlassBox(components=5).fit(x, np.arange(20) % 2)
    >>> outputs, fitted = box.functional()
    >>> outputs(fitted, x.astype('float32'))['reduced'].shape
    (20, 5)
  """

  features: Features
  group: Group
  parts: tuple[Part, ...]
  classifier: Classifier

  def __call__(self, fitted: Fitted, x: jax.Array) -> dict[str, jax.Array]:
    """The layers' outputs for pictures (N, H, W, C), floats."""
    out = {'features': self.features(fitted.features, x)}
    out |= self.parts_of(fitted.features, x)
    rows = _side_by_side([out[part] for part in self.parts])
    out['reduced'] = _reduced(fitted, rows)
    if not isinstance(self.classifier, KNN):
      out['logits'] = self.classifier.scores(fitted.classifier, out['reduced'])
    return out

  def parts_of(self, params: Any, x: jax.Array) -> dict[str, jax.Array]:
    """The representation: each part by its name."""
    group = self.group
    return {
      part: represent(self.features, params, x, group=group, part=part)
      for part in self.parts
    }

  def rows(self, params: Any, x: jax.Array) -> jax.Array:
    """(N, D): all parts of each picture side by side."""
    return _side_by_side(list(self.parts_of(params, x).values()))

  def reduced(self, fitted: Fitted, x: jax.Array) -> jax.Array:
    """(N, k): what the classifier sees."""
    return _reduced(fitted, self.rows(fitted.features, x))

  def pictures_in_pass(self, copies: int) -> int:
    """How many pictures are moved at once, for so many copies in memory."""
    plain = set(self.parts) <= {'plain'}
    return copies if plain else max(1, copies // self.group.order)


def fit_layers(
  outputs: GlassBoxOutputs,
  params: Any,
  x: jax.Array,
  labels: jax.Array,
  num_classes: int,
  *,
  components: int,
  scale: bool,
  batch_size: int,
  key: jax.Array,
) -> Fitted:
  """Fits a glass box, layer by layer, each in closed form where it has one.

  Args:
    outputs: the layers.
    params: parameters of the features.
    x: pictures (N, H, W, C), floats.
    labels: (N,) int; every class must be among them.
    num_classes: K.
    components: k, of the PCA: exact where N or the size of the representation
      is at most 1,024, else randomized.
    scale: whether the reduced rows are standardized, by scikit-learn.
    batch_size: moved copies in memory at once.
    key: of the randomized PCA and of a perceptron.

  Returns:
    What was learned.

  Raises:
    GlassBoxError: see :class:`GlassBox`.
  """
  pca_key, classifier_key = jax.random.split(key)
  size = outputs.pictures_in_pass(batch_size)
  rows = in_passes(functools.partial(_rows, outputs, params), x, size)
  exact = min(rows.shape) <= _EXACT
  pca = fit_pca(rows, components, key=None if exact else pca_key)
  reduced = reduce(pca, rows)
  centre, spread = jnp.zeros_like(pca.variances), jnp.ones_like(pca.variances)
  if scale:
    preprocessing = imported('sklearn.preprocessing', 'scale=True')
    scaler = preprocessing.StandardScaler().fit(np.asarray(reduced))
    centre = jnp.asarray(scaler.mean_, reduced.dtype)
    spread = jnp.asarray(scaler.scale_, reduced.dtype)
    reduced = (reduced - centre[None]) / spread[None]
  learned = outputs.classifier.fit(reduced, labels, num_classes, classifier_key)
  return Fitted(params, pca, centre, spread, learned)


def in_passes(function, x: jax.Array, size: int) -> jax.Array:
  """A function of pictures, some at a time; the last pass is padded."""
  size = min(size, len(x))
  found = []
  for start in range(0, len(x), size):
    part = x[start : start + size]
    missing = size - len(part)
    padded = jnp.pad(part, [(0, missing), *[(0, 0)] * (x.ndim - 1)])
    found.append(function(padded)[: len(part)])
  return jnp.concatenate(found)


@functools.partial(jax.jit, static_argnums=0)
def _rows(outputs: GlassBoxOutputs, params: Any, x: jax.Array) -> jax.Array:
  return outputs.rows(params, x)


def _reduced(fitted: Fitted, rows: jax.Array) -> jax.Array:
  reduced = reduce(fitted.pca, rows)
  return (reduced - fitted.centre[None]) / fitted.scale[None]


def _side_by_side(parts: list[jax.Array]) -> jax.Array:
  flat = [a.reshape(len(a), math.prod(a.shape[1:])) for a in parts]
  return jnp.concatenate(flat, axis=1)
