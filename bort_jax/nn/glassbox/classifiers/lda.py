"""Linear discriminants: one normal distribution for each class."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from bort_jax.nn.glassbox.classifiers.classifier import Linear, check_setting
from bort_jax.nn.glassbox.errors import GlassBoxError
from bort_jax.nn.glassbox.products import product


@dataclasses.dataclass(frozen=True)
class LDA:
  """Normal classes of one covariance, in closed form.

  Args:
    shrinkage: share of the covariance replaced by a multiple of the identity of
      the same trace, 0 … 1. A little keeps it invertible.

  Raises:
    GlassBoxError: if it is outside its range.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax.nn import glassbox
    >>> z, labels = jnp.array([[0.0], [1.0], [4.0], [5.0]]), jnp.arange(4) // 2
    >>> lda = glassbox.LDA()
    >>> fitted = lda.fit(z, labels, 2, jax.random.key(0))
    >>> jnp.argmax(lda.scores(fitted, jnp.array([[1.0], [3.0]])), 1).tolist()
    [0, 1]

  References:
    Hastie, Tibshirani, Friedman, *The Elements of Statistical Learning*, 2009,
    section 4.3
  """

  shrinkage: float = 1e-3

  def __post_init__(self):
    check_setting('LDA', 'shrinkage', self.shrinkage)
    if self.shrinkage > 1:
      raise GlassBoxError(f'shrinkage must be 0 … 1, got {self.shrinkage!r}.')

  @functools.partial(jax.jit, static_argnums=(0, 3))
  def fit(
    self, z: jax.Array, labels: jax.Array, num_classes: int, key: jax.Array
  ) -> Linear:
    """Log-densities of rows (N, k) by class, up to what classes share."""
    del key
    is_of = jax.nn.one_hot(labels, num_classes, dtype=z.dtype)
    count = jnp.sum(is_of, axis=0)
    means = product(is_of.T, z) / count[:, None]
    left = z - means[labels]
    covariance = product(left.T, left) / len(z)
    size = len(covariance)
    even = jnp.trace(covariance) / size * jnp.eye(size, dtype=z.dtype)
    covariance = (1 - self.shrinkage) * covariance + self.shrinkage * even
    factor = jax.scipy.linalg.cho_factor(covariance)
    weights = jax.scipy.linalg.cho_solve(factor, means.T)
    bias = jnp.log(count / len(z)) - jnp.sum(means.T * weights, axis=0) / 2
    return Linear(weights, bias)

  def scores(self, fitted: Linear, z: jax.Array) -> jax.Array:
    """(N, K), logits."""
    return fitted(z)

  def probabilities(self, fitted: Linear, z: jax.Array) -> jax.Array:
    """(N, K)."""
    return jax.nn.softmax(fitted(z))
