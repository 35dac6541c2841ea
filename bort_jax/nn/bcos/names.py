"""Names of numbers in a network, which change nothing where they stand."""

import jax
from jax.ad_checkpoint import checkpoint_name

DYNAMIC = 'bort_jax: dynamic'
ENCODED = 'bort_jax: encoded'
LOGIT_BIAS = 'bort_jax: logit bias'
NAMES = (DYNAMIC, ENCODED, LOGIT_BIAS)


def dynamic(x: jax.Array) -> jax.Array:
  """Names an array that is held fixed where a network is explained.

  Args:
    x: any array.

  Returns:
    The same, with the same derivatives.

  Examples:
    >>> import jax
    >>> from jax import numpy as jnp
    >>> from bort_jax.nn.bcos import dynamic, two_streams
    >>> square = lambda params, x: dynamic(x) * x
    >>> x = jnp.array(3.0)
    >>> float(jax.grad(square, 1)(None, x))
    6.0
    >>> float(jax.grad(two_streams(square, None, x).linear)(x))
    3.0
  """
  return checkpoint_name(x, DYNAMIC)


def encoded(x: jax.Array) -> jax.Array:
  """Names the array that a network is a linear function of: its coded input."""
  return checkpoint_name(x, ENCODED)


def logit_bias(x: jax.Array) -> jax.Array:
  """Names the number that the logits have added."""
  return checkpoint_name(x, LOGIT_BIAS)
