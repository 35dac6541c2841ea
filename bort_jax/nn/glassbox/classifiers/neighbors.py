"""The classes of the nearest rows."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax.nn.glassbox.errors import GlassBoxError
from bort_jax.nn.glassbox.scikit_learn import imported
from bort_jax.validation import is_integer


@dataclasses.dataclass(frozen=True)
class KNN:
  """The class of most of the nearest rows, by scikit-learn on the host.

  It cannot be part of what is compiled.

  Args:
    neighbors: how many rows are asked, ≥ 1.

  Raises:
    GlassBoxError: if it is outside its range; when fitted, if scikit-learn is
      not installed or there are fewer rows.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax.nn import glassbox
    >>> z, labels = jnp.array([[0.0], [1.0], [4.0], [5.0]]), jnp.arange(4) // 2
    >>> knn = glassbox.KNN(neighbors=1)
    >>> fitted = knn.fit(z, labels, 2, jax.random.key(0))
    >>> knn.scores(fitted, jnp.array([[4.4]])).tolist()
    [[0.0, 1.0]]
  """

  neighbors: int = 5

  def __post_init__(self):
    if not is_integer(self.neighbors) or self.neighbors < 1:
      raise GlassBoxError(
        f'neighbors must be an integer ≥ 1, got {self.neighbors!r}.'
      )

  def fit(
    self, z: jax.Array, labels: jax.Array, num_classes: int, key: jax.Array
  ) -> Any:
    """Scikit-learn's classifier; every class must be among the labels."""
    del key, num_classes
    if len(z) < self.neighbors:
      raise GlassBoxError(
        f'{len(z)} pictures have no {self.neighbors} neighbors: ask fewer with'
        ' KNN(neighbors=…).'
      )
    neighbors = imported('sklearn.neighbors', "classifier='knn'")
    found = neighbors.KNeighborsClassifier(self.neighbors)
    return found.fit(np.asarray(z), np.asarray(labels))

  def scores(self, fitted: Any, z: jax.Array) -> jax.Array:
    """(N, K), shares of the neighbors."""
    return jnp.asarray(fitted.predict_proba(np.asarray(z)), z.dtype)

  def probabilities(self, fitted: Any, z: jax.Array) -> jax.Array:
    """The same."""
    return self.scores(fitted, z)
