"""Means and spreads of numbers that come a batch at a time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Moments(NamedTuple):
  """What is kept of numbers, or of vectors, that have been seen."""

  count: jax.Array  # () how many
  mean: jax.Array  # (...) of them; 0 of none
  squares: jax.Array  # () sum of their squared distances from the mean

  @property
  def average(self) -> jax.Array:
    """(...) their mean; NaN of none."""
    return jnp.where(self.count > 0, self.mean, jnp.nan)

  @property
  def deviation(self) -> jax.Array:
    """() their standard deviation; NaN of fewer than two."""
    return jnp.sqrt(self.squares / _or_nan(self.count, 1))

  @property
  def typical_distance(self) -> jax.Array:
    """() root mean square distance of two of them; NaN of fewer than two."""
    return 2**0.5 * self.deviation


def no_moments(shape: tuple[int, ...], dtype) -> Moments:
  """Of nothing yet."""
  zero = jnp.zeros((), dtype)
  return Moments(zero, jnp.zeros(shape, dtype), zero)


def moments_of(values: jax.Array, counts: jax.Array) -> Moments:
  """Those of a batch.

  Args:
    values: (N, ...).
    counts: (N,) bool, which of them count; the others may be anything.

  Returns:
    Their moments, in the type of the values.
  """
  values = jnp.where(_along(counts, values), values, 0)
  count = jnp.sum(counts, dtype=values.dtype)
  mean = jnp.sum(values, axis=0) / jnp.maximum(count, 1)
  far = jnp.where(_along(counts, values), values - mean[None], 0)
  return Moments(count, mean, jnp.sum(jnp.square(far)))


def joined(one: Moments, other: Moments) -> Moments:
  """Those of all that either has seen.

  References:
    Chan et al., Updating Formulae and a Pairwise Algorithm for Computing Sample
    Variances, 1979
  """
  count = one.count + other.count
  share = other.count / jnp.maximum(count, 1)
  apart = other.mean - one.mean
  between = jnp.sum(jnp.square(apart)) * one.count * share
  return Moments(
    count, one.mean + apart * share, one.squares + other.squares + between
  )


def _along(mask: jax.Array, values: jax.Array) -> jax.Array:
  return mask.reshape(-1, *[1] * (values.ndim - 1))


def _or_nan(count: jax.Array, less: int) -> jax.Array:
  return jnp.where(count > less, count - less, jnp.nan)
