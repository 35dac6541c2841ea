"""Which networks are found to scale with their input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_helpers import conv, max_pool, parameters, pictures

from bort_jax.attribution.homogeneity import (
  all_unchanged,
  constants_to_be_zero,
)
from bort_jax.inversion.program import trace

X = pictures()
PARAMS = parameters()
KERNEL = PARAMS['kernel0']
OUTSIDE = jnp.array([0, 50])


def scales(function, params=None):
  program = trace(function, params, jax.ShapeDtypeStruct(X.shape, X.dtype))
  needed = constants_to_be_zero(program)
  if needed is None:
    return False
  return bool(all_unchanged(needed, program.constants(params)))


def normalized(x):
  return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), -1, keepdims=True))


HOMOGENEOUS = {
  'relu': jax.nn.relu,
  'leaky': jax.nn.leaky_relu,
  'choice': lambda x: jnp.where(x > 0, x, 0.3 * x),
  'gate': lambda x: x * (x > 0),
  'abs': jnp.abs,
  'pool': max_pool,
  'mean': lambda x: jnp.mean(x, (1, 2)),
  'maxout': lambda x: jnp.maximum(x[..., 0], 2 * x[..., 1]),
  'largest': lambda x: jnp.max(x, -1),
  'padded': lambda x: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))),
  'unit_length': lambda x: normalized(x) * x,
  'root': lambda x: jnp.sqrt(jnp.sum(jnp.square(x), -1)),
  'softmax_of_directions': lambda x: x * jax.nn.softmax(normalized(x)),
  'add_zero': lambda x: x + 0.0,
  'clip': lambda x: jnp.clip(x, 0.0),
  'filled_by_zeros': lambda x: x.at[:, OUTSIDE].get(mode='fill', fill_value=0),
  'gathered': lambda x: x[:, jnp.array([1, 0])],
}

OTHERS = {
  'gelu': jax.nn.gelu,
  'tanh': jnp.tanh,
  'relu6': jax.nn.relu6,
  'square': jnp.square,
  'directions': normalized,
  'add_one': lambda x: x + 1,
  'threshold': lambda x: jnp.where(x > 1, x, 0.0),
  'constant_branch': lambda x: jnp.where(x > 0, x, 1.0),
  'padded_by_ones': lambda x: jnp.pad(
    x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0
  ),
  'filled_by_ones': lambda x: x.at[:, OUTSIDE].get(mode='fill', fill_value=1),
  'layer_norm': lambda x: jax.nn.standardize(x),
  'softmax': jax.nn.softmax,
  'rounded': jnp.round,
  'sum_of_powers': lambda x: x + jnp.square(x),
}


@pytest.mark.parametrize('name', HOMOGENEOUS)
def test_what_scales_is_found(name):
  function = HOMOGENEOUS[name]
  np.testing.assert_allclose(
    function(3 * X), 3 * function(X), rtol=1e-5, atol=1e-6
  )
  assert scales(lambda _, x: function(x))


@pytest.mark.parametrize('name', OTHERS)
def test_what_does_not_scale_is_not_taken_to(name):
  function = OTHERS[name]
  assert not np.allclose(function(3 * X), 3 * function(X), rtol=1e-3)
  assert not scales(lambda _, x: function(x))


@jax.custom_jvp
def surrogate(x):
  return jnp.maximum(x, 0)


surrogate.defjvp(
  lambda x, change: (surrogate(*x), jax.nn.sigmoid(x[0]) * change[0])
)


@jax.custom_vjp
def cut(x):
  return jnp.abs(x)


cut.defvjp(lambda x: (cut(x), x), lambda x, change: (change * x,))


@pytest.mark.parametrize(
  'function', [surrogate, cut, jax.jit(surrogate), jax.checkpoint(cut)]
)
def test_derivatives_of_ones_own_need_not_scale(function):
  assert not scales(lambda _, x: jax.nn.relu(x) + function(x))


def test_it_goes_by_the_numbers_of_parameters():
  function = lambda params, x: jnp.maximum(conv(x, KERNEL) + params, params)
  assert scales(function, jnp.zeros((1, 1, 1, 5)))
  assert not scales(function, jnp.zeros((1, 1, 1, 5)).at[..., 3].set(1))
  factor = lambda params, x: params * x / params
  assert scales(factor, 2.0)


def test_constants_that_are_computed_while_tracing_are_read_under_jit():
  """As the padding of a shortcut, zeros made from a shape."""

  def function(_, x):
    zeros = jnp.broadcast_to(jnp.array(0.0), x.shape)
    return jax.nn.relu(jnp.concatenate([x, zeros], -1) + 0.0)

  def found(_):
    program = trace(function, None, jax.ShapeDtypeStruct(X.shape, X.dtype))
    assert constants_to_be_zero(program) == ()
    return jnp.zeros(())

  jax.jit(found)(0.0)
