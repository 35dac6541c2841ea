"""How far apart the classes of a stream of rows are, in constant memory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.metrics.checks import check_count, rows_of, wide
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.moments import Moments, joined
from bort_jax.metrics.silhouette import silhouette
from bort_jax.validation import checked_classes, is_known, nan_where_missing


class Separability(NamedTuple):
  """How well classes are separated, one number each."""

  intra: jax.Array  # () root-mean-square distance of two rows of one class
  inter: jax.Array  # () of two rows of different classes
  ratio: jax.Array  # () inter / intra, which no rescaling changes
  fisher: jax.Array  # () trace of scatter between classes / within them
  silhouette: jax.Array  # () mean over a sample, −1 … 1


class ClassSpread(NamedTuple):
  """What is kept of the rows seen so far: nothing grows with their number.

  Counts, means and scatters give the distances and Fisher's ratio exactly, over
  all pairs. Silhouettes need every distance, so they are exact for a sample of
  bounded size, drawn uniformly without replacement: all rows, while there are
  no more. What is kept depends on the order of the rows, not on how they are
  cut into batches.
  """

  count: jax.Array  # (K,) int, rows of each class
  mean: jax.Array  # (K, D)
  scatter: jax.Array  # (K,) sum of squared distances to the class's mean
  key: jax.Array  # of the sample
  priority: jax.Array  # (S,) the smallest drawn so far; infinite where empty
  sample: jax.Array  # (S, D)
  sample_labels: jax.Array  # (S,) int, −1 where empty

  @classmethod
  def start(
    cls,
    num_features: int,
    num_classes: int,
    *,
    key: jax.Array,
    sample: int = 500,
    dtype: jax.typing.DTypeLike = jnp.float32,
  ) -> 'ClassSpread':
    """Before any row.

    Args:
      num_features: D.
      num_classes: K, ≥ 2.
      key: a random key, of the sample.
      sample: S, how many rows silhouettes are taken of, ≥ 2; S² distances are
        computed.
      dtype: of the rows; sums are kept in float32 or wider.

    Returns:
      The state.

    Raises:
      MetricError: for a number outside its range.
    """
    check_count('num_features', num_features)
    for name, value in {'num_classes': num_classes, 'sample': sample}.items():
      check_count(name, value)
      if value < 2:
        raise MetricError(f'{name} must be at least 2, got {value}.')
    dtype = wide(dtype)
    return cls(
      jnp.zeros(num_classes, int),
      jnp.zeros((num_classes, num_features), dtype),
      jnp.zeros(num_classes, dtype),
      key,
      jnp.full(sample, jnp.inf, dtype),
      jnp.zeros((sample, num_features), dtype),
      jnp.full(sample, -1),
    )

  def add(self, features: ArrayLike, labels: ArrayLike) -> 'ClassSpread':
    """After some more rows.

    Args:
      features: (N, ...) floats with D numbers each.
      labels: (N,) int. Under jit, one that does not exist makes every result
        NaN.

    Returns:
      The state; jits.

    Raises:
      MetricError: for labels that do not exist, or rows of another size.
    """
    rows = rows_of(jnp.asarray(features)).astype(self.mean.dtype)
    num_classes, size = self.mean.shape
    if rows.shape[1] != size:
      raise MetricError(
        f'These rows have {rows.shape[1]} numbers each, the first had {size}.'
      )
    labels = checked_classes(
      'labels', labels, len(rows), num_classes, MetricError
    )
    return _added(self, rows, labels)

  def result(self) -> Separability:
    """The measures of all rows so far.

    Returns:
      Numbers (); NaN where they are not defined, as of classes of one row.
      ``intra`` and ``inter`` scale with the rows; ``ratio``, ``fisher`` and
      ``silhouette`` do not.

    Raises:
      MetricError: if a class has no rows. Under jit all is NaN then.
    """
    if is_known(self.count):
      empty = [str(k) for k in jnp.flatnonzero(self.count == 0)]
      if empty:
        raise MetricError(
          f'No picture is of class {", ".join(empty)}, so its distance to the'
          f' others is not defined. Number the classes that there are'
          f' 0 … {len(self.count) - len(empty) - 1}, or give pictures of all.'
        )
    found = _measures(self)
    complete = jnp.all(self.count > 0)
    return Separability(*(jnp.where(complete, v, jnp.nan) for v in found))


@jax.jit
def _added(
  spread: ClassSpread, rows: jax.Array, labels: jax.Array
) -> ClassSpread:
  rows = nan_where_missing(rows, labels, len(spread.count))
  return _merged(_sampled(spread, rows, labels), rows, labels)


def _merged(
  spread: ClassSpread, rows: jax.Array, labels: jax.Array
) -> ClassSpread:
  """The exact moments of two sets of rows together, without cancellation."""
  is_of = jax.nn.one_hot(labels, len(spread.count), dtype=rows.dtype)
  count = jnp.sum(is_of, axis=0)
  total = jnp.matmul(is_of.T, rows, precision=jax.lax.Precision.HIGHEST)
  mean = total / jnp.maximum(count, 1)[:, None]
  squares = jnp.sum((rows - mean[labels]) ** 2, axis=1)
  scatter = jnp.sum(is_of * squares[:, None], axis=0)
  before = Moments(spread.count.astype(rows.dtype), spread.mean, spread.scatter)
  both = jax.vmap(joined)(before, Moments(count, mean, scatter))
  return spread._replace(
    count=spread.count + count.astype(int),
    mean=both.mean,
    scatter=both.squares,
  )


def _sampled(
  spread: ClassSpread, rows: jax.Array, labels: jax.Array
) -> ClassSpread:
  """Keeps the rows of smallest priority, which each row draws for itself."""
  number = jnp.sum(spread.count) + jnp.arange(len(rows))
  keys = jax.vmap(lambda i: jax.random.fold_in(spread.key, i))(number)
  draw = lambda key: jax.random.uniform(key, (), spread.priority.dtype)
  priority = jnp.concatenate([spread.priority, jax.vmap(draw)(keys)])
  _, kept = jax.lax.top_k(-priority, len(spread.priority))
  return spread._replace(
    priority=priority[kept],
    sample=jnp.concatenate([spread.sample, rows])[kept],
    sample_labels=jnp.concatenate([spread.sample_labels, labels])[kept],
  )


@jax.jit
def _measures(spread: ClassSpread) -> Separability:
  count = spread.count.astype(spread.mean.dtype)
  others = jnp.sum(count) - count
  centre = jnp.sum(count[:, None] * spread.mean, axis=0) / jnp.sum(count)
  apart = jnp.sum((spread.mean - centre[None]) ** 2, axis=1)
  between = jnp.sum(count * apart)
  # over all pairs of means at once: K² D numbers need not be held
  total = jnp.sum(count) * between + jnp.sum(others * spread.scatter)
  inter = jnp.sqrt(2 * total / jnp.sum(count * others))
  own_pairs = jnp.sum(count * (count - 1))
  intra = jnp.sqrt(2 * jnp.sum(count * spread.scatter) / own_pairs)
  fisher = between / jnp.sum(spread.scatter)
  filled = spread.sample_labels >= 0
  scores = silhouette(
    spread.sample, spread.sample_labels, len(count), where=filled
  )
  mean = jnp.sum(jnp.where(filled, scores, 0)) / jnp.sum(filled)
  return Separability(intra, inter, inter / intra, fisher, mean)
