"""One transformation, unchanged, on Flax Linen, Flax NNX, Haiku and Equinox.

Every network has a convolution, a dense layer, attention, an embedding and
normalizations. The tables say which of its parameters are matrices, and which
of their axes are outputs; everything else must stay exactly as it was.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import freeze, unfreeze
from flax.traverse_util import flatten_dict

import bort_jax

RATE = 0.25
GAMMA = 0.5
IMAGE = 4, 4, 2
WIDTH = 6  # two heads of three
HEADS = 2
VOCABULARY = 7
TOKENS = jnp.array([0, 3, 6, 2])
BORT = optax.chain(bort_jax.bort(GAMMA), optax.sgd(RATE))
OTHERS = {
  'bort_sgd': bort_jax.bort_sgd(RATE, GAMMA, momentum=0.9),
  'bort_adamw': bort_jax.bort_adamw(RATE, GAMMA),
  'bort_lamb': bort_jax.bort_lamb(RATE, GAMMA),
  'bort_muon': bort_jax.bort_muon(RATE, GAMMA),
  'keep_orthogonal': optax.chain(
    optax.adam(RATE), bort_jax.keep_orthogonal(steps=2)
  ),
}


def image():
  return jnp.asarray(np.random.default_rng(0).normal(size=IMAGE), 'float32')


def randomized(tree, seed=0):
  """Random entries for every leaf: a bias of zero would hide a mistake."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), tree
  )


class Linen(nn.Module):
  """Flax Linen; ``box`` wraps the initializers, as for sharding."""

  box: Any = staticmethod(lambda init, names: init)

  @nn.compact
  def __call__(self, image, tokens):
    init = nn.initializers.lecun_normal()
    x = nn.Conv(
      5, (3, 3), kernel_init=self.box(init, (None,) * 3 + ('model',))
    )(image[None])
    x = nn.BatchNorm(use_running_average=True)(x)
    x = nn.relu(x).mean((0, 1, 2))
    x = nn.Dense(WIDTH, kernel_init=self.box(init, (None, 'model')))(x)
    y = nn.Embed(VOCABULARY, WIDTH)(tokens) + x
    y = nn.LayerNorm()(y)
    y = nn.MultiHeadDotProductAttention(HEADS)(y)
    return jnp.mean(nn.GroupNorm(2)(y) ** 3)


LINEN = {
  'Conv_0/kernel': (3,),
  'Dense_0/kernel': (1,),
  'MultiHeadDotProductAttention_0/query/kernel': (1, 2),
  'MultiHeadDotProductAttention_0/key/kernel': (1, 2),
  'MultiHeadDotProductAttention_0/value/kernel': (1, 2),
  'MultiHeadDotProductAttention_0/out/kernel': (2,),
}
LINEN_OTHERS = {
  'Embed_0/embedding',
  'MultiHeadDotProductAttention_0/query/bias',  # of rank 2
  'MultiHeadDotProductAttention_0/key/bias',
  'MultiHeadDotProductAttention_0/value/bias',
  'MultiHeadDotProductAttention_0/out/bias',
  *(
    f'{module}_0/{name}'
    for module in ('BatchNorm', 'LayerNorm', 'GroupNorm')
    for name in ('scale', 'bias')
  ),
  'Conv_0/bias',
  'Dense_0/bias',
}


class NNX(nnx.Module):
  def __init__(self, rngs, **box):
    self.conv = nnx.Conv(IMAGE[-1], 5, (3, 3), rngs=rngs)
    self.batch_norm = nnx.BatchNorm(5, use_running_average=True, rngs=rngs)
    self.dense = nnx.Linear(5, WIDTH, rngs=rngs, **box)
    self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
    self.layer_norm = nnx.LayerNorm(WIDTH, rngs=rngs)
    self.attention = nnx.MultiHeadAttention(
      HEADS, WIDTH, decode=False, rngs=rngs
    )

  def __call__(self, image, tokens):
    x = self.batch_norm(self.conv(image[None]))
    x = nnx.relu(x).mean((0, 1, 2))
    y = self.layer_norm(self.embed(tokens) + self.dense(x))
    return jnp.mean(self.attention(y) ** 3)


