"""Powers of the input are flat at zero; they come back all the same."""

import jax
import numpy as np
from flax import nnx

from bort_jax import inversion, nn


def test_b_cos_layers_are_run_backwards():
  layer = nn.bcos.BcosConv(2, 18, (3, 3), b=2.0, rngs=nnx.Rngs(0))
  apply_fn, params = nn.functional(layer)
  x = jax.random.uniform(jax.random.key(0), (2, 5, 5, 2))
  found = inversion.reconstruct(apply_fn, params, x)
  np.testing.assert_allclose(found.x, x, atol=1e-4)
  np.testing.assert_array_less(found.residual, 1e-4)
