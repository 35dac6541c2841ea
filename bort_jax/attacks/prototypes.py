"""What the pictures of a class have in common in a latent code."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bort_jax import inversion
from bort_jax.attacks import edits
from bort_jax.attacks.errors import AttackError
from bort_jax.validation import checked_classes


def class_prototypes(
  apply_fn: Callable[[Any, jax.Array], Any],
  params: Any,
  x: jax.Array,
  labels: jax.Array,
  *,
  layer: inversion.Layer,
  num_classes: int,
) -> jax.Array:
  """The mean latent code of each class.

  Args:
    apply_fn: see :func:`synthesize`.
    params: its parameters.
    x: (N, H, W, C) pictures.
    labels: (N,) int.
    layer: the layer.
    num_classes: K.

  Returns:
    (K, ...) means; NaN for a class without pictures.

  Raises:
    AttackError: if labels do not fit the pictures.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import attacks
    >>> apply_fn = lambda params, x: {'code': x}
    >>> x = jnp.arange(4.0).reshape(4, 1, 1, 1)
    >>> attacks.class_prototypes(
    ...   apply_fn,
    ...   None,
    ...   x,
    ...   jnp.array([0, 0, 1, 1]),
    ...   layer='code',
    ...   num_classes=2,
    ... ).ravel().tolist()
    [0.5, 2.5]
  """
  edits.check_hashable(apply_fn)
  labels = checked_classes('labels', labels, len(x), num_classes, AttackError)
  with jax.default_matmul_precision('highest'):  # as synthesize encodes
    encode = inversion.until(apply_fn, layer)
    return _means(encode, num_classes, params, x, labels)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _means(encode, num_classes: int, params, x, labels) -> jax.Array:
  z = encode(params, x)
  members = jax.nn.one_hot(labels, num_classes, axis=0, dtype=z.dtype)
  totals = jnp.tensordot(members, z, 1)
  counts = jnp.sum(members, axis=1).reshape(-1, *[1] * (z.ndim - 1))
  return jnp.where(counts > 0, totals / jnp.maximum(counts, 1), jnp.nan)
