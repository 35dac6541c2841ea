"""How like what a layer makes of pictures and of adversarial ones is."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bort_jax.metrics.checks import rows_of, wide
from bort_jax.metrics.moments import (
  Moments,
  joined,
  moments_of,
  no_moments,
)
from bort_jax.norms import l2_norm, unit


class Likeness(NamedTuple):
  """Of one layer φ, over pairs of a picture x and an adversarial one x*."""

  cosine: Moments  # of φ(x) and φ(x*); pairs where one is zero do not count
  distance: Moments  # ‖φ(x) − φ(x*)‖ in the 2-norm
  real: Moments  # of φ(x) itself, as a vector
  stretched: jax.Array  # () greatest ‖φ(x) − φ(x*)‖ / ‖x − x*‖; −∞ of none

  @property
  def relative_distance(self) -> jax.Array:
    """() the mean distance over that of two real pictures, root mean square.

    NaN of fewer than two pictures, and of a layer that tells none apart.
    """
    apart = self.real.typical_distance
    return self.distance.average / jnp.where(apart > 0, apart, jnp.nan)

  @property
  def greatest_stretch(self) -> jax.Array:
    """() of the pairs that differ; NaN if none does."""
    none = self.stretched == -jnp.inf
    return jnp.where(none, jnp.nan, self.stretched)


def no_likeness(features: int, dtype: jax.typing.DTypeLike) -> Likeness:
  """Before the first pair."""
  scalar = no_moments((), dtype)
  below = jnp.asarray(-jnp.inf, dtype)
  return Likeness(scalar, scalar, no_moments((features,), dtype), below)


def with_pairs(
  before: Likeness,
  real: jax.Array,
  adversarial: jax.Array,
  change: jax.Array,
  counts: jax.Array,
) -> Likeness:
  """What it is after a further batch.

  Args:
    before: what was before.
    real: (N, ...) of the layer.
    adversarial: (N, ...) likewise.
    change: (N,) ‖x − x*‖.
    counts: (N,) bool, false for padding.

  Returns:
    The new state.
  """
  real, adversarial = (
    rows_of(a).astype(wide(a.dtype)) for a in (real, adversarial)
  )
  distance = l2_norm(real - adversarial)
  one, other = unit(real), unit(adversarial)
  cosine = jnp.sum(one * other, axis=1)
  known = counts & jnp.any(one != 0, axis=1) & jnp.any(other != 0, axis=1)
  moves = counts & (change > 0)
  stretch = distance / jnp.where(moves, change, 1)
  return Likeness(
    joined(before.cosine, moments_of(cosine, known)),
    joined(before.distance, moments_of(distance, counts)),
    joined(before.real, moments_of(real, counts)),
    jnp.maximum(before.stretched, jnp.max(jnp.where(moves, stretch, -jnp.inf))),
  )
