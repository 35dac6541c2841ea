"""A glass box with the methods of a scikit-learn classifier."""

import functools
from collections.abc import Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from bort_jax.nn.glassbox.classifiers.classifier import Classifier
from bort_jax.nn.glassbox.classifiers.named import classifier_of
from bort_jax.nn.glassbox.errors import GlassBoxError
from bort_jax.nn.glassbox.features import pixels
from bort_jax.nn.glassbox.layers import (
  Fitted,
  GlassBoxOutputs,
  fit_layers,
  in_passes,
)
from bort_jax.nn.glassbox.representation import Features, Part
from bort_jax.symmetry import D4, Group
from bort_jax.validation import is_integer


class GlassBox:
  """Three layers, each of which can be written down: symmetry, PCA, classifier.

  1. representation: the features of a picture and of all its moved copies, as
     averages and maxima (invariant) or orbits and isotypic components
     (equivariant), see :func:`represent`;
  2. dimension reduction by PCA;
  3. a classifier: ``'lda'``, ``'ridge'``, ``'logistic'``, ``'knn'``, ``'mlp'``.

  After the abstract of the paper below, which names these three layers for two
  classes. Groups, maps, classifiers and settings are our reading; nothing else
  of the paper is public. Two classes or more.

  Args:
    group: the moves of pictures, as :data:`bort_jax.symmetry.C4`.
    parts: of the representation, side by side; ``('plain',)`` is the control
      without symmetry.
    features: what is looked at: :func:`pixels`, a :class:`CosineBank`, or any
      hashable ``features(params, x)``, as ``inversion.until(outputs, layer)``
      of a trained network.
    feature_params: parameters of the features.
    components: of the PCA, at most one less than pictures.
    classifier: its name, or an object with settings such as
      ``glassbox.KNN(neighbors=3)``.
    scale: whether reduced features are standardized, by scikit-learn.
    batch_size: moved copies of pictures in memory at once.
    seed: of the perceptron, and of the PCA where it is randomized.

  Attributes:
    classes: (K,) the labels, in order, once fitted.

  Raises:
    GlassBoxError: for unknown parts or classifiers; when used, for pictures,
      labels or components that do not fit, numbers that are not finite, before
      :meth:`fit`, and where scikit-learn is needed and missing.
    SymmetryError: when used, if the group cannot act on the pictures.

  Examples:
    >>> import numpy as np
    >>> from bort_jax.nn import glassbox
    >>> rng = np.random.default_rng(0)
    >>> x = rng.uniform(size=(20, 6, 6, 1)).astype('float32')
    >>> y = np.where(x[:, 2, 2, 0] > 0.5, 'bright', 'dark')
    >>> x += (y == 'bright').reshape(-1, 1, 1, 1)
    >>> box = glassbox.GlassBox(components=5).fit(x, y)
    >>> box.score(np.rot90(x, axes=(1, 2)), y)
    1.0

  References:
    Manaswini, Bhatt, `Towards glass-box CNNs
    <https://arxiv.org/abs/2101.10443>`_, 2022
  """

  def __init__(
    self,
    *,
    group: Group = D4,
    parts: Sequence[Part] = ('average', 'maximum'),
    features: Features = pixels,
    feature_params: Any = None,
    components: int = 50,
    classifier: str | Classifier = 'lda',
    scale: bool = False,
    batch_size: int = 4096,
    seed: int = 0,
  ):
    known = set(get_args(Part))
    is_list = not isinstance(parts, str) and len(parts) > 0
    if not is_list or len(known & set(parts)) < len(parts):
      raise GlassBoxError(
        'parts must be a list of some of'
        f' {", ".join(get_args(Part))}, each once, got {parts!r}.'
      )
    if not is_integer(batch_size) or batch_size < 1:
      raise GlassBoxError(
        f'batch_size must be an integer ≥ 1, got {batch_size!r}.'
      )
    self._layers = GlassBoxOutputs(
      features, group, tuple(parts), classifier_of(classifier)
    )
    self.feature_params = feature_params
    self.components = components
    self.scale = scale
    self.batch_size = batch_size
    self.seed = seed
    self.classes: np.ndarray | None = None
    self._fitted: Fitted | None = None

  def fit(
    self, x: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None
  ) -> 'GlassBox':
    """Fits all three layers.

    Args:
      x: pictures (N, H, W, C), floats.
      y: (N,) labels, of any type that sorts.
      classes: the labels that there must be; by default those that there are.

    Returns:
      Itself.
    """
    x = _checked(x)
    found, labels = np.unique(_checked_labels(y, len(x)), return_inverse=True)
    _check_classes(found, classes)
    fitted = fit_layers(
      self._layers,
      self.feature_params,
      x,
      jnp.asarray(labels),
      len(found),
      components=self.components,
      scale=self.scale,
      batch_size=self.batch_size,
      key=jax.random.key(self.seed),
    )
    _check_learned(fitted.classifier)
    self._fitted, self.classes = fitted, found
    return self

  def transform(self, x: ArrayLike) -> jax.Array:
    """The reduced representation (N, components) of pictures."""
    fitted = self._known()
    size = self._layers.pictures_in_pass(self.batch_size)
    compiled = fitted._replace(classifier=None)  # k-NN's is no array
    reduce = functools.partial(_reduced, self._layers, compiled)
    return in_passes(reduce, _checked(x), size)

  def scores(self, x: ArrayLike) -> jax.Array:
    """(N, K) what the classifier computes; the largest is the class."""
    z = self.transform(x)
    return self._layers.classifier.scores(self._known().classifier, z)

  def predict(self, x: ArrayLike) -> np.ndarray:
    """(N,) labels, as :meth:`fit` was given them."""
    best = np.asarray(jnp.argmax(self.scores(x), axis=1))
    assert self.classes is not None  # scores refuses what is not fitted
    return self.classes[best]

  def predict_proba(self, x: ArrayLike) -> jax.Array:
    """(N, K) probabilities in the order of ``classes``; ridge has none."""
    z = self.transform(x)
    return self._layers.classifier.probabilities(self._known().classifier, z)

  def score(self, x: ArrayLike, y: ArrayLike) -> float:
    """The share of pictures whose label is predicted."""
    predicted = self.predict(x)
    return float(np.mean(predicted == _checked_labels(y, len(predicted))))

  def functional(self) -> tuple[GlassBoxOutputs, Fitted]:
    """A pure function with every layer's output by name, and what it takes.

    Returns:
      ``apply_fn(fitted, x)`` and ``fitted``, for
      :func:`bort_jax.metrics.separability`,
      :func:`bort_jax.metrics.equivariance` and all that takes named layers.
    """
    return self._layers, self._known()

  def _known(self) -> Fitted:
    if self._fitted is None:
      raise GlassBoxError('This glass box is not fitted yet: call fit(x, y).')
    return self._fitted


