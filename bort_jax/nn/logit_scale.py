"""A learned scale of the logits, for networks whose weights are bounded."""

import math

import jax
import jax.numpy as jnp
from flax import nnx


class LogitScale(nnx.Module):
  r"""Multiplies logits by one learned positive number.

  Orthogonal layers whose windows do not overlap stretch nothing: without
  biases, logits differ by at most √2 times the norm of the input. Cross-entropy
  wants more, and the optimizer fights the constraint. One free scale removes
  the conflict.

  The number is :math:`\exp(r\,\theta)`, with θ the parameter and r the
  learning-rate multiplier. So every optimizer honours the multiplier: one whose
  step does not depend on the gradient's size (Adam, LAMB, Muon) moves the log
  of the scale r times as fast as another parameter, SGD r² times as fast. LAMB
  means :func:`bort_jax.bort_lamb`, which takes scalars out of the trust ratio:
  ``optax.lamb`` leaves a θ near zero where it is.

  Args:
    initial: the scale at the start, > 0.
    learning_rate_multiplier: r, > 0. 30 suits Adam; use 1 with SGD.
    param_dtype: dtype of θ.
    rngs: not used; every module takes it.

  Raises:
    ValueError: if a number is not > 0.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn import LogitScale
    >>> scale = LogitScale(initial=2.0, rngs=nnx.Rngs(0))
    >>> [round(float(y), 4) for y in scale(jnp.array([1.0, -3.0]))]
    [2.0, -6.0]
  """

  def __init__(
    self,
    initial: float = 1.0,
    learning_rate_multiplier: float = 30.0,
    *,
    param_dtype: jax.typing.DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
  ):
    del rngs
    if not (initial > 0 and learning_rate_multiplier > 0):
      raise ValueError(
        'initial and learning_rate_multiplier must be > 0, got'
        f' {initial!r} and {learning_rate_multiplier!r}.'
      )
    self.multiplier = learning_rate_multiplier
    self.log_scale = nnx.Param(
      jnp.asarray(math.log(initial) / learning_rate_multiplier, param_dtype)
    )

  def __call__(self, logits: jax.Array) -> jax.Array:
    """Logits of any shape, scaled."""
    scale = jnp.exp(self.multiplier * self.log_scale[...])
    return logits * scale.astype(logits.dtype)