NNX_MATRICES = {
  'conv/kernel': (3,),
  'dense/kernel': (1,),
  'attention/query/kernel': (1, 2),
  'attention/key/kernel': (1, 2),
  'attention/value/kernel': (1, 2),
  'attention/out/kernel': (2,),
}
NNX_OTHERS = {
  'embed/embedding',
  *(f'attention/{name}/bias' for name in ('query', 'key', 'value', 'out')),
  *(
    f'{module}/{name}'
    for module in ('batch_norm', 'layer_norm')
    for name in ('scale', 'bias')
  ),
  'conv/bias',
  'dense/bias',
}


def haiku_network(image, tokens):
  x = hk.Conv2D(5, 3)(image[None])
  x = hk.BatchNorm(True, True, 0.9)(x, is_training=True)
  x = jax.nn.relu(x).mean((0, 1, 2))
  y = hk.Embed(VOCABULARY, WIDTH)(tokens) + hk.Linear(WIDTH)(x)
  y = hk.LayerNorm(-1, True, True)(y)
  attention = hk.MultiHeadAttention(
    HEADS, WIDTH // HEADS, w_init=hk.initializers.RandomNormal()
  )
  return jnp.mean(attention(y, y, y) ** 3)


HAIKU = {
  'conv2_d/w': (3,),
  'linear/w': (1,),
  'multi_head_attention/query/w': (1,),
  'multi_head_attention/key/w': (1,),
  'multi_head_attention/value/w': (1,),
  'multi_head_attention/linear/w': (1,),
}
HAIKU_OTHERS = {
  'embed/embeddings',
  *(
    f'{module}/{name}'
    for module in ('batch_norm', 'layer_norm')
    for name in ('scale', 'offset')
  ),
  *(name[:-1] + 'b' for name in HAIKU),
}


class Equinox(eqx.Module):
  conv: eqx.nn.Conv2d
  group_norm: eqx.nn.GroupNorm
  dense: eqx.nn.Linear
  embedding: eqx.nn.Embedding
  layer_norm: eqx.nn.LayerNorm
  attention: eqx.nn.MultiheadAttention
  activation: Any

  def __init__(self, key):
    keys = jax.random.split(key, 4)
    self.conv = eqx.nn.Conv2d(IMAGE[-1], 5, 3, key=keys[0])
    self.group_norm = eqx.nn.GroupNorm(1, 5)
    self.dense = eqx.nn.Linear(5, WIDTH, key=keys[1])
    self.embedding = eqx.nn.Embedding(VOCABULARY, WIDTH, key=keys[2])
    # Its weight has rank 2.
    self.layer_norm = eqx.nn.LayerNorm((len(TOKENS), WIDTH))
    self.attention = eqx.nn.MultiheadAttention(
      HEADS, WIDTH, use_query_bias=True, key=keys[3]
    )
    self.activation = jax.nn.relu  # no array

  def __call__(self, image, tokens):
    x = self.group_norm(self.conv(image.transpose(2, 0, 1)))
    x = self.dense(self.activation(x.mean((1, 2))))
    y = self.layer_norm(jax.vmap(self.embedding)(tokens) + x)
    return jnp.mean(self.attention(y, y, y) ** 3)


EQUINOX = {
  '.conv.weight': (0,),
  '.dense.weight': (0,),
  '.attention.query_proj.weight': (0,),
  '.attention.key_proj.weight': (0,),
  '.attention.value_proj.weight': (0,),
  '.attention.output_proj.weight': (0,),
}
EQUINOX_OTHERS = {
  '.embedding.weight',
  *(
    f'.{module}_norm.{name}'
    for module in ('group', 'layer')
    for name in ('weight', 'bias')
  ),
  '.conv.bias',  # of rank 3
  '.dense.bias',
  '.attention.query_proj.bias',
}


class Loaded(NamedTuple):
  """A network's parameters and gradients, and how they are named."""

  params: Any
  grads: Any
  flat: Callable[[Any], Any]  # to a dict of arrays by name
  step: Callable[..., Any]  # (tx, params, grads) -> params


def plain_step(tx, params, grads) -> Any:
  updates, _ = jax.jit(tx.update)(grads, jax.jit(tx.init)(params), params)
  after = optax.apply_updates(params, updates)
  assert jax.tree.structure(after) == jax.tree.structure(params)
  return after


