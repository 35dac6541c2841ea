"""How well the top pictures of a unit agree on what it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.neurons.top import Units
from bort_jax.validation import is_known


def class_distribution(units: Units, num_classes: int) -> jax.Array:
  """The shares of the classes among the top pictures of each unit.

  Args:
    units: of a layer, see :func:`survey`.
    num_classes: K.

  Returns:
    (U, K) p, each row of sum 1. NaN for units that no picture activates more
    than any other, and for those that were NaN for one.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics import neurons
    >>> outputs = lambda params, x: {'sum': x.sum((1, 2))}
    >>> x = jnp.array([1.0, 3.0, 2.0]).reshape(3, 1, 1, 1)
    >>> batch = x, jnp.array([0, 1, 0])
    >>> found = neurons.survey(outputs, 0, [batch], num_classes=2, count=2)
    >>> neurons.class_distribution(found['sum'], 2).tolist()
    [[0.5, 0.5]]
  """
  fired = units.fired.astype(units.values.dtype)
  rows = jnp.arange(len(fired))[:, None]
  # a label of −1, of no picture, has no share
  count = jnp.zeros((len(fired), num_classes), fired.dtype)
  count = count.at[rows, jnp.maximum(units.labels, 0)].add(fired)
  total = jnp.sum(fired, axis=1, keepdims=True)
  share = count / jnp.maximum(total, 1)
  return jnp.where(total > 0, share, jnp.nan)


def consistency(units: Units, affinity: ArrayLike) -> jax.Array:
  """How consistent each unit is, pᵀAp with its class distribution p.

  That the paper measures it by this form, with A of WordNet, is hearsay (a
  machine-written summary); p, A and the number of top pictures are our reading.

  Args:
    units: of a layer, see :func:`survey`.
    affinity: A (K, K), how near classes are, with 1 on the diagonal: see
      :func:`class_affinity`. With the identity it is the chance that two of the
      pictures are of one class.

  Returns:
    (U,) 1 for a unit of one class alone; NaN where p is.

  Raises:
    MetricError: if A is no square of finite numbers, or too small for the
      labels.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics import neurons
    >>> outputs = lambda params, x: {'sum': x.sum((1, 2))}
    >>> x = jnp.array([1.0, 3.0, 2.0]).reshape(3, 1, 1, 1)
    >>> batch = x, jnp.array([0, 1, 0])
    >>> found = neurons.survey(outputs, 0, [batch], num_classes=2, count=2)
    >>> neurons.consistency(found['sum'], jnp.eye(2))
    Array([0.5], dtype=float32)

  References:
    Dong et al., `Towards Interpretable Deep Neural Networks by Leveraging
    Adversarial Examples <https://arxiv.org/abs/1901.09035>`_, 2019
  """
  affinity = checked_affinity(affinity)
  labels = units.labels
  if is_known(labels) and labels.size and np.max(labels) >= len(affinity):
    raise MetricError(
      f'affinity is of {len(affinity)} classes, but pictures are of class'
      f' {np.max(labels)}. Give a matrix of all classes.'
    )
  p = class_distribution(units, len(affinity))
  near = affinity.astype(p.dtype)
  return jnp.einsum('ui,ij,uj->u', p, near, p, precision='highest')


def chance(
  counts: ArrayLike, affinity: ArrayLike, count: ArrayLike
) -> jax.Array:
  """What is expected of a unit whose top pictures are drawn at random.

  Args:
    counts: (K,) pictures of each class, as a survey has them.
    affinity: (K, K), see :func:`consistency`.
    count: k, how many are drawn, without putting back: a number, or the numbers
      of several units, of any shape. Of fewer pictures more is expected, 1 of a
      single one: hold a unit against as many as it has, the sum of
      ``units.fired`` over each row.

  Returns:
    The mean of pᵀAp over all draws, of the shape of the count; NaN where none
    are drawn, or of fewer than two.

  Raises:
    MetricError: if A is no square of finite numbers for these classes.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics import neurons
    >>> float(neurons.chance(jnp.array([1, 1]), jnp.eye(2), 2))
    0.5
    >>> neurons.chance(jnp.array([50, 50]), jnp.eye(2), jnp.array([1, 10]))
    Array([1.        , 0.54545456], dtype=float32)
  """
  affinity = checked_affinity(affinity)
  counts = jnp.asarray(counts)
  if counts.shape != affinity.shape[:1]:
    raise MetricError(
      f'affinity is of {len(affinity)} classes, counts of {counts.shape}.'
    )
  counts = counts.astype(affinity.dtype)
  total = jnp.sum(counts)
  total = jnp.where(total > 1, total, jnp.nan)
  own = counts @ jnp.diagonal(affinity)
  others = (counts @ affinity @ counts - own) / (total * (total - 1))
  kept = jnp.minimum(jnp.asarray(count), total)
  kept = jnp.where(kept > 0, kept, jnp.nan)
  return own / total / kept + (1 - 1 / kept) * others


def checked_affinity(affinity: ArrayLike) -> jax.Array:
  """A matrix (K, K) of floats; refuses others."""
  affinity = jnp.asarray(affinity)
  if affinity.ndim != 2 or affinity.shape[0] != affinity.shape[1]:
    raise MetricError(
      'affinity must be (K, K), how near K classes are, got shape'
      f' {affinity.shape}. jnp.eye(K) takes each for itself.'
    )
  if is_known(affinity) and not np.all(np.isfinite(np.asarray(affinity))):
    raise MetricError('affinity must be finite.')
  return affinity.astype(jnp.promote_types(affinity.dtype, jnp.float32))
