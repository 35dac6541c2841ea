"""The number that says how much a network holds with a class."""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from bort_jax.metrics.checks import wide
from bort_jax.validation import nan_where_missing

Score: TypeAlias = Literal['softmax', 'logit']


def score_of(logits: jax.Array, target: jax.Array, score: str) -> jax.Array:
  """(N,) the probability of classes, or their logits; NaN of no class."""
  logits = logits.astype(wide(logits.dtype))
  if score == 'softmax':
    logits = jax.nn.softmax(logits, axis=-1)
  chosen = jnp.take_along_axis(logits, target[:, None], axis=1)[:, 0]
  return nan_where_missing(chosen, target, logits.shape[1])
