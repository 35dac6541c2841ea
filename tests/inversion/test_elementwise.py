"""Functions of single numbers: their preimages and their greatest slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bort_jax import inversion
from bort_jax.inversion.elementwise import (
  greatest_slope,
  main_branch,
  undo_elementwise,
)
from bort_jax.inversion.program import trace
from bort_jax.inversion.segments import Piece


def traced(function, dtype=jnp.float32):
  like = jax.ShapeDtypeStruct((1, 3), dtype)
  program = trace(lambda _, x: function(x), None, like)
  piece = Piece('elementwise', program.eqns, program.invar, program.outvar)
  return piece, program


SLOPES = {
  'relu': (jax.nn.relu, 1),
  'leaky_relu': (lambda x: jax.nn.leaky_relu(x, 0.5), 1),
  'gelu': (jax.nn.gelu, None),
  'exact_gelu': (lambda x: jax.nn.gelu(x, approximate=False), None),
  'silu': (jax.nn.silu, None),
  'sigmoid': (jax.nn.sigmoid, 0.25),
  'tanh': (jnp.tanh, 1),
  'softplus': (jax.nn.softplus, 1),
  'elu': (jax.nn.elu, 1),
  'sine': (lambda x: jnp.sin(3 * x), 3),
  'hard_tanh': (jax.nn.hard_tanh, 1),
  'clip': (lambda x: jnp.clip(x, 0, 255), 1),
  'steep_silu': (lambda x: x * jax.nn.sigmoid(50 * x), None),
  'ripple': (lambda x: x + jnp.sin(30 * x) ** 2 / 30, 2),
  'corner': (lambda x: jnp.abs(x - 0.3) + 0.5 * x, 1.5),
}


def measured_slope(function):
  """On a grid far finer than the one under test."""
  slope = jax.vmap(jax.grad(function))
  return float(jnp.max(jnp.abs(slope(jnp.linspace(-8, 8, 2_000_001)))))


@pytest.mark.parametrize('name', SLOPES)
def test_greatest_slope_is_a_tight_upper_bound(name, float64):
  function, slope = SLOPES[name]
  slope = measured_slope(function) if slope is None else slope
  for dtype in (jnp.float32, jnp.float64):
    found = greatest_slope(*traced(function, dtype))
    assert found is not None
    assert slope <= found <= slope * (1 + 1e-3)


UNBOUNDED = {
  'slow_wave': lambda x: x * jnp.cos(0.1 * x),
  'chirp': lambda x: jnp.sin(x) * jnp.cos(x * x),
  'far_jump': lambda x: jnp.where(x > 2e4, 2 * x, 0),
  'small_jump': lambda x: x + 1e-5 * (x > 1),
  'small_fall': lambda x: x - 1e-5 * (x > 1),
  'square': lambda x: x * x,
  'logarithm': lambda x: x * jnp.log(jnp.abs(x) + 1),
  'root': lambda x: jnp.sqrt(jnp.abs(x - 0.1)),
  'floor': jnp.floor,
}


@pytest.mark.parametrize('name', UNBOUNDED)
def test_slopes_without_bound_have_none(name):
  function = UNBOUNDED[name]
  assert greatest_slope(*traced(function)) is None
  found = inversion.certificate(
    lambda _, x: function(x), None, jnp.ones((1, 3))
  )
  assert jnp.isinf(found.upper)


SCALAR = {
  'leaky_relu': (lambda x: jax.nn.leaky_relu(x, 0.5), True),
  'tanh': (jnp.tanh, True),
  'sigmoid': (jax.nn.sigmoid, True),
  'softplus': (jax.nn.softplus, True),
  'elu': (jax.nn.elu, True),
  'cubic': (lambda x: x**3 + x, True),
  'decreasing': (lambda x: jnp.exp(-x), True),
  'corner': (lambda x: jnp.abs(x - 0.3) + 2 * x, True),
  'relu': (jax.nn.relu, False),
  'gelu': (jax.nn.gelu, False),
  'exact_gelu': (lambda x: jax.nn.gelu(x, approximate=False), False),
  'silu': (jax.nn.silu, False),
  'hard_tanh': (jax.nn.hard_tanh, False),
  'abs': (jnp.abs, False),
}


@pytest.mark.parametrize('name', SCALAR)
def test_activations_give_a_preimage(name, float64):
  function, one_to_one = SCALAR[name]
  x = jnp.linspace(-3, 3, 61)[None]
  y = function(x)
  result = inversion.invert(lambda _, x: function(x), None, y, x)
  np.testing.assert_allclose(function(result.x), y, atol=1e-7)
  (segment,) = (s for s in result.segments if s.kind == 'elementwise')
  assert segment.exactness == ('exact' if one_to_one else 'lossy')
  if one_to_one:
    np.testing.assert_allclose(result.x, x, atol=1e-9)
  else:  # no preimage is smaller
    assert jnp.all(jnp.abs(result.x) <= jnp.abs(x) + 1e-6)


HALF = {
  'gelu': jax.nn.gelu,
  'silu': jax.nn.silu,
  'tanh': jnp.tanh,
  'sigmoid': jax.nn.sigmoid,
  'softplus': jax.nn.softplus,
  'relu': jax.nn.relu,
  'leaky_relu': jax.nn.leaky_relu,
}


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('name', HALF)
def test_half_precision(name, dtype):
  function, dtype = HALF[name], jnp.dtype(dtype)
  piece, program = traced(function, dtype)
  branch = main_branch(piece, program)
  x = jnp.linspace(-3, 3, 241).astype(dtype)[None]
  y = function(x)
  found, _ = jax.jit(lambda y: undo_elementwise(piece, {}, branch, y))(y)
  assert found.dtype == dtype
  wide = function(found.astype(jnp.float32))
  rounding = float(jnp.finfo(dtype).eps)
  slack = rounding * (1 + np.abs(np.float32(y)))  # of y, and of what it is from
  assert np.all(np.abs(wide - np.float32(y)) <= 2 * slack)
  slope = greatest_slope(piece, program)
  exact = greatest_slope(*traced(function))
  assert exact is not None
  assert slope == pytest.approx(exact, rel=rounding)


def test_learned_slope_in_half_precision():
  apply_fn = lambda slope, x: jnp.where(x > 0, x, slope * x)
  x = jnp.linspace(-3, 3, 61, dtype=jnp.float16)[None]
  slope = jnp.float16(0.25)
  program = trace(apply_fn, slope, jax.ShapeDtypeStruct(x.shape, x.dtype))
  piece = Piece('elementwise', program.eqns, program.invar, program.outvar)
  assert greatest_slope(piece, program) is None
  branch = main_branch(piece, program)
  found, known = undo_elementwise(
    piece, program.constants(slope), branch, apply_fn(slope, x)
  )
  assert known is None
  np.testing.assert_allclose(found, x, rtol=2e-3)


@pytest.mark.parametrize('function', [jnp.abs, lambda x: x**2, jnp.cos])
def test_of_equal_branches_the_positive_is_taken(function):
  x = jnp.linspace(0.1, 3, 30)[None]
  result = inversion.invert(lambda _, x: function(x), None, function(x), x)
  np.testing.assert_allclose(result.x, x, rtol=1e-4)


def test_published_rule_passes_through_relu_alone():
  y = jnp.linspace(-0.1, 2, 22)[None]
  invert = lambda function: inversion.invert(
    lambda _, x: function(x), None, y, y, method='published'
  )
  np.testing.assert_array_equal(invert(jax.nn.relu).x, y)
  np.testing.assert_allclose(jax.nn.gelu(invert(jax.nn.gelu).x), y, atol=1e-6)
  positive = jnp.abs(y)
  squared = inversion.invert(
    lambda _, x: x**2, None, positive**2, y, method='published'
  )
  np.testing.assert_allclose(squared.x, positive, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', ['relu', 'leaky_relu', 'hard_tanh', 'tanh'])
def test_preimages_have_the_derivative_of_the_inverse(name, float64):
  function = SLOPES[name][0]
  piece, program = traced(function, jnp.float64)
  branch = main_branch(piece, program)
  assert branch.straight == (name != 'tanh')
  x = jnp.array([[0.3, 0.5, 0.8]])
  undo = lambda y: undo_elementwise(piece, {}, branch, y)[0]
  there, slope = jax.jvp(function, (x,), (jnp.ones_like(x),))
  back, inverse = jax.jvp(undo, (there,), (jnp.ones_like(x),))
  np.testing.assert_allclose(back, x, rtol=1e-10)
  np.testing.assert_allclose(inverse * slope, 1, rtol=1e-9)