@functools.cache
def load(framework) -> Loaded:
  """The layers themselves promote ranks; the transformations may not."""
  with jax.numpy_rank_promotion('allow'):
    return LOADERS[framework]()


def load_linen(freeze=lambda x: x, **fields):
  network = Linen(**fields)
  inputs = image(), TOKENS
  variables: Any = network.init(jax.random.key(0), *inputs)
  params = freeze(randomized(variables['params']))
  loss = lambda params: network.apply({**variables, 'params': params}, *inputs)

  def flat(tree):
    return flatten_dict(unfreeze(nn.meta.unbox(tree)), sep='/')

  return Loaded(params, jax.jit(jax.grad(loss))(params), flat, plain_step)


def load_linen_boxed():
  loaded = load_linen(box=nn.with_partitioning)
  assert isinstance(loaded.params['Dense_0']['kernel'], nn.Partitioned)
  return loaded


def flat_nnx(state):
  return {
    '/'.join(map(str, path)): jnp.asarray(jax.tree.leaves(x)[0])
    for path, x in nnx.to_flat_state(state)
  }


def load_nnx(**box):
  """Split into a State, whose boxes both init and update see."""
  graph, params, rest = nnx.split(NNX(nnx.Rngs(0), **box), nnx.Param, ...)
  params = randomized(params)
  loss = lambda params: nnx.merge(graph, params, rest)(image(), TOKENS)
  return Loaded(params, jax.jit(jax.grad(loss))(params), flat_nnx, plain_step)


def load_nnx_boxed():
  init = nnx.with_partitioning(
    nnx.initializers.lecun_normal(), (None, 'model'), eager_sharding=False
  )
  return load_nnx(kernel_init=init)


def load_nnx_optimizer():
  """The stateful form: init sees boxes, update sees bare arrays."""
  network = NNX(nnx.Rngs(0))
  params = randomized(nnx.state(network, nnx.Param))
  nnx.update(network, params)
  loss = lambda network: network(image(), TOKENS)
  grads = nnx.jit(nnx.grad(loss))(network)

  def step(tx, params, grads):
    nnx.update(network, params)
    optimizer = nnx.Optimizer(network, tx, wrt=nnx.Param)
    nnx.jit(nnx.Optimizer.update)(optimizer, network, grads)
    return nnx.state(network, nnx.Param)

  return Loaded(params, grads, flat_nnx, step)


def load_haiku():
  network = hk.without_apply_rng(hk.transform_with_state(haiku_network))
  params, state = network.init(jax.random.key(0), image(), TOKENS)
  params = randomized(params)
  loss = lambda params: network.apply(params, state, image(), TOKENS)[0]

  def flat(tree):
    return {
      f'{module}/{name}': x
      for module, name, x in hk.data_structures.traverse(tree)
    }

  return Loaded(params, jax.jit(jax.grad(loss))(params), flat, plain_step)


def load_equinox():
  """The filtered module: None where there is no array, also in the grads."""
  arrays, static = eqx.partition(Equinox(jax.random.key(0)), eqx.is_array)
  params = randomized(arrays)
  network = eqx.combine(params, static)
  loss = lambda network: network(image(), TOKENS)
  grads = eqx.filter_jit(eqx.filter_grad(loss))(network)

  def step(tx, params, grads):
    state = eqx.filter_jit(tx.init)(params)
    updates, _ = eqx.filter_jit(tx.update)(grads, state, params)
    return eqx.apply_updates(eqx.combine(params, static), updates)

  def flat(tree):
    arrays = eqx.filter(tree, eqx.is_array)
    return {
      jax.tree_util.keystr(path): x
      for path, x in jax.tree_util.tree_leaves_with_path(arrays)
    }

  return Loaded(params, grads, flat, step)


