"""Convolutions of disjoint patches, as products, compute the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bort_jax.products import as_products

ON_CPU = jax.default_backend() == 'cpu'
LAST = ('NHWC', 'HWIO', 'NHWC')


def convolution(stride, **options):
  options = {'padding': 'VALID', 'dimension_numbers': LAST, **options}

  def call(kernel, x):
    # custom_jvp and a nested program on the way
    y = lax.conv_general_dilated(x, kernel, stride, **options)
    return jnp.sin(jax.jit(jax.nn.relu)(y))

  return call


def operands(side, inputs=3, outputs=5, sizes=(7, 9)):
  normal = np.random.default_rng(0).normal
  kernel = normal(size=(*side, inputs, outputs))
  return jnp.asarray(kernel), jnp.asarray(normal(size=(4, *sizes, inputs)))


def gradients(call):
  return jax.grad(lambda k, x: jnp.sum(call(k, x)), (0, 1))


def primitives(call, *args):
  return str(jax.make_jaxpr(call)(*args))


@pytest.mark.parametrize(
  ('side', 'stride'),
  [((1, 1), (1, 1)), ((1, 1), (2, 3)), ((2, 3), (2, 3)), ((2, 2), (2, 2))],
  ids=str,
)
def test_values_and_gradients_are_the_same(side, stride):
  call = convolution(stride)
  with jax.enable_x64(True):
    k, x = (a.astype(float) for a in operands(side))
    product = as_products(call)
    if ON_CPU:
      assert 'conv_general_dilated' not in primitives(gradients(product), k, x)
    np.testing.assert_allclose(
      jax.jit(product)(k, x), call(k, x), rtol=0, atol=1e-12
    )
    found, expected = jax.jit(gradients(product))(k, x), gradients(call)(k, x)
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-11)


def test_one_and_three_dimensions():
  normal = np.random.default_rng(0).normal
  for window in ((2,), (2, 1, 3)):
    axes = 'DHW'[: len(window)]
    order = f'N{axes}C', f'{axes}IO', f'N{axes}C'
    call = convolution(window, dimension_numbers=order)
    k = jnp.asarray(normal(size=(*window, 2, 3)), 'float32')
    x = jnp.asarray(normal(size=(2, *(6 for _ in window), 2)), 'float32')
    np.testing.assert_allclose(
      jax.jit(as_products(call))(k, x), call(k, x), atol=1e-5
    )


@pytest.mark.parametrize(
  ('side', 'stride', 'options'),
  [
    ((3, 3), (1, 1), {}),
    ((2, 2), (1, 1), {}),
    ((1, 1), (1, 1), {'padding': ((1, 1), (0, 0))}),
    ((2, 2), (2, 2), {'padding': [(0, 0)] * 2, 'lhs_dilation': (2, 2)}),
    ((2, 2), (2, 2), {'rhs_dilation': (2, 2)}),
  ],
  ids=['overlapping', 'overlapping 2', 'padded', 'spread', 'dilated'],
)
def test_others_stay(side, stride, options):
  call = convolution(stride, **options)
  k, x = operands(side)
  assert primitives(as_products(call), k, x) == primitives(call, k, x)


def test_grouped_ones_and_other_orders_stay():
  k, x = operands((1, 1), inputs=1, outputs=6)
  x = jnp.concatenate([x] * 2, -1)
  call = convolution((1, 1), feature_group_count=2)
  assert primitives(as_products(call), k, x) == primitives(call, k, x)
  k, x = operands((1, 1))
  first = ('NCHW', 'OIHW', 'NCHW')
  call = convolution((1, 1), dimension_numbers=first)
  k, x = k.transpose(3, 2, 0, 1), x.transpose(0, 3, 1, 2)
  assert primitives(as_products(call), k, x) == primitives(call, k, x)


def test_halves_stay_halves_and_results_may_be_wider():
  k, x = (a.astype('bfloat16') for a in operands((2, 3)))
  for wide in (None, jnp.float32):
    call = convolution((2, 3), preferred_element_type=wide)
    out = jax.jit(as_products(call))(k, x)
    assert out.dtype == (wide or jnp.bfloat16)
    np.testing.assert_allclose(
      np.asarray(out, 'float32'), np.asarray(call(k, x), 'float32'), atol=0.05
    )


def test_inside_of_remat_scan_and_functions_with_their_own_derivatives():
  k, x = (a.astype('float32') for a in operands((1, 1), 3, 3))

  @jax.custom_vjp
  def halved(x):
    return convolution((1, 1))(k, x)

  halved.defvjp(lambda x: (halved(x), x), lambda x, g: (g / 2,))

  def call(k, x):
    layer = jax.checkpoint(convolution((1, 1)))
    x, _ = lax.scan(lambda x, _: (layer(k, x), None), x, length=2)
    return halved(x)

  found = jax.jit(gradients(as_products(call)))(k, x)
  expected = jax.jit(gradients(call))(k, x)
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('axis', [0, 1], ids=['batch', 'space'])
def test_what_is_sharded_explicitly_stays(axis):
  if len(jax.devices()) < 2:
    pytest.skip('needs two devices')
  explicit = jax.sharding.AxisType.Explicit
  mesh = jax.make_mesh((2,), ('d',), axis_types=(explicit,))
  spec = jax.sharding.PartitionSpec(*[None] * axis, 'd')
  k, x = operands((2, 2), sizes=(8, 8))
  call = convolution((2, 2))
  with jax.set_mesh(mesh):
    placed = jax.device_put(x, spec)
    found = jax.jit(as_products(call))(k, placed)
  np.testing.assert_allclose(found, call(k, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('inputs', 'outputs'), [(0, 2), (2, 0)])
def test_of_no_channels(inputs, outputs):
  k, x = operands((1, 1), inputs, outputs)
  call = convolution((1, 1))
  np.testing.assert_array_equal(jax.jit(as_products(call))(k, x), call(k, x))
