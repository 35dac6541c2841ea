"""Least squares to the classes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from bort_jax.nn.glassbox.classifiers.classifier import Linear, check_setting
from bort_jax.nn.glassbox.errors import GlassBoxError
from bort_jax.nn.glassbox.products import product


@dataclasses.dataclass(frozen=True)
class Ridge:
  """Σ ‖z W + b − t‖² + penalty ‖W‖², t = 1 for the class and −1 for others.

  Args:
    penalty: weight of the size of W, ≥ 0; b is free.

  Raises:
    GlassBoxError: if it is outside its range.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax.nn import glassbox
    >>> z, labels = jnp.array([[0.0], [1.0], [4.0], [5.0]]), jnp.arange(4) // 2
    >>> ridge = glassbox.Ridge(penalty=0.0)
    >>> fitted = ridge.fit(z, labels, 2, jax.random.key(0))
    >>> round(float(fitted.weights[0, 1]), 3)
    0.471
  """

  penalty: float = 1.0

  def __post_init__(self):
    check_setting('Ridge', 'penalty', self.penalty)

  @functools.partial(jax.jit, static_argnums=(0, 3))
  def fit(
    self, z: jax.Array, labels: jax.Array, num_classes: int, key: jax.Array
  ) -> Linear:
    """The best matrix for rows (N, k)."""
    del key
    targets = 2 * jax.nn.one_hot(labels, num_classes, dtype=z.dtype) - 1
    mean, target_mean = jnp.mean(z, axis=0), jnp.mean(targets, axis=0)
    centred = z - mean[None]
    gram = product(centred.T, centred)
    loaded = gram + self.penalty * jnp.eye(len(gram), dtype=z.dtype)
    right = product(centred.T, targets)
    factor = jax.scipy.linalg.cho_factor(loaded)
    weights = jax.scipy.linalg.cho_solve(factor, right)
    return Linear(weights, target_mean - product(mean, weights))

  def scores(self, fitted: Linear, z: jax.Array) -> jax.Array:
    """(N, K), about 1 for the class and −1 for others."""
    return fitted(z)

  def probabilities(self, fitted: Linear, z: jax.Array) -> jax.Array:
    """Refused: least squares has none."""
    raise GlassBoxError(
      "Ridge has no probabilities. Use its scores, or classifier='lda' or"
      " 'logistic'."
    )