@functools.partial(jax.jit, static_argnums=0)
def _reduced(
  layers: GlassBoxOutputs, fitted: Fitted, x: jax.Array
) -> jax.Array:
  return layers.reduced(fitted, x)


def _checked(x: ArrayLike) -> jax.Array:
  x = jnp.asarray(x)
  if x.ndim != 4 or not x.size or not jnp.issubdtype(x.dtype, jnp.floating):
    raise GlassBoxError(
      f'x must be pictures (N, H, W, C) of floats, got {x.dtype}'
      f'{list(x.shape)}. Convert integers to 0 … 1, and add an axis for one'
      ' channel.'
    )
  if not jnp.isfinite(x).all():
    raise GlassBoxError(
      'x has numbers that are NaN or infinite. Leave those pictures out, or'
      ' fill the gaps with jnp.nan_to_num.'
    )
  return x


def _checked_labels(y: ArrayLike, count: int) -> np.ndarray:
  labels = np.asarray(y)
  if labels.shape != (count,):
    raise GlassBoxError(
      f'y must be labels ({count},), one for each picture, got shape'
      f' {labels.shape}.'
    )
  return labels


def _check_learned(classifier: Any) -> None:
  arrays = [a for a in jax.tree.leaves(classifier) if isinstance(a, jax.Array)]
  if not all(jnp.isfinite(a).all() for a in arrays):
    raise GlassBoxError(
      'The classifier has no finite solution for these reduced features. Ask'
      ' for fewer components, or for more shrinkage or penalty, such as'
      ' glassbox.LDA(shrinkage=0.01).'
    )


def _check_classes(found: np.ndarray, wanted: ArrayLike | None) -> None:
  if len(found) < 2:
    raise GlassBoxError(
      f'There must be two classes or more, but every picture is {found[0]!r}.'
    )
  if wanted is None:
    return
  wanted = np.unique(np.asarray(wanted))
  missing = [str(c) for c in wanted if c not in found]
  if missing:
    raise GlassBoxError(
      f'No picture is of class {", ".join(missing)}, so it cannot be learned.'
      ' Give some, or leave it out of classes.'
    )
  unknown = [str(c) for c in found if c not in wanted]
  if unknown:
    raise GlassBoxError(
      f'Pictures are of class {", ".join(unknown)}, which is not in classes.'
    )
