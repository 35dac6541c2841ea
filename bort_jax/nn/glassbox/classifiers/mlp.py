"""A small perceptron with one hidden layer."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bort_jax.nn.glassbox.classifiers.classifier import Linear, check_setting
from bort_jax.nn.glassbox.errors import GlassBoxError
from bort_jax.validation import is_integer


class Layers(NamedTuple):
  """What a perceptron learns."""

  scale: jax.Array  # () by which rows are divided, their root mean square
  hidden: Linear
  head: Linear

  def __call__(self, z: jax.Array) -> jax.Array:
    """(N, k) to logits (N, K)."""
    return self.head(jax.nn.relu(self.hidden(z / self.scale)))


@dataclasses.dataclass(frozen=True)
class MLP:
  """One hidden layer of ReLUs, trained by Adam on random batches.

  The one classifier here that depends on its key.

  Args:
    hidden: hidden units, ≥ 1.
    steps: of training, ≥ 1.
    batch_size: rows of a step, drawn with replacement, ≥ 1.
    learning_rate: at the start; it falls to zero along a cosine.

  Raises:
    GlassBoxError: if a setting is outside its range.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax.nn import glassbox
    >>> z = jnp.array([[-1.0], [0.0], [1.0]])
    >>> mlp = glassbox.MLP(hidden=16, steps=300, batch_size=8)
    >>> fitted = mlp.fit(z, jnp.array([0, 1, 0]), 2, jax.random.key(0))
    >>> mlp.scores(fitted, z).argmax(1).tolist()
    [0, 1, 0]
  """

  hidden: int = 64
  steps: int = 2000
  batch_size: int = 128
  learning_rate: float = 3e-3

  def __post_init__(self):
    for name in ('hidden', 'steps', 'batch_size', 'learning_rate'):
      check_setting('MLP', name, getattr(self, name))
      if getattr(self, name) == 0:
        raise GlassBoxError(f'MLP: {name} must not be 0.')
    for name in ('hidden', 'steps', 'batch_size'):
      if not is_integer(getattr(self, name)):
        raise GlassBoxError(
          f'MLP: {name} must be an integer, got {getattr(self, name)!r}.'
        )

  @functools.partial(jax.jit, static_argnums=(0, 3))
  def fit(
    self, z: jax.Array, labels: jax.Array, num_classes: int, key: jax.Array
  ) -> Layers:
    """Trains on rows (N, k)."""
    hidden_key, head_key, order_key = jax.random.split(key, 3)
    start = Layers(
      jnp.maximum(jnp.sqrt(jnp.mean(z**2)), jnp.finfo(z.dtype).tiny),
      _drawn(hidden_key, z.shape[1], self.hidden, z.dtype),
      _drawn(head_key, self.hidden, num_classes, z.dtype),
    )
    rate = optax.cosine_decay_schedule(self.learning_rate, self.steps)
    tx = optax.adam(rate)

    def loss(learned, rows):
      logits = start._replace(hidden=learned[0], head=learned[1])(z[rows])
      entropy = optax.softmax_cross_entropy_with_integer_labels(
        logits, labels[rows]
      )
      return jnp.mean(entropy)

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
      learned, state = carry
      rows = jax.random.randint(key, (self.batch_size,), 0, len(z))
      grad = jax.grad(loss)(learned, rows)
      updates, state = tx.update(grad, state)
      learned = optax.apply_updates(learned, updates)
      return (learned, state), None

    learned = start.hidden, start.head
    keys = jax.random.split(order_key, self.steps)
    carry = jax.lax.scan(step, (learned, tx.init(learned)), keys)[0]
    hidden, head = carry[0]
    return Layers(start.scale, hidden, head)

  def scores(self, fitted: Layers, z: jax.Array) -> jax.Array:
    """(N, K), logits."""
    return fitted(z)

  def probabilities(self, fitted: Layers, z: jax.Array) -> jax.Array:
    """(N, K)."""
    return jax.nn.softmax(fitted(z))


def _drawn(key: jax.Array, inputs: int, outputs: int, dtype) -> Linear:
  init = jax.nn.initializers.he_normal()
  return Linear(init(key, (inputs, outputs), dtype), jnp.zeros(outputs, dtype))
