"""What training makes small."""

from typing import Literal, TypeAlias

import jax
import optax

from bort_jax.nn.bcos import uniform_off_bce

Loss: TypeAlias = Literal['softmax', 'bce', 'bce_uniform_off']


def picture_losses(
  loss: Loss, logits: jax.Array, targets: jax.Array
) -> jax.Array:
  """The loss of each picture; a batch's is their mean.

  Args:
    loss: ``'softmax'``, cross-entropy; ``'bce'``, binary cross-entropy, the
      mean over classes; ``'bce_uniform_off'``, the same with no target below
      1/K, see :func:`bort_jax.nn.bcos.uniform_off_bce`.
    logits: (N, K), floats.
    targets: (N, K) in 0 … 1.

  Returns:
    (N,).

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.train.losses import picture_losses
    >>> losses = picture_losses('bce', jnp.zeros((1, 4)), jnp.eye(4)[:1])
    >>> round(float(losses[0]), 4)
    0.6931
  """
  if loss == 'softmax':
    return optax.softmax_cross_entropy(logits, targets)
  off = 0.0 if loss == 'bce' else None
  of_one = lambda x, y: uniform_off_bce(x[None], y[None], off)
  return jax.vmap(of_one)(logits, targets)
