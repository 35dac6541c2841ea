"""Products of matrices that keep all digits of their type."""

import jax
import jax.numpy as jnp


def product(a: jax.Array, b: jax.Array) -> jax.Array:
  """A @ b, also on accelerators that would round to shorter floats."""
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
