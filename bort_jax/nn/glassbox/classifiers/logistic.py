"""Multinomial logistic regression."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bort_jax.nn.glassbox.classifiers.classifier import Linear, check_setting


@dataclasses.dataclass(frozen=True)
class Logistic:
  """Cross-entropy + penalty/2 ‖W‖² over all rows, by L-BFGS from zero.

  Convex: what it finds does not depend on a key.

  Args:
    penalty: weight of the size of W, > 0; b is free. It is 1/C of scikit-learn.
    max_steps: most steps.
    tolerance: largest number of the mean gradient at which it stops.

  Raises:
    GlassBoxError: if a setting is outside its range.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax.nn import glassbox
    >>> z, labels = jnp.array([[0.0], [1.0], [4.0], [5.0]]), jnp.arange(4) // 2
    >>> logistic = glassbox.Logistic()
    >>> fitted = logistic.fit(z, labels, 2, jax.random.key(0))
    >>> logistic.probabilities(fitted, z).argmax(1).tolist()
    [0, 0, 1, 1]
  """

  penalty: float = 1.0
  max_steps: int = 200
  tolerance: float = 1e-5

  def __post_init__(self):
    for name in ('penalty', 'tolerance', 'max_steps'):
      check_setting('Logistic', name, getattr(self, name))

  @functools.partial(jax.jit, static_argnums=(0, 3))
  def fit(
    self, z: jax.Array, labels: jax.Array, num_classes: int, key: jax.Array
  ) -> Linear:
    """The minimum for rows (N, k)."""
    del key

    def loss(linear: Linear) -> jax.Array:
      entropy = optax.softmax_cross_entropy_with_integer_labels(
        linear(z), labels
      )
      size = self.penalty / 2 * jnp.sum(linear.weights**2)
      return jnp.mean(entropy) + size / len(z)

    tx = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry):
      linear, state, _, steps = carry
      value, grad = value_and_grad(linear, state=state)
      updates, state = tx.update(
        grad, state, linear, value=value, grad=grad, value_fn=loss
      )
      linear = optax.apply_updates(linear, updates)
      left = optax.tree.norm(optax.tree.get(state, 'grad'), ord=jnp.inf)
      return linear, state, left, steps + 1

    def goes_on(carry) -> jax.Array:
      _, _, left, steps = carry
      return (left > self.tolerance) & (steps < self.max_steps)

    zeros = Linear(
      jnp.zeros((z.shape[1], num_classes), z.dtype),
      jnp.zeros(num_classes, z.dtype),
    )
    start: Any = (zeros, tx.init(zeros), jnp.asarray(jnp.inf, z.dtype), 0)
    return jax.lax.while_loop(goes_on, step, start)[0]

  def scores(self, fitted: Linear, z: jax.Array) -> jax.Array:
    """(N, K), logits."""
    return fitted(z)

  def probabilities(self, fitted: Linear, z: jax.Array) -> jax.Array:
    """(N, K)."""
    return jax.nn.softmax(fitted(z))
