"""The same networks in five frameworks come back the same."""

import functools
from types import SimpleNamespace
from typing import Any, cast

import equinox as eqx
import flax.linen as linen
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bort_jax import inversion

IMAGE = 6, 6, 2
CHANNELS, HIDDEN = 18, 20
HEADS, WIDTH, TOKENS = 2, 4, 5
EPSILON = 1e-5
SLOPE = 0.5


def orthogonal(seed, *shape):
  return jax.nn.initializers.orthogonal()(jax.random.key(seed), shape)


def near_one(seed, size):
  return 1 + 0.2 * jax.random.uniform(jax.random.key(seed), (size,))


def weights():
  """A kernel, the four vectors of a normalization, and a dense layer."""
  kernel = orthogonal(0, 9 * IMAGE[-1], CHANNELS).reshape(3, 3, -1, CHANNELS)
  vectors = {
    name: near_one(seed, CHANNELS)
    for seed, name in enumerate(('bias', 'scale', 'offset', 'mean', 'var'))
  }
  dense = orthogonal(7, 4 * CHANNELS, 4 * CHANNELS)
  block = 0.5 * orthogonal(8, CHANNELS, CHANNELS)
  return SimpleNamespace(kernel=kernel, dense=dense, block=block, **vectors)


def attention_weights():
  names = ('query', 'key', 'value', 'output')
  matrices = {
    name: 0.3 * orthogonal(i, WIDTH, WIDTH) for i, name in enumerate(names)
  }
  return SimpleNamespace(
    scale=near_one(1, WIDTH), offset=near_one(2, WIDTH), **matrices
  )


activation = functools.partial(jax.nn.leaky_relu, negative_slope=SLOPE)


