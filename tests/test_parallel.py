"""On eight devices as on one: replicated, sharded, pmap and shard_map.

The results of one device are those of numpy, see tests/test_conformance.py;
here the correction and the measures are compared with numpy once more.
"""

import functools
import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import bort_jax
from bort_jax import MatrixAxes, spectrum

P = PartitionSpec
DEVICES = 8
GAMMA = 0.5
SHAPES: Any = {
  'bias': (16,),
  'conv': {'kernel': (2, 3, 8, 16)},
  'dense': {'kernel': (16, 8)},
}
OPTIMIZERS = {
  'bort': optax.chain(bort_jax.bort(GAMMA), optax.sgd(0.1)),
  'bort_sgd': bort_jax.bort_sgd(0.1, GAMMA, momentum=0.9, weight_decay=0.1),
  'bort_adamw': bort_jax.bort_adamw(0.1, GAMMA, weight_decay=0.1),
  'bort_lamb': bort_jax.bort_lamb(0.1, GAMMA, weight_decay=0.1),
  'bort_muon': bort_jax.bort_muon(0.1, GAMMA, weight_decay=0.1),
  'keep_orthogonal': optax.chain(
    optax.adam(0.1), bort_jax.keep_orthogonal(steps=3)
  ),
}
MESHES = {'x': (8,), 'xy': (4, 2)}
LAYOUTS: dict[str, Any] = {  # of bias, conv and dense kernels
  'replicated': ('x', P(), P(), P()),
  'inputs': ('x', P(), P(None, None, 'x'), P('x')),
  'outputs': ('x', P('x'), P(None, None, None, 'x'), P(None, 'x')),
  'both': ('xy', P('y'), P(None, None, 'x', 'y'), P('x', 'y')),
}
AXIS_TYPES = {'auto': AxisType.Auto, 'explicit': AxisType.Explicit}

optimizers = pytest.mark.parametrize('name', OPTIMIZERS)
axis_types = pytest.mark.parametrize(
  'axis_type', AXIS_TYPES.values(), ids=AXIS_TYPES
)
layouts = pytest.mark.parametrize('layout', LAYOUTS)


def random_tree(seed, dtype='float32', batch=()):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda shape: jnp.asarray(rng.normal(size=batch + shape) / 4, dtype),
    SHAPES,
    is_leaf=lambda x: isinstance(x, tuple),
  )


def make_mesh(names, axis_type):
  types = (axis_type,) * len(names)
  return jax.make_mesh(MESHES[names], tuple(names), axis_types=types)


def shardings(layout, axis_type):
  """The mesh and the shardings of every parameter."""
  names, bias, conv, dense = LAYOUTS[layout]
  mesh = make_mesh(names, axis_type)
  specs = {'bias': bias, 'conv': {'kernel': conv}, 'dense': {'kernel': dense}}
  return mesh, jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


# Muon's iteration makes rounding, which is another in every layout, larger.
def assert_close(actual, expected, rtol=1e-6, atol=3e-6):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
    actual,
    expected,
  )


def assert_laid_out(tree, expected):
  jax.tree.map(
    lambda x, sharding: assert_equivalent(x.sharding, sharding, x.ndim),
    tree,
    expected,
  )


def assert_equivalent(actual, expected, ndim):
  assert actual.is_equivalent_to(expected, ndim), (actual, expected)


def types(tree):
  return jax.tree.map(jax.typeof, tree)


def dtypes(tree):
  return jax.tree.map(lambda x: x.dtype, tree)


def step(tx, params, state, grads):
  updates, state = tx.update(grads, state, params)
  return optax.apply_updates(params, updates), state


def train(tx, params, gradients) -> Any:
  """The parameters and the state after a step for each gradient."""
  state = jax.jit(tx.init)(params)
  apply = jax.jit(lambda *args: step(tx, *args))
  for grads in gradients:
    params, state = apply(params, state, grads)
  return params, state


