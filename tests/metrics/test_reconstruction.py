"""Errors of reconstructions whose distance is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bort_jax import metrics


def test_error_of_a_perfect_a_dark_a_scaled_and_a_shifted_picture():
  x = jax.random.uniform(jax.random.key(0), (4, 4, 4, 1))
  back = jnp.stack([x[0], jnp.zeros_like(x[1]), -2 * x[2], x[3] + 5])
  error = metrics.reconstruction_error(x, back)
  np.testing.assert_allclose(error.raw[:3], [0, 1, 3], atol=1e-6)
  np.testing.assert_allclose(error.scale_fitted[:3], [0, 1, 0], atol=1e-6)
  assert jnp.isnan(error.pearson[1])
  np.testing.assert_allclose(
    error.pearson[jnp.array([0, 2, 3])], [1, -1, 1], atol=1e-4
  )
  expected = [np.corrcoef(x[i].ravel(), back[i].ravel())[0, 1] for i in (0, 3)]
  np.testing.assert_allclose(
    error.pearson[jnp.array([0, 3])], expected, atol=1e-4
  )


@pytest.mark.parametrize('back', [0.0, 1.0])
def test_errors_of_a_black_picture_are_nan(back):
  black = jnp.zeros((1, 4))
  error = metrics.reconstruction_error(black, black + back)
  for value in error:
    assert jnp.isnan(value[0])


def test_correlations_of_a_constant_picture_are_nan():
  constant = jnp.full((1, 300), 0.1)  # its mean is not 0.1
  other = jax.random.uniform(jax.random.key(0), (1, 300))
  for x, back in ((constant, other), (other, constant)):
    error = metrics.reconstruction_error(x, back)
    assert jnp.isnan(error.pearson[0])
    assert jnp.isfinite(error.raw[0])


def test_integers_do_not_wrap():
  x = jnp.array([[200, 100, 50, 7]], jnp.uint8)
  back = jnp.array([[100, 200, 51, 9]], jnp.uint8)
  found = metrics.reconstruction_error(x, back)
  expected = metrics.reconstruction_error(
    x.astype(jnp.float32), back.astype(jnp.float32)
  )
  np.testing.assert_array_equal(found, expected)
  assert found.raw.dtype == jnp.float32


def test_other_shapes_are_refused():
  with pytest.raises(ValueError, match='reconstruction'):
    metrics.reconstruction_error(jnp.zeros((1, 4)), jnp.zeros((1, 5)))
