"""Bounds of B-cos layers, beside sampled pairs and directions of steep rise."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from bort_jax import nn
from bort_jax.claims import aligned
from bort_jax.inversion.lipschitz import upper_bound
from bort_jax.inversion.program import trace
from bort_jax.inversion.segments import cut


@functools.partial(jax.jit, static_argnums=0)
def bound_of(apply_fn, params, x):
  """The product of the segments' bounds."""
  program = trace(apply_fn, params, jax.ShapeDtypeStruct(x.shape, x.dtype))
  constants = program.constants(params)
  bounds = [upper_bound(p, program, constants, 32) for p in cut(program)]
  return jnp.prod(jnp.stack([bound.value for bound in bounds]))


def layer(**options):
  """A convolution with what is asked for, and pictures of 6 channels."""
  conv = functools.partial(nn.bcos.BcosConv, 6, 8, rngs=nnx.Rngs(0))
  return nn.functional(conv((3, 3), **options))


LAYERS = {
  'linear, MaxOut': {'b': 1.0, 'max_out': 2},
  'B = 1.25': {'b': 1.25},
  'B = 2, strided': {'strides': 2, 'padding': 1},
  'B = 2.5, MaxOut, dilated': {'b': 2.5, 'max_out': 2, 'kernel_dilation': 2},
  'groups, scaled': {'feature_group_count': 2, 'scale': 0.1},
  'free weights': {'normalize': False, 'b': 1.5},
}


@pytest.mark.parametrize('name', LAYERS)
def test_no_pair_violates_the_bound_of_a_layer(name):
  apply_fn, params = layer(**LAYERS[name])
  keys = jax.random.split(jax.random.key(1))
  apply = jax.jit(apply_fn)
  bound = bound_of(apply_fn, params, jnp.zeros((1, 6, 6, 6)))
  assert bound < jnp.inf
  norm = lambda a: jnp.linalg.norm(a.reshape(len(a), -1), axis=1)
  base = jax.random.normal(keys[0], (64, 6, 6, 6))
  step = jax.random.normal(keys[1], base.shape)
  for size in (1e-4, 1e-3, 1e-1, 10.0):  # about the ε in norms, and far above
    for distance in (0.1, 3.0):
      x, other = size * base, size * (base + distance * step)
      moved = norm(apply(params, x) - apply(params, other))
      assert jnp.all(moved <= bound * norm(x - other) * (1 + 1e-4))


def test_bound_is_within_three_of_what_a_layer_reaches(float64):
  dense = nn.bcos.BcosDense(8, 8, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
  dense.kernel[...] = jnp.eye(8)
  apply_fn, params = nn.functional(dense)
  x = jnp.eye(8)[:1] + jnp.eye(8)[1:2]  # between two units
  bound = bound_of(apply_fn, params, x)
  assert float(bound) == pytest.approx(3, rel=0.01)  # 2·1 + 1·1·√1
  slopes = jax.jacobian(lambda v: apply_fn(params, v)[0])(x)[:, 0]
  assert float(jnp.linalg.norm(slopes, 2)) == pytest.approx(2**0.5)


def test_bound_of_a_convolution_is_that_of_its_matrices():
  apply_fn, params = layer(b=1.5)
  linear, same = layer(b=1.0)
  x = jnp.zeros((1, 6, 6, 6))
  matrix = jax.jit(jax.jacobian(lambda v: linear(same, v)))(x).reshape(
    -1, x.size
  )
  (kernel,) = jax.tree.leaves(params)
  rows = kernel.reshape(-1, kernel.shape[-1]).T
  rows /= jnp.linalg.norm(rows, axis=1, keepdims=True)
  norm = lambda a: float(jnp.linalg.norm(a, 2))
  expected = 1.5 * norm(matrix) + 0.5 * norm(rows) * 9**0.5
  found = float(bound_of(apply_fn, params, x))
  assert expected <= found * (1 + 1e-5) <= 1.1 * expected  # by circular ones


def test_network_has_a_certificate():
  model = nn.create(
    'bcos_resnet8',
    image_shape=(8, 8, 1),
    num_classes=3,
    max_out=2,
    rngs=nnx.Rngs(0),
  )
  model.eval()
  apply_fn, params = nn.functional(model)
  x = jnp.zeros((1, 8, 8, 1))
  assert 0 < bound_of(apply_fn, params, x) < jnp.inf


def test_layer_with_a_bias_claims_nothing():
  apply_fn, params = layer(use_bias=True, normalize=False)
  assert jnp.isinf(bound_of(apply_fn, params, jnp.zeros((1, 6, 6, 6))))


def test_claim_without_a_layer_is_no_bound():
  apply_fn = lambda _, x: aligned(x**2, 2.0)
  assert jnp.isinf(bound_of(apply_fn, None, jnp.ones((2, 3))))


def scaled(x, kernel, b=2.0, after=lambda y: y):
  """A B-cos layer of rows of pictures, and what is made of its product."""
  y = after(x @ kernel)
  norm = jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True) + 1e-6)
  return aligned(y * (jnp.abs(y) / jnp.broadcast_to(norm, y.shape)), b)


NOT_LAYERS = {
  'second kernel': lambda w, x: scaled(x, w, after=lambda y: y @ (10 * w)),
  'gain': lambda w, x: scaled(x, w, after=lambda y: y * jnp.diag(10 * w)[None]),
  'factor': lambda w, x: scaled(x, w, after=lambda y: 10 * y),
  'bias': lambda w, x: scaled(x, w, after=lambda y: y + jnp.diag(w)[None]),
  'products behind a reshape': lambda w, x: aligned(
    jnp.maximum(x.reshape(-1, 4) @ (100 * w), x.reshape(-1, 4) @ (-100 * w)),
    1.0,
  ),
  'factors alone': lambda w, x: aligned(jnp.maximum(5 * x, -5 * x), 1.0),
  'claims that differ': lambda w, x: aligned(scaled(x, w), 1.0),
}


@pytest.mark.parametrize('name', NOT_LAYERS)
def test_claim_of_what_is_no_layer_gives_no_smaller_bound(name):
  """A bound there may be, by the operations; not that of a layer."""
  x = jnp.array([[3.0, 0.1, 0.2, 0.3]])
  true = jnp.linalg.norm(
    jax.jacobian(NOT_LAYERS[name], 1)(jnp.eye(4), x)[0, :, 0], 2
  )
  assert bound_of(NOT_LAYERS[name], jnp.eye(4), x) >= true


def test_the_same_layer_without_them_has_a_bound():
  found = bound_of(lambda w, x: scaled(x, w), jnp.eye(4), jnp.ones((1, 4)))
  assert found < 3.01


@pytest.mark.parametrize('b', [0.0, -1.0, float('nan'), float('inf')])
def test_another_exponent_is_refused(b):
  with pytest.raises(ValueError, match='b must be a finite number >= 1'):
    aligned(jnp.ones(2), b)


def test_a_number_may_be_claimed():
  apply_fn = lambda params, x: x + aligned(2.0, 2.0)  # type: ignore
  assert bound_of(apply_fn, None, jnp.ones((1, 4))) == pytest.approx(1)