@functools.cache
def on_one_device(name, num_steps=1):
  """What the parameters are after gradients that differ from step to step."""
  gradients = [random_tree(1 + i) for i in range(num_steps)]
  return train(OPTIMIZERS[name], random_tree(0), gradients)


def batch_of(grads):
  """A batch of gradients with a given mean, one for each device."""
  rng = np.random.default_rng(0)

  def spread(mean):
    noise = rng.normal(size=(DEVICES, *mean.shape)) / 8
    noise -= noise.mean(0, keepdims=True)
    return jnp.asarray(np.asarray(mean)[None] + noise, 'float32')

  return jax.tree.map(spread, grads)


def as_matrix(kernel):
  kernel = np.asarray(kernel, 'float64')
  return kernel.reshape(-1, kernel.shape[-1]).T


def expected_update(w, grads):
  """Of BORT before SGD."""
  grads = np.asarray(grads, 'float64')
  if w.ndim > 1:
    m = as_matrix(w)
    grads = grads + GAMMA * (m @ m.T @ m - m).T.reshape(w.shape)
  return -0.1 * grads


# Sharded parameters.


# Each optimizer on both axes of a mesh; how a kernel is split is common to all,
# so that two of them are enough for the other layouts.
SHARDED = [
  *((name, 'both') for name in OPTIMIZERS),
  *itertools.product(
    ('bort_adamw', 'keep_orthogonal'), ('replicated', 'inputs', 'outputs')
  ),
]


@pytest.mark.parametrize(('name', 'layout'), SHARDED)
@axis_types
def test_sharded_equals_single_device(name, layout, axis_type):
  tx = OPTIMIZERS[name]
  params, gradients = random_tree(0), [random_tree(1), random_tree(2)]
  expected, expected_state = on_one_device(name, num_steps=2)
  mesh, laid_out = shardings(layout, axis_type)
  put = lambda tree: jax.device_put(tree, laid_out)
  with jax.set_mesh(mesh):
    got, state = train(tx, put(params), [put(grads) for grads in gradients])
  assert_close(got, expected)
  assert_close(state, expected_state)
  assert_laid_out(got, laid_out)
  assert dtypes((got, state)) == dtypes((params, expected_state))


@layouts
@axis_types
def test_sharded_bort_equals_numpy(layout, axis_type):
  params, grads = random_tree(0), random_tree(1)
  mesh, laid_out = shardings(layout, axis_type)
  tx = OPTIMIZERS['bort']
  with jax.set_mesh(mesh):
    put = jax.device_put(params, laid_out)
    updates, _ = jax.jit(tx.update)(
      jax.device_put(grads, laid_out), tx.init(put), put
    )
  assert_close(updates, jax.tree.map(expected_update, params, grads))
  assert_laid_out(updates, laid_out)


@optimizers
def test_without_a_mesh_in_context(name):
  """The usual data parallelism: arrays carry their sharding themselves."""
  tx = OPTIMIZERS[name]
  _, laid_out = shardings('inputs', AxisType.Auto)
  params = jax.device_put(random_tree(0), laid_out)
  got, _ = train(tx, params, [jax.device_put(random_tree(1), laid_out)])
  assert_close(got, on_one_device(name)[0])
  assert_laid_out(got, laid_out)


@optimizers
@pytest.mark.parametrize('spec', [P(None, 'x'), P(None, None, 'x')])
def test_vmap_of_explicitly_sharded_parameters(name, spec):
  """Of an axis that is not sharded: JAX wants all the same for one that is."""
  tx = OPTIMIZERS[name]
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(3, 16, 8)).astype(np.float32)
  params = {'kernel': jnp.asarray(kernel)}

  def two_updates(params):
    state = tx.init(params)
    _, state = tx.update(params, state, params)
    return tx.update(params, state, params)[0]

  expected = jax.vmap(two_updates)(params)
  mesh = make_mesh('x', AxisType.Explicit)
  with jax.set_mesh(mesh):
    sharded = jax.device_put(params, NamedSharding(mesh, spec))
    got = jax.jit(jax.vmap(two_updates))(sharded)
  assert_close(got, expected, rtol=1e-4, atol=1e-5)
  assert got['kernel'].sharding.spec == P(*spec, *(None,) * (3 - len(spec)))


