"""Maps before and after layers forget."""

from typing import Any

import jax
import jax.numpy as jnp
import metric_helpers as h
import numpy as np
import pytest
import scipy.stats

from bort_jax import metrics


def init(key):
  first, second, third = jax.random.split(key, 3)
  return {
    'block': {
      'kernel': jax.random.normal(first, (3, 3, 2, 8)),
      'bias': jax.random.normal(third, (8,)),
    },
    'head': {'kernel': jax.random.normal(second, (8, 4))},
  }


def apply_fn(params, x):
  code = h.convolved(x, params['block']['kernel'])
  code = jnp.tanh(code + params['block']['bias'].reshape(1, 1, 1, 8))
  return jnp.mean(code, axis=(1, 2)) @ params['head']['kernel']


PARAMS, FRESH = init(jax.random.key(0)), init(jax.random.key(1))
X = h.pictures((3, 12, 11, 2))
TARGET = jnp.array([0, 1, 2])


def randomized(
  layers, reinitialized: Any = FRESH, method: Any = h.gradient, **options
):
  return metrics.parameter_randomization(
    method, apply_fn, PARAMS, reinitialized, layers, X, TARGET, **options
  )


def rank_correlation(a, b):
  found: Any = scipy.stats.spearmanr(a, b)
  return found[0]


@pytest.mark.parametrize('cascading', [True, False])
def test_likeness_is_that_of_maps_of_the_mixed_network(cascading):
  found = randomized(['head', 'block'], cascading=cascading)
  plain = h.gradient(apply_fn, PARAMS, X, TARGET)
  mixed = {**PARAMS, 'head': FRESH['head']}
  last = FRESH if cascading else {**PARAMS, 'block': FRESH['block']}
  for layer, params in enumerate((mixed, last)):
    other = h.gradient(apply_fn, params, X, TARGET)
    for i in range(3):
      a, b = np.asarray(plain[i]).ravel(), np.asarray(other[i]).ravel()
      signed = rank_correlation(a, b)
      absolute = rank_correlation(abs(a), abs(b))
      np.testing.assert_allclose(found.spearman[i, layer], signed, atol=1e-4)
      np.testing.assert_allclose(
        found.spearman_absolute[i, layer], absolute, atol=1e-4
      )
    sizes = [
      jnp.abs(m) / jnp.abs(m).max((1, 2, 3), keepdims=True)
      for m in (plain, other)
    ]
    np.testing.assert_allclose(
      found.ssim[:, layer], metrics.ssim(*sizes), atol=1e-4
    )
  assert found.layers == ('head', 'block')
  assert found.cascading is cascading


def test_nothing_forgotten_is_alike():
  found = randomized(['block'], PARAMS)
  for values in (found.spearman, found.spearman_absolute, found.ssim):
    np.testing.assert_allclose(values, 1, rtol=1e-5)


def test_a_map_that_does_not_see_the_network_stays():
  edges = lambda apply_fn, params, x, target: x - jnp.roll(x, 1, axis=1)
  found = randomized(['head', 'block'], method=edges)
  np.testing.assert_allclose(found.spearman, 1, rtol=1e-5)


def test_target_stays_or_is_predicted_anew():
  fixed = randomized(['head'])
  assert fixed.target.ravel().tolist() == TARGET.tolist()
  anew = randomized(['head'], retarget=True)
  mixed = {**PARAMS, 'head': FRESH['head']}
  predicted = jnp.argmax(apply_fn(mixed, X), axis=-1)
  assert anew.target.ravel().tolist() == predicted.tolist()
  other = metrics.parameter_randomization(
    h.gradient, apply_fn, PARAMS, FRESH, ['head'], X, TARGET
  )
  assert (anew.target != other.target).any()
  assert not np.allclose(anew.spearman, other.spearman)


def test_layers_by_path_and_by_function():
  kernels = lambda path: path.endswith('kernel')
  found = randomized(['block/bias', kernels], cascading=True)
  whole = randomized(['block', 'head'])
  np.testing.assert_allclose(
    found.spearman[:, 1], whole.spearman[:, 1], rtol=1e-5
  )


def test_initializers_draw_from_a_key():
  found = randomized(['head'], init, key=jax.random.key(1))
  expected = randomized(['head'])
  np.testing.assert_allclose(found.spearman, expected.spearman, rtol=1e-5)
  with pytest.raises(metrics.MetricError, match='random key'):
    randomized(['head'], init)


def test_small_maps_have_no_structural_similarity():
  small = metrics.parameter_randomization(
    h.gradient, apply_fn, PARAMS, FRESH, ['head'], X[:, :6], TARGET
  )
  assert np.isnan(small.ssim).all()
  assert np.isfinite(small.spearman).all()
  seven = metrics.parameter_randomization(
    h.gradient, apply_fn, PARAMS, FRESH, ['head'], X[:, :6], TARGET, window=5
  )
  assert np.isfinite(seven.ssim).all()


@pytest.mark.parametrize('value', [0.0, 0.1, -3.0])
def test_constant_maps_are_undefined(value):
  flat = lambda apply_fn, params, x, target: jnp.full_like(x, value)
  found = randomized(['head'], method=flat)
  for values in (found.spearman, found.spearman_absolute, found.ssim):
    assert np.isnan(values).all()


def test_chunks_and_jit_change_nothing():
  found = randomized(['head', 'block'])
  parts = randomized(['head', 'block'], chunk=2)
  np.testing.assert_allclose(parts.ssim, found.ssim, rtol=1e-4)
  jitted = jax.jit(
    lambda params: metrics.parameter_randomization(
      h.gradient, apply_fn, params, FRESH, ['head', 'block'], X, TARGET
    )
  )(PARAMS)
  np.testing.assert_allclose(jitted.spearman, found.spearman, atol=1e-4)
  assert jitted.layers == ('head', 'block')


@pytest.mark.parametrize(
  ('layers', 'match'),
  [
    (['blok'], "Did you mean 'block'"),
    (['block/kernal'], "Did you mean 'block/kernel'"),
    ([], 'at least one'),
    ('head', 'must be a list'),
  ],
)
def test_layers_that_are_none(layers, match):
  with pytest.raises(metrics.MetricError, match=match):
    randomized(layers)


def test_parameters_of_another_structure():
  with pytest.raises(metrics.MetricError, match='head/kernel.*missing'):
    randomized(['head'], {'block': FRESH['block']})
  narrow = {**FRESH, 'head': {'kernel': jnp.ones((8, 3))}}
  with pytest.raises(metrics.MetricError, match=r'\(8, 3\)'):
    randomized(['head'], narrow)


def test_a_method_that_returns_no_map():
  scores = lambda apply_fn, params, x, target: apply_fn(params, x)
  with pytest.raises(metrics.MetricError, match='returned is no map'):
    randomized(['head'], method=scores)
