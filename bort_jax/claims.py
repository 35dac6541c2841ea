"""What a function says of its values, for those who read its operations."""

import math

import jax
from jax.ad_checkpoint import checkpoint_name

_ALIGNED = 'bort_jax: aligned, B = '


def aligned(y: jax.Array, b: float) -> jax.Array:
  r"""Says that an array is the output of a B-cos layer; it changes nothing.

  :func:`bort_jax.inversion.certificate` takes it at its word, where from the
  operations alone it would find no bound. Where a layer multiplies in a wider
  dtype than it computes in, as with bfloat16, the claim does not reach the
  product, and there is none.

  Args:
    y: what a convolution or a dense layer without bias made of its input,
      multiplied by :math:`|y / n|^{B-1}`, where n is the norm of what each
      number was made of (a patch, of one group), or a little more: at least
      that norm, and no steeper. Of several units, it may be the largest.
    b: B, finite and ≥ 1.

  Returns:
    The same array, with the same derivatives.

  Raises:
    ValueError: for another B.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import inversion
    >>> from bort_jax.claims import aligned
    >>> def layer(kernel, x):
    ...   y = x @ kernel
    ...   norm = jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True) + 1e-6)
    ...   return aligned(jnp.abs(y) / jnp.broadcast_to(norm, y.shape) * y, 2.0)
    >>> found = inversion.certificate(layer, jnp.eye(3), jnp.ones((1, 3)))
    >>> round(float(found.upper), 2)
    3.0
  """
  if not (math.isfinite(b) and b >= 1):
    raise ValueError(f'b must be a finite number >= 1, got {b!r}.')
  return checkpoint_name(y, f'{_ALIGNED}{float(b)!r}')


def exponent_in(name: str) -> float | None:
  """The B that :func:`aligned` put into a name; None in other names."""
  if not name.startswith(_ALIGNED):
    return None
  return float(name.removeprefix(_ALIGNED))