@optimizers
def test_jit_with_shardings(name):
  """jit is told the shardings in and out, with the batch over the devices."""
  tx = OPTIMIZERS[name]
  params, batch = random_tree(0), batch_of(random_tree(1))
  mesh, laid_out = shardings('inputs', AxisType.Auto)
  data = NamedSharding(mesh, P('x'))

  def apply(params, batch):
    grads = jax.tree.map(lambda g: g.mean(0), batch)
    return step(tx, params, tx.init(params), grads)[0]

  compiled = jax.jit(
    apply, in_shardings=(laid_out, data), out_shardings=laid_out
  )
  got = compiled(params, jax.device_put(batch, data))
  assert_close(got, on_one_device(name)[0])
  assert_laid_out(got, laid_out)


@optimizers
@pytest.mark.parametrize(
  ('axis_type', 'dtype'),
  [(AxisType.Explicit, 'float16'), (AxisType.Auto, 'bfloat16')],
  ids=['explicit-float16', 'auto-bfloat16'],
)
def test_types_are_kept_eagerly_and_jitted(name, axis_type, dtype):
  """As optax/_src/sharding_test.py: a type has a dtype and a sharding."""
  tx = OPTIMIZERS[name]
  mesh = make_mesh('x', axis_type)
  sharding = NamedSharding(mesh, P(None, 'x'))
  with jax.set_mesh(mesh):
    kernel = jax.device_put(jnp.ones((2, 8, 4), dtype), sharding)
    params = {'kernel': kernel}
    state = tx.init(params)
    assert types(jax.jit(tx.init)(params)) == types(state)
    eager = tx.update(params, state, params)
    jitted = jax.jit(tx.update)(params, state, params)
  assert types(eager) == types(jitted) == types((params, state))
  for updates, _ in (eager, jitted):
    assert_laid_out(updates, {'kernel': sharding})


@optimizers
@axis_types
def test_init_on_abstract_sharded_parameters(name, axis_type):
  mesh, laid_out = shardings('inputs', axis_type)
  tx = OPTIMIZERS[name]
  with jax.set_mesh(mesh):
    abstract = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      random_tree(0),
      laid_out,
    )
    state = tx.init(abstract)
    evaluated = jax.eval_shape(tx.init, abstract)
  expected = tx.init(random_tree(0))
  assert jax.tree.structure(state) == jax.tree.structure(expected)
  for x, y, z in zip(
    *map(jax.tree.leaves, (state, evaluated, expected)), strict=True
  ):
    assert (x.shape, x.dtype) == (y.shape, y.dtype) == (z.shape, z.dtype)


GROUPED = [
  *itertools.product(OPTIMIZERS, ['explicit']),
  *itertools.product(('bort', 'keep_orthogonal'), ['auto']),
]


@pytest.mark.parametrize(('name', 'axis_type'), GROUPED)
@pytest.mark.parametrize('spec', [P(None, None, 'x'), P(None, None, None, 'x')])
def test_sharded_groups(name, axis_type, spec):
  """A grouped kernel is split, then merged, along a sharded axis too."""
  axes = MatrixAxes((0, 1, 2), 3, groups=2)
  tx = {
    'bort': lambda: bort_jax.bort(GAMMA, axes=axes),
    'keep_orthogonal': lambda: bort_jax.keep_orthogonal(axes=axes),
  }.get(name, lambda: getattr(bort_jax, name)(0.1, GAMMA, axes=axes))()
  params, grads = random_tree(0)['conv'], random_tree(1)['conv']
  expected, _ = train(tx, params, [grads])
  mesh = make_mesh('x', AXIS_TYPES[axis_type])
  sharding = NamedSharding(mesh, spec)
  with jax.set_mesh(mesh):
    put = lambda tree: jax.device_put(tree, sharding)
    got, _ = train(tx, put(params), [put(grads)])
  assert_close(got, expected)
  assert_laid_out(got, {'kernel': sharding})


