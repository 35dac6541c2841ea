"""Inversion under JAX's transformations, and of functions made by them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bort_jax import inversion
from bort_jax.inversion.invert import _invert

orthogonal = jax.nn.initializers.orthogonal()
LAYERS, WIDTH = 3, 6


def stack(seed=0):
  """Orthogonal matrices, one per layer."""
  keys = jax.random.split(jax.random.key(seed), LAYERS)
  return jnp.stack([orthogonal(key, (WIDTH, WIDTH)) for key in keys])


def layer(x, kernel):
  return jax.nn.leaky_relu(x @ kernel, 0.5)


def unrolled(kernels, x):
  for kernel in kernels:
    x = layer(x, kernel)
  return x


def scanned(kernels, x):
  return jax.lax.scan(lambda x, w: (layer(x, w), None), x, kernels)[0]


def scanned_backwards(kernels, x):
  one = np.ones((1, 1), 'float32')  # captured

  def step(carry, kernel):
    (x, count), scale = carry, kernels[0, 0, 0]
    x = layer(x, kernel) * scale / scale * one
    return (x, count + 1), jnp.sum(x)

  start = x, 0
  return jax.lax.scan(step, start, kernels[::-1], reverse=True)[0][0]


def with_remat(kernels, x):
  for kernel in kernels:
    x = jax.checkpoint(layer)(x, kernel)
  return x


def with_jit(kernels, x):
  return jax.jit(unrolled)(kernels, x)


def with_nnx_jit(kernels, x):
  return nnx.jit(unrolled)(kernels, x)


@jax.custom_jvp
def own_jvp(x):
  return jax.nn.leaky_relu(x, 0.5)


@own_jvp.defjvp
def _(primals, tangents):
  return jax.jvp(lambda x: jax.nn.leaky_relu(x, 0.5), primals, tangents)


@jax.custom_vjp
def own_vjp(x):
  return jax.nn.leaky_relu(x, 0.5)


own_vjp.defvjp(
  lambda x: (own_vjp(x), x), lambda x, g: (jnp.where(x > 0, g, 0),)
)


def with_own_derivatives(kernels, x):
  return own_vjp(own_jvp(own_vjp(x @ kernels[0]) @ kernels[1]) @ kernels[2])


WRAPPED = {
  function.__name__: function
  for function in (
    scanned,
    scanned_backwards,
    with_remat,
    with_jit,
    with_nnx_jit,
    with_own_derivatives,
  )
}


def batch(seed=1, shape=(2, WIDTH)):
  return jax.random.normal(jax.random.key(seed), shape)


def num_compiled() -> int:
  cached: Any = _invert
  return cached._cache_size()


def kinds(result):
  return [segment.kind for segment in result.segments]


@pytest.mark.parametrize('name', WRAPPED)
def test_wrapped_networks_are_inverted_like_the_plain_one(name):
  kernels, x = stack(), batch()
  plain = inversion.reconstruct(unrolled, kernels, x)
  found = inversion.reconstruct(WRAPPED[name], kernels, x)
  assert kinds(plain) == ['affine', 'elementwise'] * LAYERS
  if name != 'scanned_backwards':  # which scales in between
    assert kinds(found) == kinds(plain)
  np.testing.assert_allclose(found.x, plain.x, atol=1e-6)
  np.testing.assert_allclose(found.x, x, atol=1e-5)


def test_attention_of_jax_nn_is_a_residual_branch():
  x = batch(shape=(1, 5, 2, 4))

  def apply_fn(scale, x):
    return x + scale * jax.nn.dot_product_attention(x, x, x, is_causal=True)

  result = inversion.reconstruct(apply_fn, 0.1, x)
  assert kinds(result) == ['residual']
  assert result.segments[0].exactness == 'exact'
  np.testing.assert_allclose(result.x, x, atol=1e-5)


def test_bfloat16_comes_back_to_its_rounding():
  def apply_fn(kernels, x):
    h = unrolled(kernels.astype(jnp.bfloat16), x.astype(jnp.bfloat16))
    return (h + 0.3 * jnp.tanh(h)).astype(jnp.float32)

  x = batch()
  result = inversion.reconstruct(apply_fn, stack(), x)
  assert result.x.dtype == jnp.float32
  assert float(jnp.linalg.norm(result.x - x) / jnp.linalg.norm(x)) < 0.03
  assert int(result.steps) < 30  # no search for digits that are not there
  singular = jnp.stack([s.singular_values for s in result.segments])
  assert jnp.all(jnp.isfinite(singular))


def test_jit_equals_eager():
  kernels, x = stack(), batch()
  eager = inversion.reconstruct(scanned, kernels, x).x
  jitted = jax.jit(lambda p, x: inversion.reconstruct(scanned, p, x).x)
  np.testing.assert_allclose(jitted(kernels, x), eager, atol=1e-6)


def test_vmap_over_outputs_equals_a_loop():
  kernels, like = stack(), batch()
  z = batch(seed=2, shape=(4, 2, WIDTH))
  back = lambda z: inversion.invert(unrolled, kernels, z, like).x
  np.testing.assert_allclose(
    jax.vmap(back)(z), jnp.stack([back(one) for one in z]), atol=1e-5
  )


def test_vmap_over_parameters_equals_a_loop():
  kernels = jnp.stack([stack(0), 2 * stack(1), stack(2) + 0.1])
  x, z = batch(), batch(seed=2)
  back = lambda kernels: inversion.invert(unrolled, kernels, z, x).x
  np.testing.assert_allclose(
    jax.vmap(back)(kernels), jnp.stack([back(p) for p in kernels]), atol=1e-4
  )


def test_one_function_is_compiled_once_per_shape():
  apply_fn = lambda kernels, x: unrolled(kernels, x)  # new to the cache
  before = num_compiled()
  for seed in range(3):  # parameters are arguments, not constants
    x = batch(seed)
    result = inversion.reconstruct(apply_fn, stack(seed), x)
    np.testing.assert_allclose(result.x, x, atol=1e-5)
  assert num_compiled() == before + 1
  inversion.reconstruct(apply_fn, stack(), batch(shape=(3, WIDTH)))
  assert num_compiled() == before + 2


def test_a_layer_chosen_twice_is_compiled_once():
  outputs = lambda kernels, x: {'all': unrolled(kernels, x)}
  before = num_compiled()
  for _ in range(2):
    inversion.reconstruct(inversion.until(outputs, 'all'), stack(), batch())
  assert num_compiled() == before + 1


SMOOTH = {
  'affine': lambda p, x: x @ p[0] + 1,
  'least_squares': lambda p, x: x @ jnp.concatenate([p[0], p[1] + 0.1], 1),
  'elementwise': lambda p, x: jnp.sinh(x),
  'network': unrolled,
  'slope': lambda p, x: jnp.where(x > 0, x, p[0, 0, 0] ** 2 * x + 0.1 * x),
  'residual': lambda p, x: x + 0.4 * jnp.tanh(x @ p[0]),
  'nonlinear': lambda p, x: x * jnp.exp(0.1 * x @ p[0]),
}


@pytest.mark.parametrize('name', SMOOTH)
def test_gradient_is_that_of_finite_differences(name, float64):
  kernels, x = stack().astype(float), batch().astype(float)
  apply_fn = SMOOTH[name]
  z = apply_fn(kernels, x)

  @jax.jit
  def loss(kernels, z):
    return jnp.sum(jnp.sin(inversion.invert(apply_fn, kernels, z, x).x))

  directions = batch(3, kernels.shape), batch(4, z.shape)
  gradients = jax.grad(loss, (0, 1))(kernels, z)
  slope = sum(map(jnp.vdot, gradients, directions))
  step = lambda h: loss(kernels + h * directions[0], z + h * directions[1])
  h = 1e-5
  numeric = (step(h) - step(-h)) / (2 * h)
  np.testing.assert_allclose(slope, numeric, rtol=1e-5, atol=1e-7)
  forward = jax.jvp(loss, (kernels, z), directions)[1]
  np.testing.assert_allclose(forward, numeric, rtol=1e-5, atol=1e-7)


def test_gradient_of_a_lost_number_is_zero():
  relu = lambda _, x: jax.nn.relu(x)
  z = jnp.array([[0.0, 2.0]])
  total = lambda z: jnp.sum(inversion.invert(relu, None, z, z).x)
  np.testing.assert_array_equal(jax.grad(total)(z)[0, 1], 1)
  assert jnp.all(jnp.isfinite(jax.grad(total)(z)))