def plain():
  """Convolution 3×3 of stride 3, normalization, block, activation, dense."""
  w = weights()

  def apply_fn(p, x):
    x = jax.lax.conv_general_dilated(
      x, p.kernel, (3, 3), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    row = lambda name: getattr(p, name).reshape(1, 1, 1, -1)
    x = x + row('bias')
    x = (x - row('mean')) * jax.lax.rsqrt(row('var') + EPSILON)
    x = activation(x * row('scale') + row('offset'))
    x = x + jnp.tanh(x @ p.block)
    return x.reshape(len(x), -1) @ p.dense

  return (lambda p, x: apply_fn(SimpleNamespace(**p), x)), vars(w)


class NNX(nnx.Module):
  def __init__(self, rngs):
    conv = functools.partial(nnx.Conv, strides=3, padding='VALID', rngs=rngs)
    self.conv = conv(IMAGE[-1], CHANNELS, (3, 3))
    self.norm = nnx.BatchNorm(
      CHANNELS, use_running_average=True, epsilon=EPSILON, rngs=rngs
    )
    linear = functools.partial(nnx.Linear, use_bias=False, rngs=rngs)
    self.block = linear(CHANNELS, CHANNELS)
    self.dense = linear(4 * CHANNELS, 4 * CHANNELS)

  def __call__(self, x):
    x = activation(self.norm(self.conv(x)))
    x = x + jnp.tanh(self.block(x))
    return self.dense(x.reshape(len(x), -1))


def with_nnx():
  w, model = weights(), NNX(nnx.Rngs(0))
  conv, norm = cast(Any, model.conv), cast(Any, model.norm)
  conv.kernel[...], conv.bias[...] = w.kernel, w.bias
  norm.scale[...], norm.bias[...] = w.scale, w.offset
  norm.mean[...], norm.var[...] = w.mean, w.var
  model.block.kernel[...], model.dense.kernel[...] = w.block, w.dense
  graph, params = nnx.split(model)
  return (lambda params, x: nnx.merge(graph, params)(x)), params


class Linen(linen.Module):
  @linen.compact
  def __call__(self, x):
    x = linen.Conv(CHANNELS, (3, 3), 3, 'VALID', name='conv')(x)
    x = linen.BatchNorm(use_running_average=True, epsilon=EPSILON, name='norm')(
      x
    )
    x = activation(x)
    dense = functools.partial(linen.Dense, use_bias=False)
    x = x + jnp.tanh(dense(CHANNELS, name='block')(x))
    return dense(4 * CHANNELS, name='dense')(x.reshape(len(x), -1))


def with_linen():
  w = weights()
  params = {
    'conv': {'kernel': w.kernel, 'bias': w.bias},
    'norm': {'scale': w.scale, 'bias': w.offset},
    'block': {'kernel': w.block},
    'dense': {'kernel': w.dense},
  }
  statistics = {'norm': {'mean': w.mean, 'var': w.var}}
  return Linen().apply, {'params': params, 'batch_stats': statistics}


def haiku_network(x):
  x = hk.Conv2D(CHANNELS, 3, 3, padding='VALID', name='conv')(x)
  norm = hk.BatchNorm(True, True, 0.9, EPSILON, name='norm')
  x = activation(norm(x, is_training=False))
  linear = functools.partial(hk.Linear, with_bias=False)
  x = x + jnp.tanh(linear(CHANNELS, name='block')(x))
  return linear(4 * CHANNELS, name='dense')(x.reshape(len(x), -1))


def with_haiku():
  network = hk.without_apply_rng(hk.transform_with_state(haiku_network))
  w = weights()
  row = lambda a: a.reshape(1, 1, 1, -1)
  state = {
    'norm/~/mean_ema': {'average': row(w.mean)},
    'norm/~/var_ema': {'average': row(w.var)},
  }
  params = {
    'conv': {'w': w.kernel, 'b': w.bias},
    'norm': {'scale': row(w.scale), 'offset': row(w.offset)},
    'block': {'w': w.block},
    'dense': {'w': w.dense},
  }
  return (lambda p, x: network.apply(*p, x)[0]), (params, state)


class Equinox(eqx.Module):
  conv: eqx.nn.Conv2d
  norm: eqx.nn.BatchNorm
  block: eqx.nn.Linear
  dense: eqx.nn.Linear

  def __init__(self):
    key = jax.random.key(0)
    self.conv = eqx.nn.Conv2d(IMAGE[-1], CHANNELS, 3, 3, key=key)
    self.norm = eqx.nn.BatchNorm(
      CHANNELS, 'batch', eps=EPSILON, mode='ema', inference=True
    )
    linear = functools.partial(eqx.nn.Linear, use_bias=False, key=key)
    self.block = linear(CHANNELS, CHANNELS)
    self.dense = linear(4 * CHANNELS, 4 * CHANNELS)

  def __call__(self, x, state):
    x, _ = self.norm(self.conv(x.transpose(2, 0, 1)), state)
    x = activation(x.transpose(1, 2, 0))
    x = x + jnp.tanh(jax.vmap(jax.vmap(self.block))(x))
    return self.dense(x.reshape(-1))


def with_equinox():
  w = weights()
  model, state = eqx.nn.make_with_state(Equinox)()
  norm = cast(Any, model.norm)
  state = state.set(norm.ema_state_index, (w.mean, w.var))
  state = state.set(norm.ema_first_time_index, jnp.array(False))
  where = lambda m: (
    m.conv.weight,
    m.conv.bias,
    m.norm.weight,
    m.norm.bias,
    m.block.weight,
    m.dense.weight,
  )
  kernel, bias = w.kernel.transpose(3, 2, 0, 1), w.bias.reshape(-1, 1, 1)
  new = (kernel, bias, w.scale, w.offset, w.block.T, w.dense.T)
  params, static = eqx.partition(eqx.tree_at(where, model, new), eqx.is_array)

  def apply_fn(params, x):
    model = eqx.combine(params[0], static)
    return jax.vmap(lambda one: model(one, params[1]), axis_name='batch')(x)

  return apply_fn, (params, state)


NETWORKS = {
  'plain': plain,
  'nnx': with_nnx,
  'linen': with_linen,
  'haiku': with_haiku,
  'equinox': with_equinox,
}


def attention_plain():
  def apply_fn(p, x):
    y = jax.nn.standardize(x, epsilon=EPSILON) * p['scale'].reshape(1, 1, -1)
    y = y + p['offset'].reshape(1, 1, -1)
    split = lambda name: (y @ p[name]).reshape(*y.shape[:2], HEADS, -1)
    mixed = jax.nn.dot_product_attention(*map(split, ('query', 'key', 'value')))
    return x + mixed.reshape(x.shape) @ p['output']

  return apply_fn, vars(attention_weights())


def heads(w, name):
  matrix = getattr(w, name)
  if name == 'output':
    return matrix.reshape(HEADS, -1, WIDTH)
  return matrix.reshape(WIDTH, HEADS, -1)


class AttentionNNX(nnx.Module):
  def __init__(self, rngs):
    self.norm = nnx.LayerNorm(WIDTH, epsilon=EPSILON, rngs=rngs)
    self.attention = nnx.MultiHeadAttention(
      HEADS, WIDTH, use_bias=False, decode=False, rngs=rngs
    )

  def __call__(self, x):
    return x + self.attention(self.norm(x))


def attention_nnx():
  w, model = attention_weights(), AttentionNNX(nnx.Rngs(0))
  norm = cast(Any, model.norm)
  norm.scale[...], norm.bias[...] = w.scale, w.offset
  for name in ('query', 'key', 'value'):
    getattr(model.attention, name).kernel[...] = heads(w, name)
  model.attention.out.kernel[...] = heads(w, 'output')
  graph, params = nnx.split(model)
  return (lambda params, x: nnx.merge(graph, params)(x)), params


class AttentionLinen(linen.Module):
  @linen.compact
  def __call__(self, x):
    y = linen.LayerNorm(EPSILON, name='norm')(x)
    attend = linen.MultiHeadDotProductAttention(
      HEADS, use_bias=False, name='attention'
    )
    return x + attend(y)


def attention_linen():
  w = attention_weights()
  kernels = {
    name: {'kernel': heads(w, name)} for name in ('query', 'key', 'value')
  }
  kernels['out'] = {'kernel': heads(w, 'output')}
  norm = {'scale': w.scale, 'bias': w.offset}
  params = {'norm': norm, 'attention': kernels}
  return AttentionLinen().apply, {'params': params}


def attention_haiku():
  def network(x):
    y = hk.LayerNorm(-1, True, True, EPSILON, name='norm')(x)
    attend = hk.MultiHeadAttention(
      HEADS, WIDTH // HEADS, w_init=jnp.zeros, with_bias=False, name='attention'
    )
    return x + attend(y, y, y)

  w = attention_weights()
  params = {'norm': {'scale': w.scale, 'offset': w.offset}}
  for name in ('query', 'key', 'value'):
    params[f'attention/{name}'] = {'w': getattr(w, name)}
  params['attention/linear'] = {'w': w.output}
  return hk.without_apply_rng(hk.transform(network)).apply, params


class AttentionEquinox(eqx.Module):
  norm: eqx.nn.LayerNorm
  attention: eqx.nn.MultiheadAttention

  def __init__(self):
    self.norm = eqx.nn.LayerNorm(WIDTH, EPSILON)
    self.attention = eqx.nn.MultiheadAttention(
      HEADS, WIDTH, key=jax.random.key(0)
    )

  def __call__(self, x):
    y = jax.vmap(self.norm)(x)
    return x + self.attention(y, y, y)


def attention_equinox():
  w = attention_weights()
  where = lambda m: (
    m.norm.weight,
    m.norm.bias,
    m.attention.query_proj.weight,
    m.attention.key_proj.weight,
    m.attention.value_proj.weight,
    m.attention.output_proj.weight,
  )
  new = (w.scale, w.offset, w.query.T, w.key.T, w.value.T, w.output.T)
  model = eqx.tree_at(where, AttentionEquinox(), new)
  params, static = eqx.partition(model, eqx.is_array)
  return lambda params, x: jax.vmap(eqx.combine(params, static))(x), params


ATTENTION = {
  'plain': attention_plain,
  'nnx': attention_nnx,
  'linen': attention_linen,
  'haiku': attention_haiku,
  'equinox': attention_equinox,
}


def pictures():
  return jax.random.uniform(jax.random.key(9), (2, *IMAGE))


def tokens():
  return jax.random.normal(jax.random.key(9), (2, TOKENS, WIDTH))


@functools.cache
def inverted(kind, framework):
  """What the network makes of its input, and what comes back of that."""
  networks = {'conv': NETWORKS, 'attention': ATTENTION}[kind]
  x = {'conv': pictures, 'attention': tokens}[kind]()
  with jax.numpy_rank_promotion('allow'):  # layers of Haiku promote
    apply_fn, params = networks[framework]()
    z = jax.jit(apply_fn)(params, x)
    return x, z, inversion.reconstruct(apply_fn, params, x)


KINDS = {
  'conv': ['affine', 'elementwise', 'residual', 'affine'],
  'attention': ['residual'],
}


@pytest.mark.parametrize('framework', NETWORKS)
@pytest.mark.parametrize('kind', KINDS)
def test_equal_networks_come_back_equal(kind, framework):
  x, z, result = inverted(kind, framework)
  _, plain_z, plain_result = inverted(kind, 'plain')
  np.testing.assert_allclose(z, plain_z, atol=1e-5)
  np.testing.assert_allclose(result.x, plain_result.x, atol=1e-5)
  np.testing.assert_allclose(result.x, x, atol=2e-5)
  assert [s.kind for s in result.segments] == KINDS[kind]
  assert {s.exactness for s in result.segments} == {'exact'}
  assert all(
    s.source.startswith('test_inversion_frameworks.py') for s in result.segments
  )
