"""What several tests compute alike."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def random_array(seed, shape, dtype: Any = np.float64):
  """Standard normal numbers, complex where the dtype is."""
  rng = np.random.default_rng(seed)
  real = rng.normal(size=shape)
  if np.issubdtype(dtype, np.complexfloating):
    real = real + 1j * rng.normal(size=shape)
  return real.astype(dtype)


def hermitian(matrices):
  """The conjugate transpose of each matrix of a stack."""
  return matrices.conj().swapaxes(-1, -2)


def polar_factor(matrices):
  """U Vᴴ of the singular value decomposition: the closest orthogonal matrix."""
  u, _, vh = np.linalg.svd(matrices, full_matrices=False)
  return u @ vh


def trajectory(tx, params, gradients):
  """The parameters after every step, stacked as the gradients are."""

  def step(carry, gradient):
    params, state = carry
    updates, state = tx.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    return (params, state), params

  params = jax.tree.map(jnp.asarray, params)
  return jax.jit(lambda *carry: jax.lax.scan(step, carry, gradients)[1])(
    params, tx.init(params)
  )
