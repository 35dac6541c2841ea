"""Gauss–Newton goes as far as it is allowed, and says how far it went."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bort_jax import inversion, nn

X = jax.random.uniform(jax.random.key(0), (2, 4), minval=0.2)


@pytest.fixture(scope='module')
def bcos():
  layer = nn.bcos.BcosDense(4, 6, b=2.0, rngs=nnx.Rngs(0))
  return nn.functional(layer)


def back(function, **options):
  apply_fn, params = function
  return inversion.reconstruct(apply_fn, params, X, **options)


def certificate_of(function, **options):
  apply_fn, params = function
  return inversion.certificate(apply_fn, params, X, **options)


def test_an_inversion_stops_after_so_many_steps(bcos):
  whole = back(bcos).segments[0]
  few = back(bcos, newton_steps=2).segments[0]
  assert int(few.newton_steps) == 2
  assert 2 < int(whole.newton_steps) < 100
  assert few.residual.max() > 100 * whole.residual.max()


def test_each_step_has_so_many_of_its_linear_problem(bcos):
  options = {'newton_steps': 3}
  one = back(bcos, linear_steps=1, **options)
  many = back(bcos, linear_steps=100, **options)
  assert one.residual.max() > 2 * many.residual.max()


def test_steps_of_a_fixed_point_are_not_among_them():
  weights = jax.random.normal(jax.random.key(1), (3, 3))
  apply_fn = lambda p, x: x + jnp.tanh(x @ p)
  x = jax.random.normal(jax.random.key(2), (2, 3))
  (easy,) = inversion.reconstruct(apply_fn, 0.1 * weights, x).segments
  assert int(easy.steps) > int(easy.newton_steps) == 0
  (hard,) = inversion.reconstruct(apply_fn, 4 * weights, x).segments
  assert int(hard.steps) > int(hard.newton_steps) > 0


def test_a_certificate_counts_them_and_keeps_its_bounds(bcos):
  few = certificate_of(bcos, newton_steps=1, linear_steps=2)
  many = certificate_of(bcos)
  assert int(few.segments[0].newton_steps) == 1
  assert few.segments[0].residual.max() > 100 * many.segments[0].residual.max()
  assert 1 < int(many.segments[0].newton_steps) < 100
  np.testing.assert_array_equal(few.upper, many.upper)
  assert few.lost_energy.max() > many.lost_energy.max()


@pytest.mark.parametrize(
  'options', [{'newton_steps': 0}, {'linear_steps': 1.5}]
)
def test_what_is_no_number_of_steps_is_refused(bcos, options):
  (name,) = options
  model = nn.create(
    'patch_net', image_shape=(8, 8, 1), num_classes=3, rngs=nnx.Rngs(0)
  )
  outputs, params = nn.functional(model, 'intermediates')
  pictures, target = jnp.ones((1, 8, 8, 1)), jnp.array([0])
  given = outputs, params, pictures, target
  for refusing in (
    lambda: back(bcos, **options),
    lambda: certificate_of(bcos, **options),
    lambda: inversion.backtrack(*given, layer='logits', **options),
    lambda: inversion.class_saliency(
      *given, layer='act2', skip_border=False, **options
    ),
    lambda: inversion.saliency(
      *given, layer='act2', skip_border=False, **options
    ),
  ):
    with pytest.raises(ValueError, match=f'{name} must be an integer'):
      refusing()