# One program per device.


@optimizers
def test_pmap_of_replicated_parameters(name):
  tx = OPTIMIZERS[name]
  params, batch = random_tree(0), batch_of(random_tree(1))

  def apply(params, grads):
    grads = jax.lax.pmean(grads, 'data')
    return step(tx, params, tx.init(params), grads)[0]

  got = jax.pmap(apply, axis_name='data', in_axes=(None, 0), out_axes=None)(
    params, batch
  )
  assert_close(got, on_one_device(name)[0])


@optimizers
def test_pmap_of_one_network_per_device(name):
  tx = OPTIMIZERS[name]
  params = random_tree(0, batch=(DEVICES,))
  grads = random_tree(1, batch=(DEVICES,))
  apply = lambda params, grads: step(tx, params, tx.init(params), grads)[0]
  got = jax.pmap(apply)(params, grads)
  single = jax.jit(apply)
  for device in range(DEVICES):
    pick = lambda tree, i=device: jax.tree.map(
      lambda x: jnp.asarray(np.asarray(x)[i]), tree
    )
    assert_close(pick(got), single(pick(params), pick(grads)))


@optimizers
@pytest.mark.parametrize(
  ('axis_type', 'check_vma'),
  [(AxisType.Auto, False), (AxisType.Explicit, True)],
  ids=AXIS_TYPES,
)
def test_shard_map_of_replicated_parameters(name, axis_type, check_vma):
  tx = OPTIMIZERS[name]
  params, batch = random_tree(0), batch_of(random_tree(1))
  mesh = make_mesh('x', axis_type)

  def apply(params, batch):
    grads = jax.tree.map(lambda g: jax.lax.pmean(g[0], 'x'), batch)
    return step(tx, params, tx.init(params), grads)[0]

  mapped = jax.shard_map(
    apply,
    mesh=mesh,
    in_specs=(P(), P('x')),
    out_specs=P(),
    check_vma=check_vma,
  )
  with jax.set_mesh(mesh):
    got = jax.jit(mapped)(
      jax.device_put(params, NamedSharding(mesh, P())),
      jax.device_put(batch, NamedSharding(mesh, P('x'))),
    )
  assert_close(got, on_one_device(name)[0])
  assert_laid_out(got, jax.tree.map(lambda _: NamedSharding(mesh, P()), got))


@optimizers
def test_shard_map_over_some_axes_of_an_auto_mesh(name):
  """The other axes are the compiler's, and may shard the parameters."""
  tx = OPTIMIZERS[name]
  params, batch = random_tree(0), batch_of(random_tree(1))
  mesh, laid_out = shardings('both', AxisType.Auto)
  over_y = jax.tree.map(
    lambda sharding: sharding.update(spec=without_x(sharding.spec)), laid_out
  )

  def apply(params, batch):
    local = jax.tree.map(lambda g: g.mean(0), batch)
    return step(tx, params, tx.init(params), jax.lax.pmean(local, 'x'))[0]

  mapped = jax.shard_map(
    apply,
    mesh=mesh,
    in_specs=(P(), P('x')),
    out_specs=P(),
    axis_names={'x'},
  )
  with jax.set_mesh(mesh):
    got = jax.jit(mapped)(
      jax.device_put(params, over_y),
      jax.device_put(batch, NamedSharding(mesh, P('x'))),
    )
  assert_close(got, on_one_device(name)[0])


def without_x(spec):
  return P(*(None if name == 'x' else name for name in spec))


# Measures.


