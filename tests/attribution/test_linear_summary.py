"""f(x) = W(x) x + b(x): exact for piecewise linear networks, else it shows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_helpers import (
  CLASSES,
  SHAPE,
  cnn,
  compilations,
  conv,
  layers,
  max_pool,
  parameters,
  pictures,
  residual,
  row,
)

from bort_jax import attribution
from bort_jax.attribution import AttributionError


def gated(params, x):
  """Choices in many forms."""
  y = conv(x, params['kernel0']) + row(params['bias0'], x)
  y = jnp.where(y > 0.1, 2 * y - 0.1, 0.5 * y)
  y = jnp.abs(y - 0.2) + y * (y < 0.3)
  y = jnp.clip(y, -0.5, 0.4) + jnp.maximum(y, jnp.flip(y, 1))
  y = jax.nn.relu6(3 * y) + jnp.minimum(y, 0.2) + jax.lax.clamp(0.1, y, 0.3)
  y = jnp.max(y, 1) + jax.lax.cummax(y, axis=1)[:, 2] - jnp.sort(y, 2)[:, 0]
  return jnp.mean(y, 1) @ params['dense']


def normalized(params, x):
  y = conv(x, params['kernel0'])
  y = (y - row(params['bias0'], y)) * jax.lax.rsqrt(
    0.1 + row(params['bias1'] ** 2, y)
  )
  return jnp.mean(max_pool(jax.nn.leaky_relu(y)), (1, 2)) @ params['dense']


NETWORKS = {
  'cnn': cnn,
  'residual': residual,
  'gated': gated,
  'normalized': normalized,
}


@pytest.mark.parametrize('name', NETWORKS)
def test_it_is_exact(name, float64):
  network = NETWORKS[name]
  params, x = parameters(dtype=jnp.float64), pictures(dtype=jnp.float64)
  found = attribution.linear_summary(network, params, x)
  assert found.weights.shape == (SHAPE[0], CLASSES, *SHAPE[1:])
  assert found.bias.shape == found.residual.shape == (SHAPE[0], CLASSES)
  np.testing.assert_allclose(found.residual, 0, atol=1e-13)
  line = jnp.einsum('nkhwc,nhwc->nk', found.weights, x) + found.bias
  np.testing.assert_allclose(line, network(params, x), rtol=1e-12)
  for k in range(CLASSES):
    gradient = attribution.gradient(network, params, x, jnp.full(3, k))
    np.testing.assert_allclose(
      found.weights[:, k], gradient, rtol=1e-10, atol=1e-13
    )


def flat(x):
  return x.reshape(len(x), -1)


def sorted_with_places(x):
  places = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
  return jax.lax.sort_key_val(x, places)


def chosen_with_number(x):
  branches = (lambda x: (2 * x, 1)), (lambda x: (-x, 2))
  return jax.lax.cond(jnp.sum(x) > 1e9, *branches, x)


# of 2 x + 0.5 flipped, and so on: constants must not change what is picked
CHOICES = {
  'top_k': lambda x: jax.lax.top_k(2 * x + 0.5, x.shape[1])[0],
  'values of a sort': lambda x: sorted_with_places(0.3 - x)[0],
  'sorted by another': lambda x: jax.lax.sort_key_val(jnp.sin(x), x + 1)[1],
  'sorted by constants': lambda x: jax.lax.sort_key_val(
    jnp.zeros_like(x) - jnp.arange(72.0)[None], x
  )[1],
  'constants sorted': lambda x: (
    x * jax.lax.sort_key_val(x, x * 0 + jnp.arange(72.0)[None])[1]
  ),
  'floats with integers': lambda x: chosen_with_number(x)[0],
  'bounds that depend on x': lambda x: jax.lax.clamp(
    0.5 * x[:, ::-1] - 1, x, x[:, ::-1] + 0.1
  ),
}


@pytest.mark.parametrize('name', CHOICES)
def test_weights_are_the_derivative(name, float64):
  network = lambda params, x: CHOICES[name](flat(x)) @ params
  params = pictures((72, CLASSES), 1, jnp.float64)
  x = pictures(dtype=jnp.float64)
  found = attribution.linear_summary(network, params, x)
  of_one = jax.jacrev(lambda x: network(params, x[None])[0])
  np.testing.assert_allclose(
    found.weights, jax.vmap(of_one)(x), rtol=1e-10, atol=1e-12
  )
  assert np.abs(found.weights).max() > 0.1
  if name != 'constants sorted':
    np.testing.assert_allclose(found.residual, 0, atol=1e-11)


def test_loops_of_unknown_length_are_named_with_their_place():
  def network(params, x):
    start = 0, flat(x) @ params
    return jax.lax.while_loop(
      lambda state: state[0] < 3, lambda s: (s[0] + 1, 2 * s[1]), start
    )[1]

  with pytest.raises(
    AttributionError, match=r'loop.*\(test_linear_summary.py:\d+\)'
  ):
    attribution.linear_summary(network, pictures((72, CLASSES)), pictures())


def test_it_holds_around_the_picture(float64):
  params, x = parameters(dtype=jnp.float64), pictures(dtype=jnp.float64)
  found = attribution.linear_summary(cnn, params, x)
  near = x + 1e-7 * pictures(seed=3, dtype=jnp.float64)
  line = jnp.einsum('nkhwc,nhwc->nk', found.weights, near) + found.bias
  np.testing.assert_allclose(line, cnn(params, near), rtol=1e-12)


def test_without_biases_there_is_no_bias():
  found = attribution.linear_summary(cnn, parameters(bias=0.0), pictures())
  np.testing.assert_array_equal(found.bias, 0)


def test_at_kinks_one_piece_is_taken_throughout(float64):
  params = parameters(dtype=jnp.float64, bias=0.0)
  params['bias2'] = jnp.arange(4.0)
  found = attribution.linear_summary(cnn, params, jnp.zeros(SHAPE))
  np.testing.assert_allclose(found.bias, np.tile(params['bias2'], (3, 1)))
  np.testing.assert_array_equal(found.residual, 0)
  np.testing.assert_array_equal(found.weights, 0)


@pytest.mark.parametrize('activation', [jnp.tanh, jax.nn.gelu, jnp.square])
def test_networks_that_are_not_piecewise_linear_show(activation):
  network = functools.partial(layers, activation=activation)
  logits = lambda params, x: network(params, x)['logits']
  params = parameters(width=5)
  params['kernel0'] = 3 * params['kernel0']
  found = attribution.linear_summary(logits, params, pictures())
  scale = np.abs(logits(params, pictures())).mean()
  assert float(found.residual.mean()) > 0.05 * scale


@pytest.mark.parametrize('chunk', [1, 2, 7, 100])
def test_chunks_change_nothing(chunk):
  params, x = parameters(), pictures()
  whole = attribution.linear_summary(cnn, params, x)
  for a, b in zip(
    attribution.linear_summary(cnn, params, x, chunk=chunk), whole, strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_second_call_compiles_nothing():
  apply_fn = lambda params, x: cnn(params, x)
  attribution.linear_summary(apply_fn, parameters(), pictures())
  with compilations() as second:
    attribution.linear_summary(apply_fn, parameters(1), pictures(seed=2))
  assert not second
