"""The pictures that activate each unit most, of a stream of any length."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Units(NamedTuple):
  """What has activated the units of a layer most.

  Of pictures that activate a unit alike, the first ones are kept.
  """

  values: jax.Array  # (U, k) activations, greatest first; −inf where none is
  pictures: jax.Array  # (U, k) int, the numbers of the pictures; −1: none
  labels: jax.Array  # (U, k) int, their classes; −1: none
  places: jax.Array  # (U, k) int, where in the flattened map the maximum is
  least: jax.Array  # (U,) the least activation of all; NaN once one was NaN

  @property
  def fired(self) -> jax.Array:
    """(U, k) bool: activated by more than the least of all.

    A unit that is alike on all pictures has no top pictures, and a rectified
    one that few activate has these few.
    """
    return self.values > self.least[:, None]


def no_units(units: int, count: int, dtype: jax.typing.DTypeLike) -> Units:
  """Before the first picture."""
  none = jnp.full((units, count), -1)
  return Units(
    jnp.full((units, count), -jnp.inf, dtype),
    none,
    none,
    none,
    jnp.full(units, jnp.inf, dtype),
  )


def with_batch(
  top: Units,
  values: jax.Array,
  places: jax.Array,
  labels: jax.Array,
  first: jax.Array,
  counts: jax.Array,
) -> Units:
  """What it is after a further batch.

  Args:
    top: what was before.
    values: (N, U) activations.
    places: (N, U) int.
    labels: (N,) int.
    first: () int, the number of the first picture.
    counts: (N,) bool, false for padding.

  Returns:
    The new state, of the same shapes.
  """
  units = values.shape[1]
  spread = lambda numbers: jnp.broadcast_to(numbers, (units, len(labels)))
  ranked = jnp.where(counts[:, None] & ~jnp.isnan(values), values, -jnp.inf)
  considered = jnp.where(counts[:, None], values, jnp.inf)
  batch = Units(
    ranked.T,
    spread(first + jnp.arange(len(labels))),
    spread(labels),
    places.T,
    jnp.min(considered, axis=0, initial=jnp.inf),
  )
  return best_of(top, batch)


def best_of(one: Units, other: Units) -> Units:
  """The best of both, as many as the first one has; of equals, the first's."""
  values = jnp.concatenate([one.values, other.values], axis=1)
  best, at = jax.lax.top_k(values, one.values.shape[1])
  none = best == -jnp.inf

  def chosen(name):
    both = jnp.concatenate([getattr(one, name), getattr(other, name)], axis=1)
    return jnp.where(none, -1, jnp.take_along_axis(both, at, axis=1))

  return Units(
    best,
    chosen('pictures'),
    chosen('labels'),
    chosen('places'),
    jnp.minimum(one.least, other.least),
  )