@layouts
@axis_types
def test_measures_equal_numpy(layout, axis_type):
  params = random_tree(0)
  mesh, laid_out = shardings(layout, axis_type)
  with jax.set_mesh(mesh):
    put = jax.device_put(params, laid_out)
    errors = jax.jit(spectrum.orthogonality_error)(put)
    values = jax.jit(spectrum.singular_values)(put)
    polished = jax.jit(spectrum.polish)(put)
  assert_laid_out(polished, laid_out)
  assert types(params)['bias'].dtype == polished['bias'].dtype
  for layer in ('conv', 'dense'):
    matrix = as_matrix(params[layer]['kernel'])
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    small = min((matrix, matrix.T), key=len)
    error = np.max(np.abs(small @ small.T - np.eye(len(small))))
    np.testing.assert_allclose(values[layer]['kernel'], s, rtol=1e-5)
    np.testing.assert_allclose(errors[layer]['kernel'], error, rtol=1e-5)
    got = as_matrix(polished[layer]['kernel'])
    np.testing.assert_allclose(got, u @ vh, atol=1e-5)
  np.testing.assert_array_equal(polished['bias'], params['bias'])


@pytest.mark.parametrize(
  'measure',
  [spectrum.orthogonality_error, spectrum.singular_values, spectrum.polish],
)
@pytest.mark.parametrize('transform', ['eager', 'shard_map'])
def test_measures_elsewhere(measure, transform):
  params = random_tree(0)
  expected = jax.jit(measure)(params)
  mesh, laid_out = shardings('replicated', AxisType.Explicit)
  run = measure
  if transform == 'shard_map':
    run = jax.shard_map(measure, mesh=mesh, in_specs=P(), out_specs=P())
  with jax.set_mesh(mesh):
    got = run(jax.device_put(params, laid_out))
  assert_close(got, expected, atol=2e-6)


# What is communicated.


def collectives(tx, spec, shape, axis_type):
  """The result shapes of every collective in the compiled update."""
  mesh = make_mesh('x', axis_type)
  with jax.set_mesh(mesh):
    params = {
      'kernel': jax.device_put(jnp.ones(shape), NamedSharding(mesh, spec))
    }
    update = lambda grads, params: tx.update(grads, tx.init(params), params)[0]
    compiled = jax.jit(update).lower(params, params).compile()
    text = compiled.as_text() or ''
  assert 'ENTRY' in text
  kinds = 'all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute'
  found = re.findall(rf'= \(?f32\[([\d,]*)\]\S* ({kinds})(?:-start)?\(', text)
  # Every mention of a collective is one that was understood.
  assert len(found) == len(re.findall(rf' (?:{kinds})(?:-start)?\(', text))
  return [(kind, tuple(map(int, size.split(',')))) for size, kind in found]


# The larger side of the matrix is sharded; the Gram matrix has the other.
LARGER_SIDE_SHARDED = [
  (P('x'), (64, 16), 16),
  (P(None, 'x'), (16, 64), 16),
  (P(None, None, 'x'), (3, 3, 16, 24), 24),
]
larger_side_sharded = pytest.mark.parametrize(
  ('spec', 'shape', 'side'), LARGER_SIDE_SHARDED
)


@larger_side_sharded
@axis_types
def test_bort_sums_one_gram_matrix_and_gathers_nothing(
  spec, shape, side, axis_type
):
  off, on = optax.sgd(1.0), optax.chain(bort_jax.bort(GAMMA), optax.sgd(1.0))
  assert collectives(off, spec, shape, axis_type) == []
  assert collectives(on, spec, shape, axis_type) == [
    ('all-reduce', (side, side))
  ]


@larger_side_sharded
@axis_types
@pytest.mark.parametrize(
  'tx',
  [bort_jax.bort_adamw(0.1, GAMMA), bort_jax.keep_orthogonal(steps=3)],
  ids=['bort_adamw', 'keep_orthogonal'],
)
def test_the_others_sum_gram_matrices_only(spec, shape, side, axis_type, tx):
  found = collectives(tx, spec, shape, axis_type)
  assert set(found) == {('all-reduce', (side, side))}


def test_replicated_parameters_communicate_nothing():
  tx = OPTIMIZERS['bort']
  assert collectives(tx, P(), (64, 16), AxisType.Auto) == []
