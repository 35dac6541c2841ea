"""Latent codes that are edited and run backwards."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bort_jax import attacks, nn

CONFIG: Any = jax.config
LAYER: dict[str, Any] = {'layer': 'features'}


@pytest.fixture(scope='module')
def network():
  """Exactly invertible, with a head that tells left from right."""
  model = nn.create(
    'patch_net',
    image_shape=(8, 8, 1),
    num_classes=3,
    strides=(2, 2),
    negative_slope=0.5,
    rngs=nnx.Rngs(1),
  )
  x = jax.random.uniform(
    jax.random.key(0), (6, 8, 8, 1), minval=0.3, maxval=0.7
  )
  apply_fn, params = nn.functional(model, 'intermediates')
  target = (jnp.argmax(apply_fn(params, x)['logits'], 1) + 1) % 3
  return apply_fn, params, x, target


def test_direction_flips_with_the_least_change_that_flips(network):
  apply_fn, params, x, target = network
  found = attacks.synthesize(apply_fn, params, x, target, **LAYER)
  logits = lambda x: apply_fn(params, x)['logits']
  assert jnp.all(found.success)
  np.testing.assert_array_equal(jnp.argmax(logits(found.x), 1), target)
  np.testing.assert_array_equal(found.before, jnp.argmax(logits(x), 1))
  np.testing.assert_allclose(found.x, x + found.change, atol=1e-6)
  assert 0 <= float(found.x.min()) <= float(found.x.max()) <= 1
  # a little less does not flip
  less = x + 0.98 * found.change
  assert jnp.all(jnp.argmax(logits(less), 1) != target)
  np.testing.assert_allclose(
    found.l2, jnp.linalg.norm(found.change.reshape(6, -1), axis=1), rtol=1e-5
  )
  # the code has moved along a unit vector
  np.testing.assert_allclose(found.latent_l2, found.amount, rtol=1e-5)


def test_linear_network_is_left_at_the_true_distance(float64):
  matrix = jax.nn.initializers.orthogonal()(
    jax.random.key(0), (16, 16), jnp.float64
  )
  weights = jax.random.normal(jax.random.key(1), (16, 3), jnp.float64)

  def apply_fn(params, x):
    code = x.reshape(len(x), -1) @ params
    return {'code': code, 'logits': code @ weights}

  x = jax.random.uniform(jax.random.key(2), (5, 4, 4, 1), jnp.float64)
  before = apply_fn(matrix, x)['logits']
  order = jnp.argsort(before, axis=1)
  source, target = order[:, -1], order[:, -2]
  found = attacks.synthesize(
    apply_fn, matrix, x, target, layer='code', bounds=(-9.0, 9.0), steps=40
  )
  difference = weights[:, target] - weights[:, source]
  gap = before[jnp.arange(5), source] - before[jnp.arange(5), target]
  distance = gap / jnp.linalg.norm(difference, axis=0)
  np.testing.assert_allclose(found.l2, distance, rtol=1e-6)
  np.testing.assert_allclose(found.amount, distance, rtol=1e-6)


def test_path_leads_from_one_class_to_the_other(network):
  apply_fn, params, x, target = network
  found = attacks.synthesize(apply_fn, params, x, target, **LAYER)
  np.testing.assert_allclose(
    found.path_logits[0], apply_fn(params, x)['logits'], atol=1e-4
  )
  assert jnp.all(jnp.argmax(found.path_logits[-1], 1) == target)
  assert jnp.all(jnp.diff(found.path_amounts, axis=0) >= 0)


def test_units_move_towards_the_prototype(network):
  apply_fn, params, x, target = network
  codes = apply_fn(params, x)['features']
  prototypes = jnp.stack([codes[0] + 5 * c for c in jnp.eye(3, codes.shape[1])])
  found = attacks.synthesize(
    apply_fn,
    params,
    x,
    target,
    edit='units',
    prototypes=prototypes,
    num_units=7,
    bounds=(-99.0, 99.0),
    greatest=1.0,
    **LAYER,
  )
  moved = apply_fn(params, found.x)['features'] - codes
  assert jnp.all(jnp.sum(jnp.abs(moved) > 1e-3, axis=1) <= 7)
  assert jnp.all(found.amount <= 1)


def test_what_is_already_the_target_does_not_change(network):
  apply_fn, params, x, _ = network
  same = jnp.argmax(apply_fn(params, x)['logits'], 1)
  found = attacks.synthesize(apply_fn, params, x, same, **LAYER)
  np.testing.assert_array_equal(found.amount, 0)
  np.testing.assert_allclose(found.x, x, atol=1e-6)
  assert jnp.all(found.success)


def test_prototypes_are_means_and_missing_classes_are_told():
  apply_fn = lambda params, x: {'code': x}
  x = jnp.arange(6.0).reshape(3, 2, 1, 1)
  found = attacks.class_prototypes(
    apply_fn, None, x, jnp.array([2, 0, 2]), layer='code', num_classes=3
  )
  np.testing.assert_array_equal(found[2].ravel(), [2.0, 3.0])
  assert jnp.all(jnp.isnan(found[1]))


def test_bad_requests_are_refused(network):
  apply_fn, params, x, target = network
  refuse = lambda match: pytest.raises(attacks.AttackError, match=match)
  make = lambda x=x, target=target, **options: attacks.synthesize(
    apply_fn, params, x, target, **{**LAYER, **options}
  )
  with refuse('edit must be one of'):
    make(edit='unit')
  with refuse('class_prototypes'):
    make(edit='units')
  with refuse('target 4 does not exist'):
    make(target=target + 3)
  with refuse('target must be integers'):
    make(target=target[:2])
  with refuse('x must be 0'):
    make(x=2 * x)
  with refuse('must be logits'):
    make(output='act1')
  with refuse('steps'):
    make(steps=0)
  for number in (0, -3, 2.5):
    with refuse('num_units must be'):
      make(num_units=number)
  for greatest in (0.0, -1.0, jnp.nan, jnp.arange(6.0), jnp.ones(5)):
    with refuse('greatest must be'):
      make(greatest=greatest)


def test_prototypes_that_do_not_fit_are_refused(network):
  apply_fn, params, x, target = network
  refuse = lambda match: pytest.raises(attacks.AttackError, match=match)
  make = lambda prototypes, target=target: attacks.synthesize(
    apply_fn, params, x, target, edit='units', prototypes=prototypes, **LAYER
  )
  labels = jnp.array([0, 0, 2, 2, 0, 0])  # none is of class 1
  prototypes = attacks.class_prototypes(
    apply_fn, params, x, labels, num_classes=3, **LAYER
  )
  for wrong in (prototypes[:2], prototypes[0], prototypes[:, :1]):
    with refuse('prototypes must have shape'):
      make(wrong)
  with refuse('not finite for the targets 1:.*without pictures'):
    make(prototypes, target.at[0].set(1))
  assert make(prototypes, 2 * jnp.ones(6, int)).x.shape == x.shape


def test_functions_without_a_hash_are_refused(network):
  _, params, x, target = network

  class Unhashable:
    __hash__: Any = None

    def __call__(self, params, x):
      return {'features': x}

  with pytest.raises(attacks.AttackError, match='Unhashable.*no hash'):
    attacks.synthesize(Unhashable(), params, x, target, **LAYER)
  with pytest.raises(attacks.AttackError, match='Unhashable.*no hash'):
    attacks.class_prototypes(
      Unhashable(), params, x, target, num_classes=3, **LAYER
    )


def test_forward_passes_are_of_the_precision_of_those_backwards():
  seen = []

  def apply_fn(params, x):
    seen.append(CONFIG.jax_default_matmul_precision)
    code = x.reshape(len(x), -1) @ params
    return {'code': code, 'logits': code[:, :2]}

  x, matrix = jnp.full((1, 2, 2, 1), 0.5), jnp.eye(4)
  label = jnp.array([1])
  attacks.class_prototypes(
    apply_fn, matrix, x, label, layer='code', num_classes=2
  )
  assert set(seen) == {'highest'}
  seen.clear()
  attacks.synthesize(apply_fn, matrix, x, label, layer='code')
  # what asks for shapes alone comes first
  assert seen[-1] == 'highest'
