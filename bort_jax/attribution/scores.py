"""What classes score on many pictures."""

from typing import Any

import jax
import jax.numpy as jnp

from bort_jax.attribution.checks import ApplyFn
from bort_jax.products import as_products
from bort_jax.validation import nan_where_missing


def class_scores(
  apply_fn: ApplyFn, params: Any, pictures: jax.Array, target: jax.Array
) -> jax.Array:
  """(m, n) outputs for classes (n,) of pictures (m, n, H, W, C)."""
  flat = pictures.reshape(-1, *pictures.shape[2:])
  outputs = as_products(lambda x: apply_fn(params, x))(flat)
  targets = jnp.tile(target, len(pictures))
  chosen = jnp.take_along_axis(outputs, targets[:, None], axis=1)
  chosen = nan_where_missing(chosen, targets, outputs.shape[1])
  return chosen.reshape(pictures.shape[:2])
