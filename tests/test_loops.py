"""Loops compute what those of JAX do, with convolutions in fast order."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import source_info_util

from bort_jax import loops

LAYOUTS = [
  ('NHWC', 'HWIO', 'NHWC'),
  ('NCHW', 'OIHW', 'NCHW'),
  ('NHWC', 'OIHW', 'NCHW'),
  ('HWNC', 'IOHW', 'NHWC'),
]


def convolution(layout, **options):
  return lambda k, x: lax.conv_general_dilated(
    x, k, padding='SAME', dimension_numbers=layout, **options
  )


def operands(layout, groups=1):
  sizes = {'N': 2, 'H': 5, 'W': 6, 'C': 4, 'I': 4 // groups, 'O': 8}
  side = lambda spec, **other: tuple({**sizes, **other}[axis] for axis in spec)
  random = np.random.default_rng(0).normal
  kernel = random(size=side(layout[1], H=3, W=2))
  return jnp.asarray(kernel), jnp.asarray(random(size=side(layout[0])))


def gradients(function, k, x):
  return jax.grad(lambda k, x: jnp.sum(jnp.sin(function(k, x))), (0, 1))(k, x)


@pytest.mark.parametrize('layout', LAYOUTS, ids='-'.join)
@pytest.mark.parametrize(
  'options',
  [
    {'window_strides': (1, 1)},
    {'window_strides': (2, 1), 'rhs_dilation': (1, 2)},
    {'window_strides': (1, 2), 'feature_group_count': 2},
    {'window_strides': (1, 1), 'feature_group_count': 4},
  ],
  ids=['plain', 'strided-dilated', 'grouped', 'depthwise'],
)
def test_every_layout_gives_the_same_gradients(layout, options):
  k, x = operands(layout, options.get('feature_group_count', 1))
  slopes = lambda k, x: gradients(convolution(layout, **options), k, x)
  with jax.enable_x64(True):
    k, x = k.astype(float), x.astype(float)
    expected = slopes(k, x)
    found = jax.jit(loops.channels_last(slopes))(k, x)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def compiled(run, *args):
  """Orders of axes of the convolutions in the compiled program."""
  text = jax.jit(run).lower(*args).compile().as_text() or ''
  return set(re.findall(r'dim_labels=(\S+?)[,\s]', text))


FAST = {'b01f_01io->b01f'}


def body(k, x):
  slope = lambda x: gradients(
    convolution(LAYOUTS[1], window_strides=(1, 1)), k, x
  )[1]
  return x + slope(x)


RUNS = {
  'scan': lambda m, k, x: m.scan(lambda x, _: (body(k, x), None), x, length=3),
  'while_loop': lambda m, k, x: m.while_loop(
    lambda s: s[1] < 3, lambda s: (body(k, s[0]), s[1] + 1), (x, 0)
  ),
  'fori_loop': lambda m, k, x: m.fori_loop(0, 3, lambda _, x: body(k, x), x),
  'cond': lambda m, k, x: m.cond(
    x[0, 0, 0, 0] > 0, lambda x: body(k, x), lambda x: x, x
  ),
  'nested': lambda m, k, x: m.scan(
    lambda x, _: (
      lax.cond(x.mean() < 9, jax.jit(body), lambda k, x: x, k, x),
      0,
    ),
    x,
    length=2,
  ),
}


@pytest.mark.parametrize('name', RUNS)
def test_loops_are_those_of_jax(name):
  k, x = operands(LAYOUTS[1])
  run = RUNS[name]
  with jax.enable_x64(True):
    k, x = k.astype(float), x.astype(float)
    expected = jax.jit(lambda k, x: run(lax, k, x))(k, x)
    found = jax.jit(lambda k, x: run(loops, k, x))(k, x)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, expected
  )


@pytest.mark.parametrize('name', RUNS)
def test_convolutions_inside_are_in_the_order_of_fast_kernels(name):
  if jax.default_backend() != 'cpu':
    pytest.skip('other devices order the axes by themselves')
  k, x = operands(LAYOUTS[1])
  assert compiled(lambda k, x: RUNS[name](loops, k, x), k, x) == FAST
  # The fault is still there: else this module may go.
  assert compiled(lambda k, x: RUNS[name](lax, k, x), k, x) != FAST


def test_map_with_batches_and_derivatives():
  k, x = operands(LAYOUTS[0])
  call = convolution(LAYOUTS[0], window_strides=(1, 1))
  xs = jnp.stack([x, 2 * x, 3 * x])

  def total(m, k):
    return jnp.sum(jnp.sin(m(lambda x: call(k, x), xs, batch_size=2)))

  expected = jax.jit(jax.grad(lambda k: total(lax.map, k)))(k)
  found = jax.jit(jax.grad(lambda k: total(loops.map_, k)))(k)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_halves_and_captured_values_stay():
  k, x = operands(LAYOUTS[0])
  k, x = k.astype(jnp.bfloat16), x.astype(jnp.bfloat16)
  call = lambda x: (
    jnp.bfloat16(0.3)
    * convolution(LAYOUTS[1], window_strides=(1, 1))(
      jnp.transpose(k, (3, 2, 0, 1)), jnp.transpose(x, (0, 3, 1, 2))
    )
  )
  out = jax.jit(loops.channels_last(call))(x)
  assert out.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    out.astype(float), jax.jit(call)(x).astype(float), rtol=0.02, atol=0.02
  )


@pytest.mark.parametrize('layout', [LAYOUTS[0], LAYOUTS[1]], ids='-'.join)
def test_plain_numbers_stay_weak(layout):
  k, x = operands(layout)
  call = convolution(layout, window_strides=(1, 1))
  step = lambda x: (call(k, x), 0.5)
  half = jnp.ones((), jnp.bfloat16)
  assert (jax.jit(loops.channels_last(step))(x)[1] * half).dtype == half.dtype


def test_depthwise_convolutions_stay_as_they_are():
  k, x = operands(LAYOUTS[1], groups=4)
  call = convolution(LAYOUTS[1], window_strides=(1, 1), feature_group_count=4)
  jaxpr = str(jax.make_jaxpr(loops.channels_last(call))(k, x))
  assert jaxpr == str(jax.make_jaxpr(call)(k, x))


def test_what_maps_over_devices_inside_stays_as_it_is():
  mesh = jax.make_mesh((1,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
  k, x = operands(LAYOUTS[1])
  spec = jax.sharding.PartitionSpec

  def centered(k, x):
    y = convolution(LAYOUTS[1], window_strides=(1, 1))(k, x)
    return y - jax.lax.pmean(jnp.mean(y), 'd')

  call = jax.shard_map(
    centered, mesh=mesh, in_specs=(spec(), spec('d')), out_specs=spec('d')
  )
  found = jax.jit(loops.channels_last(call))(k, x)
  np.testing.assert_allclose(found, jax.jit(call)(k, x), rtol=1e-5, atol=1e-5)


def test_a_linear_solver_inside_is_in_order_too():
  k, x = operands(LAYOUTS[1])
  k = jnp.concatenate([k, k], axis=1)[:, :8] / 50  # as many outputs as inputs
  x = jnp.concatenate([x, x], axis=1)
  call = convolution(LAYOUTS[1], window_strides=(1, 1))
  solver = lambda matvec, b: b - matvec(b)

  def solve(k, x):
    return jax.lax.custom_linear_solve(lambda v: call(k, v), x, solver)

  def run(k, x):
    return loops.scan(lambda x, _: (solve(k, x), None), x, length=2)[0]

  assert compiled(run, k, x) == FAST


@pytest.mark.parametrize('layout', [LAYOUTS[0], LAYOUTS[1]], ids='-'.join)
def test_every_function_is_traced_once(layout):
  k, x = operands(layout)
  k = jnp.concatenate([k, k], axis=layout[1].index('I'))
  x = jnp.concatenate([x, x], axis=layout[0].index('C'))
  count = []

  def step(x, _):
    count.append(1)
    return convolution(layout, window_strides=(1, 1))(k, x), None

  inner = lambda x, _: (loops.scan(step, x, length=2)[0], None)
  outer = lambda x, _: (loops.scan(inner, x, length=2)[0], None)
  jax.jit(lambda x: loops.scan(outer, x, length=2)[0]).lower(x)
  assert len(count) == 1


def test_names_and_places_in_the_source_stay():
  k, x = operands(LAYOUTS[1])

  def call(k, x):
    with jax.named_scope('mine'):
      return convolution(LAYOUTS[1], window_strides=(1, 1))(k, x)

  closed = jax.make_jaxpr(loops.channels_last(call))(k, x)
  for eqn in closed.jaxpr.eqns:
    assert 'mine' in str(eqn.source_info.name_stack)
    assert 'test_loops' in source_info_util.summarize(eqn.source_info)