LOADERS = {
  'Linen': load_linen,
  'Linen FrozenDict': lambda: load_linen(freeze),
  'Linen with_partitioning': load_linen_boxed,
  'nnx.Optimizer': load_nnx_optimizer,
  'nnx.split': load_nnx,
  'nnx with_partitioning': load_nnx_boxed,
  'Haiku': load_haiku,
  'Equinox': load_equinox,
}
TABLES = {
  'Linen': (LINEN, LINEN_OTHERS),
  'nnx': (NNX_MATRICES, NNX_OTHERS),
  'Haiku': (HAIKU, HAIKU_OTHERS),
  'Equinox': (EQUINOX, EQUINOX_OTHERS),
}
frameworks = pytest.mark.parametrize('framework', LOADERS)


def tables(framework) -> Any:
  """The matrices with their output axes, and the other parameters."""
  return TABLES[framework.split()[0].split('.')[0]]


def zeros(grads):
  return jax.tree.map(jnp.zeros_like, grads)


def run(framework, tx, make_grads):
  """One step: the parameters, the gradients and the new parameters, flat."""
  loaded = load(framework)
  grads = make_grads(loaded.grads)
  before, gradients = loaded.flat(loaded.params), loaded.flat(grads)
  after = loaded.flat(loaded.step(tx, loaded.params, grads))
  return before, gradients, after


def changed(before, after):
  return {name for name in before if np.any(before[name] != after[name])}


def as_matrix(w, out_axes):
  """The matrix whose rows are the named axes, and the way back."""
  in_axes = tuple(axis for axis in range(w.ndim) if axis not in out_axes)
  order = out_axes + in_axes
  moved = np.asarray(w, 'float64').transpose(order)
  rows = math.prod(w.shape[axis] for axis in out_axes)
  back = lambda m: m.reshape(moved.shape).transpose(np.argsort(order))
  return moved.reshape(rows, -1), back


def correction(w, out_axes):
  matrix, back = as_matrix(w, out_axes)
  return back(matrix @ matrix.T @ matrix - matrix)


@frameworks
def test_the_default_rule_touches_the_kernels_alone(framework):
  matrices, others = tables(framework)
  before, _, after = run(framework, BORT, zeros)
  assert set(before) == set(matrices) | others
  assert changed(before, after) == set(matrices)


@frameworks
def test_equals_numpy(framework):
  matrices, _ = tables(framework)
  before, grads, after = run(framework, BORT, make_grads=lambda grads: grads)
  assert all(np.any(grads[name]) for name in matrices)
  for name, w in before.items():
    direction = np.asarray(grads[name], 'float64')
    if name in matrices:
      direction = direction + GAMMA * correction(w, matrices[name])
    expected = np.asarray(w, 'float64') - RATE * direction
    np.testing.assert_allclose(
      after[name], expected, rtol=1e-5, atol=1e-4, err_msg=name
    )


@pytest.mark.parametrize(
  'framework',  # whose trees have boxes, Nones or a state of their own
  [
    'Linen with_partitioning',
    'nnx with_partitioning',
    'nnx.Optimizer',
    'Equinox',
  ],
)
@pytest.mark.parametrize('name', OTHERS)
def test_every_optimizer_touches_the_same_parameters(framework, name):
  before, _, after = run(framework, OTHERS[name], zeros)
  assert changed(before, after) == set(tables(framework)[0])


@frameworks
def test_muon_orthogonalizes_what_the_rule_selects(framework):
  """The other parameters take Adam's step, whose size does not vary."""
  matrices, _ = tables(framework)
  tx = bort_jax.bort_muon(RATE, gamma=0.0)
  before, grads, after = run(framework, tx, lambda x: randomized(x, seed=1))
  for name, w in before.items():
    update = np.asarray(w - after[name], 'float64') / RATE
    gradient = np.asarray(grads[name], 'float64')
    if name in matrices:
      expected = muon_direction(gradient, matrices[name])
    else:
      # With Nesterov's momentum, (b1 / (1 + b1) + 1) times the sign.
      expected = (0.9 / 1.9 + 1) * gradient / (np.abs(gradient) + 1e-8)
    np.testing.assert_allclose(update, expected, atol=2e-3, err_msg=name)


def muon_direction(gradient, out_axes):
  matrix, back = as_matrix(gradient, out_axes)
  x = matrix / np.linalg.norm(matrix)
  for _ in range(5):
    gram = x @ x.T
    x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
  return back(np.sqrt(max(1.0, x.shape[0] / x.shape[1])) * x)
