"""The input of B-cos networks: pictures beside their inverses."""

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.bcos.names import encoded


def add_inverse(x: jax.Array, total: float = 1.0) -> jax.Array:
  """Puts the inverse of each channel behind the channels: [x, total − x].

  So every pixel sums to the same number, and a dark one weighs as much as a
  bright one; the direction of a pixel alone tells its colour.

  Args:
    x: pictures (..., C), in 0 … total as a rule.
    total: 1 for pictures in 0 … 1, 0 for pictures of mean 0.

  Returns:
    (..., 2·C).

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.nn.bcos import add_inverse
    >>> add_inverse(jnp.array([0.25, 1.0])).tolist()
    [0.25, 1.0, 0.75, 0.0]
  """
  return jnp.concatenate([x, total - x], axis=-1)


class AddInverse(nnx.Module):
  """The first layer of a network: codes pictures by :func:`add_inverse`.

  Pictures that are coded already, of twice the channels, pass as they are.
  Explanations are in terms of what comes out, whichever goes in.

  Args:
    channels: channels of uncoded pictures.
    total: as of :func:`add_inverse`.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.nn.bcos import AddInverse
    >>> AddInverse(3)(jnp.ones((2, 8, 8, 3))).shape
    (2, 8, 8, 6)
  """

  def __init__(self, channels: int, total: float = 1.0):
    self.channels = channels
    self.total = total

  def __call__(self, x: jax.Array) -> jax.Array:
    """(..., channels or 2·channels) to (..., 2·channels).

    Raises:
      ValueError: if there is another number of channels.
    """
    if x.shape[-1] == self.channels:
      x = add_inverse(x, self.total)
    elif x.shape[-1] != 2 * self.channels:
      raise ValueError(
        f'Expected pictures of {self.channels} channels, or of'
        f' {2 * self.channels} coded by nn.bcos.add_inverse, got {x.shape}.'
      )
    return encoded(x)
