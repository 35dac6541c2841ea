"""What classes score on many pictures."""

from typing import Any

import jax
import jax.numpy as jnp

from bort_jax.attribution.checks import ApplyFn


def class_scores(
  apply_fn: ApplyFn, params: Any, pictures: jax.Array, target: jax.Array
) -> jax.Array:
  """(m, n) outputs for classes (n,) of pictures (m, n, H, W, C)."""
  outputs = apply_fn(params, pictures.reshape(-1, *pictures.shape[2:]))
  targets = jnp.tile(target, len(pictures))
  chosen = jnp.take_along_axis(outputs, targets[:, None], axis=1)
  chosen = nan_where_missing(chosen, targets, outputs.shape[1])
  return chosen.reshape(pictures.shape[:2])


def nan_where_missing(
  values: jax.Array, target: jax.Array, classes: int
) -> jax.Array:
  """Values (n, ...), but NaN for classes (n,) that do not exist.

  Under jit they are not known when they are checked.
  """
  exists = (target >= 0) & (target < classes)
  exists = exists.reshape(-1, *[1] * (values.ndim - 1))
  return jnp.where(exists, values, jnp.nan)
