"""The last layer of B-cos networks."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.bcos.names import logit_bias


class LogitLayer(nnx.Module):
  """Logits from outputs: x / temperature + bias, both fixed numbers.

  The default bias, −log(K − 1), makes the sigmoid of an output of zero 1/K, and
  takes no part in explanations. B-cos networks are trained with binary
  cross-entropy, which needs it.

  Args:
    num_classes: K, at least 1.
    temperature: the divisor, > 0. B < 2 and networks without norms need it.
    bias: b0; None for −log(K − 1), or 0 for one class.

  Raises:
    ValueError: if the temperature is not a finite number > 0.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from bort_jax.nn.bcos import LogitLayer
    >>> layer = LogitLayer(10)
    >>> round(float(jax.nn.sigmoid(layer(jnp.zeros(10)))[0]), 4)
    0.1
  """

  def __init__(
    self,
    num_classes: int,
    *,
    temperature: float = 1.0,
    bias: float | None = None,
  ):
    if not (math.isfinite(temperature) and temperature > 0):
      raise ValueError(
        f'temperature must be a finite number > 0, got {temperature!r}.'
      )
    self.temperature = temperature
    default = -math.log(max(num_classes - 1, 1))
    self.bias = default if bias is None else bias

  def __call__(self, x: jax.Array) -> jax.Array:
    """Outputs (..., K) to logits of the same shape and dtype."""
    bias = logit_bias(jnp.asarray(self.bias, x.dtype))
    return x / self.temperature + bias
