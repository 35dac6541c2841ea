"""Rules at ReLUs, against networks differentiated by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_helpers import TARGET, cnn, parameters, pictures

from bort_jax import attribution
from bort_jax.attribution.rectifiers import rectifiers
from bort_jax.inversion.program import trace

X = pictures((3, 2, 2, 3))
FIRST, SECOND = pictures((12, 9), 1), pictures((9, 7), 2)
LAST = pictures((7, 4), 3)


def dense(activation):
  def apply_fn(params, x):
    first, second, last = params
    y = activation(x.reshape(len(x), -1) @ first)
    return activation(y @ second) @ last

  return apply_fn


RELUS = {
  'jax.nn.relu': jax.nn.relu,
  'maximum': lambda x: jnp.maximum(x, 0),
  'maximum_of_zero': lambda x: jnp.maximum(0.0, x),
  'clip': lambda x: jnp.clip(x, 0.0),
  'where': lambda x: jnp.where(x > 0, x, 0),
  'where_not': lambda x: jnp.where(x <= 0, 0, x),
  'where_less': lambda x: jnp.where(x < 0, 0, x),
}
LEAKY = {
  'jax.nn.leaky_relu': lambda x: jax.nn.leaky_relu(x, 0.2),
  'where': lambda x: jnp.where(x > 0, x, x * 0.2),
}


def by_hand(rule, slope):
  """Backwards through the two layers; rule(g, derivative of the ReLU)."""
  x = np.asarray(X.reshape(3, -1))
  a = x @ FIRST
  b = np.where(a > 0, a, slope * a) @ SECOND
  g = np.asarray(LAST)[:, TARGET].T
  g = rule(g, np.where(b > 0, 1, slope)) @ np.asarray(SECOND).T
  g = rule(g, np.where(a > 0, 1, slope)) @ np.asarray(FIRST).T
  return g.reshape(X.shape)


METHODS = {
  'guided': (attribution.guided_backprop, lambda g, d: np.maximum(g, 0) * d),
  'deconvnet': (attribution.deconvnet, lambda g, d: np.maximum(g, 0)),
}


def test_what_is_closed_passes_nothing_not_even_infinity():
  apply_fn = lambda w, x: jax.nn.relu(x.reshape(len(x), -1)) * w * w
  x = jnp.array([-1.0, 2.0]).reshape(1, 1, 1, 2)
  params = jnp.array([1e30, 3.0])
  maps = [
    attribution.guided_backprop(apply_fn, params[None], x, target).ravel()
    for target in (0, 1)
  ]
  np.testing.assert_allclose(maps, [[0, 0], [0, 9]], rtol=1e-6)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('relu', RELUS)
def test_relus_in_every_form(method, relu):
  function, rule = METHODS[method]
  found = function(dense(RELUS[relu]), (FIRST, SECOND, LAST), X, TARGET)
  np.testing.assert_allclose(found, by_hand(rule, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('relu', LEAKY)
def test_leaky_relus(method, relu):
  function, rule = METHODS[method]
  found = function(dense(LEAKY[relu]), (FIRST, SECOND, LAST), X, TARGET)
  np.testing.assert_allclose(found, by_hand(rule, 0.2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('method', [m for m, _ in METHODS.values()])
@pytest.mark.parametrize('activation', [jax.nn.gelu, jax.nn.silu, jnp.tanh])
def test_other_functions_keep_their_derivative(method, activation):
  args = dense(activation), (FIRST, SECOND, LAST), X, TARGET
  np.testing.assert_allclose(
    method(*args), attribution.gradient(*args), rtol=1e-4, atol=1e-5
  )


def test_pooling_and_convolutions_keep_theirs():
  """With nothing negative on the way back, guided is the gradient."""
  params = jax.tree.map(jnp.abs, parameters())
  args = cnn, params, pictures(), TARGET
  np.testing.assert_allclose(
    attribution.guided_backprop(*args), attribution.gradient(*args), rtol=1e-5
  )


def count(function, like=X):
  program = trace(
    lambda _, x: function(x), None, jax.ShapeDtypeStruct(like.shape, like.dtype)
  )
  return len(rectifiers(program))


def variance(x):
  mean = jnp.mean(x, -1, keepdims=True)
  square = jnp.mean(jnp.square(x), -1, keepdims=True)
  return jnp.maximum(0.0, square - jnp.square(mean))


@pytest.mark.parametrize(
  ('function', 'number'),
  [
    (lambda x: x * jax.lax.rsqrt(variance(x) + 1e-6), 0),
    (lambda x: x / (jnp.sqrt(variance(x)) + 1e-6), 0),
    (jax.nn.softplus, 0),
    (lambda x: jnp.maximum(x, 1.0), 0),
    (jax.nn.elu, 0),
    (lambda x: jnp.where(x > 1, x, 0.0), 0),
    (jax.nn.relu6, 1),
    (lambda x: jax.nn.relu(x) + jax.nn.relu(-x), 2),
  ],
)
def test_only_relus_are_taken_for_them(function, number):
  assert count(function) == number


def test_a_slope_can_be_learned():
  def apply_fn(params, x):
    slope, rest = params
    return dense(lambda y: jnp.where(y >= 0, y, slope * y))(rest, x)

  params = 0.2, (FIRST, SECOND, LAST)
  found = attribution.guided_backprop(apply_fn, params, X, TARGET)
  rule = METHODS['guided'][1]
  np.testing.assert_allclose(found, by_hand(rule, 0.2), rtol=1e-4, atol=1e-5)
