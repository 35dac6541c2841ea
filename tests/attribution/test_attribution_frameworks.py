"""Networks of any framework are explained the same."""

from typing import Any, cast

import equinox as eqx
import flax.linen as linen
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_helpers import METHODS, TARGET, conv, pictures, row
from flax import nnx

X = pictures()
KERNEL, BIAS = 0.3 * pictures((3, 3, 2, 5), 1), 0.1 * pictures((5,), 2)
DENSE = pictures((5, 4), 3)


def plain():
  def apply_fn(params, x):
    kernel, bias, dense = params
    y = conv(x, kernel)
    return jnp.mean(jax.nn.relu(y + row(bias, y)), (1, 2)) @ dense

  return apply_fn, (KERNEL, BIAS, DENSE)


class NNX(nnx.Module):
  def __init__(self):
    rngs = nnx.Rngs(0)
    self.conv = nnx.Conv(2, 5, (3, 3), rngs=rngs)
    self.dense = nnx.Linear(5, 4, use_bias=False, rngs=rngs)

  def __call__(self, x):
    return self.dense(jnp.mean(nnx.relu(self.conv(x)), (1, 2)))


def with_nnx():
  model = NNX()
  layer = cast(Any, model.conv)
  layer.kernel[...], layer.bias[...] = KERNEL, BIAS
  cast(Any, model.dense).kernel[...] = DENSE
  graph, params = nnx.split(model)
  return (lambda params, x: nnx.merge(graph, params)(x)), params


class Linen(linen.Module):
  @linen.compact
  def __call__(self, x):
    x = linen.relu(linen.Conv(5, (3, 3), name='conv')(x))
    dense = linen.Dense(4, use_bias=False, name='dense')
    return dense(jnp.mean(x, (1, 2)))


def with_linen():
  params = {
    'conv': {'kernel': KERNEL, 'bias': BIAS},
    'dense': {'kernel': DENSE},
  }
  return Linen().apply, {'params': params}


def with_haiku():
  def network(x):
    x = jax.nn.relu(hk.Conv2D(5, 3, name='conv')(x))
    return hk.Linear(4, with_bias=False, name='dense')(jnp.mean(x, (1, 2)))

  params = {'conv': {'w': KERNEL, 'b': BIAS}, 'dense': {'w': DENSE}}
  return hk.without_apply_rng(hk.transform(network)).apply, params


class Equinox(eqx.Module):
  conv: eqx.nn.Conv2d
  dense: eqx.nn.Linear

  def __init__(self):
    key = jax.random.key(0)
    self.conv = eqx.nn.Conv2d(2, 5, 3, padding='SAME', key=key)
    self.dense = eqx.nn.Linear(5, 4, use_bias=False, key=key)

  def __call__(self, x):
    x = jax.nn.relu(self.conv(x.transpose(2, 0, 1)))
    return self.dense(jnp.mean(x, (1, 2)))


def with_equinox():
  where = lambda m: (m.conv.weight, m.conv.bias, m.dense.weight)
  new = KERNEL.transpose(3, 2, 0, 1), BIAS.reshape(-1, 1, 1), DENSE.T
  model = eqx.tree_at(where, Equinox(), new)
  params, static = eqx.partition(model, eqx.is_array)
  return lambda params, x: jax.vmap(eqx.combine(params, static))(x), params


@pytest.mark.parametrize('name', ['guided_backprop', 'lrp', 'grad_cam'])
@pytest.mark.parametrize(
  'framework', [with_nnx, with_linen, with_haiku, with_equinox]
)
def test_equal_networks_get_equal_maps(framework, name):
  with jax.numpy_rank_promotion('allow'):  # layers of Haiku promote
    if framework is with_equinox and name == 'grad_cam':
      pytest.skip('its maps are (channels, h, w)')
    found = METHODS[name](*framework(), X, TARGET)
  expected = METHODS[name](*plain(), X, TARGET)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
