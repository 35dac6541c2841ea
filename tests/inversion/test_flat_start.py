"""Powers of the input are flat at zero; they come back all the same."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bort_jax import inversion, nn
from bort_jax.inversion.start import start_of


def test_b_cos_layers_are_run_backwards():
  layer = nn.bcos.BcosConv(2, 18, (3, 3), b=2.0, rngs=nnx.Rngs(0))
  apply_fn, params = nn.functional(layer)
  x = jax.random.uniform(jax.random.key(0), (2, 5, 5, 2))
  found = inversion.reconstruct(apply_fn, params, x)
  np.testing.assert_allclose(found.x, x, atol=1e-4)
  np.testing.assert_array_less(found.residual, 1e-4)


def test_numbers_that_are_flat_beside_others_that_are_not_come_back():
  p = jnp.array([[1.0, 0.5, -0.2], [-0.3, 0.8, 1.0]])
  mixed = lambda p, x: jnp.concatenate([3 * x[:, :1], x[:, 1:] ** 2 @ p], 1)
  x = jax.random.uniform(jax.random.key(1), (3, 3), minval=0.2)
  found = inversion.reconstruct(mixed, p, x)
  np.testing.assert_allclose(found.x, x, atol=1e-4)


def test_every_sample_starts_as_it_would_alone_and_what_is_unseen_at_zero():
  p = jax.random.normal(jax.random.key(2), (3, 5))
  function = lambda x: x[:, :3] @ p  # the last number is lost
  y = jnp.array([[1.0], [100.0]]) * jax.random.normal(jax.random.key(3), (2, 5))
  like = lambda n: jax.ShapeDtypeStruct((n, 4), y.dtype)
  start = start_of(function, like(2), y)
  alone = [start_of(function, like(1), y[i : i + 1])[0] for i in range(2)]
  np.testing.assert_allclose(start, alone, rtol=1e-5)
  np.testing.assert_array_equal(start[:, 3], 0)
