"""What an attack came to."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bort_jax.attacks.moves import wide
from bort_jax.norms import l2_norm, linf_norm


class Attack(NamedTuple):
  """Adversarial pictures, and what the network makes of them.

  Where several networks are attacked at once, ``before``, ``after`` and
  ``success`` are (M, N), a row per network.
  """

  x: jax.Array  # (N, H, W, C) the adversarial pictures
  change: jax.Array  # (N, H, W, C) by which they differ
  before: jax.Array  # (N,) int, class predicted for the pictures
  after: jax.Array  # (N,) int, class predicted for the adversarial pictures
  success: jax.Array  # (N,) bool: not the target, or if targeted, the target
  linf: jax.Array  # (N,) greatest change of a pixel
  l2: jax.Array  # (N,) Euclidean norm of the change
  target: jax.Array  # (N,) int, class left, or if targeted, sought


def result_of(
  clean: jax.Array,
  x: jax.Array,
  before: jax.Array,
  after: jax.Array,
  target: jax.Array,
  targeted: bool,
) -> Attack:
  """Compares predictions before and after.

  Args:
    clean: the pictures (N, H, W, C).
    x: the adversarial pictures.
    before: logits (..., N, K) of the pictures.
    after: logits (..., N, K) of the adversarial pictures.
    target: (N,) int.
    targeted: whether the target is sought.

  Returns:
    The account; norms are float32 at least.
  """
  difference = x.astype(wide(x.dtype)) - clean.astype(wide(x.dtype))
  reached = jnp.argmax(after, axis=-1)
  same = reached == jnp.broadcast_to(target, reached.shape)
  return Attack(
    x,
    difference.astype(x.dtype),
    jnp.argmax(before, axis=-1),
    reached,
    same if targeted else ~same,
    linf_norm(difference),
    l2_norm(difference),
    target,
  )
