"""What all classifiers of a glass box have in common."""

from typing import Any, NamedTuple, Protocol

import jax

from bort_jax.nn.glassbox.errors import GlassBoxError
from bort_jax.nn.glassbox.products import product
from bort_jax.validation import check_number


class Linear(NamedTuple):
  """Scores z W + b."""

  weights: jax.Array  # (k, K)
  bias: jax.Array  # (K,)

  def __call__(self, z: jax.Array) -> jax.Array:
    """(N, k) to (N, K)."""
    return product(z, self.weights) + self.bias[None]


class Classifier(Protocol):
  """A frozen setting; what it learns is an argument of what it computes."""

  def fit(
    self, z: jax.Array, labels: jax.Array, num_classes: int, key: jax.Array
  ) -> Any:
    """What it learns from rows (N, k) and their classes (N,) int."""
    ...

  def scores(self, fitted: Any, z: jax.Array) -> jax.Array:
    """(N, K): the largest is the class."""
    ...

  def probabilities(self, fitted: Any, z: jax.Array) -> jax.Array:
    """(N, K), adding up to one."""
    ...


def check_setting(classifier: str, name: str, value: float) -> None:
  """Refuses what is no finite number ≥ 0."""
  try:
    check_number(name, value)
  except ValueError as error:
    raise GlassBoxError(f'{classifier}: {error}') from None
