"""Classifiers by name."""

from bort_jax.nn.glassbox.classifiers.classifier import Classifier
from bort_jax.nn.glassbox.classifiers.lda import LDA
from bort_jax.nn.glassbox.classifiers.logistic import Logistic
from bort_jax.nn.glassbox.classifiers.mlp import MLP
from bort_jax.nn.glassbox.classifiers.neighbors import KNN
from bort_jax.nn.glassbox.classifiers.ridge import Ridge
from bort_jax.nn.glassbox.errors import GlassBoxError

CLASSIFIERS: dict[str, Classifier] = {
  'lda': LDA(),
  'ridge': Ridge(),
  'knn': KNN(),
  'logistic': Logistic(),
  'mlp': MLP(),
}


def classifier_of(classifier: str | Classifier) -> Classifier:
  """The classifier itself, or the one of that name with its defaults."""
  if not isinstance(classifier, str):
    return classifier
  if classifier not in CLASSIFIERS:
    raise GlassBoxError(
      f'classifier must be one of {", ".join(CLASSIFIERS)}, or an object such'
      f' as glassbox.KNN(neighbors=3), got {classifier!r}.'
    )
  return CLASSIFIERS[classifier]
