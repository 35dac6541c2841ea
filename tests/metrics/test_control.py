"""Tables, and the random map in each."""

import functools

import jax
import jax.numpy as jnp
import metric_helpers as h
import numpy as np
import pytest

from bort_jax import metrics

KEY = jax.random.key(0)


def test_random_maps_know_nothing():
  x = h.pictures((3, 8, 7, 2))
  maps = metrics.random_attribution(KEY, x)
  assert maps.shape == x.shape
  np.testing.assert_array_equal(maps, metrics.random_attribution(KEY, 0 * x))
  other = metrics.random_attribution(jax.random.key(1), x)
  assert abs(np.corrcoef(maps.ravel(), other.ravel())[0, 1]) < 0.2
  assert (
    metrics.random_attribution(KEY, x.astype('bfloat16')).dtype == 'float32'
  )


def test_every_table_has_the_control():
  apply_fn, params, x, target = h.network()
  deletion = lambda maps: (
    metrics.deletion(apply_fn, params, x, target, maps, steps=4).auc
  )
  maps = h.gradient(apply_fn, params, x, target)
  found = metrics.compare(
    {'gradient': maps, 'nothing': jnp.zeros_like(x)},
    {'deletion': deletion, 'Gini': metrics.sparseness},
    x,
    key=KEY,
  )
  assert found.methods == ('gradient', 'nothing', 'random map (control)')
  assert found.values.shape == (3, 2, 3)
  control = deletion(metrics.random_attribution(KEY, x))
  np.testing.assert_allclose(found.values[2, 0], control, rtol=1e-6)
  lines = found.table().splitlines()
  assert lines[0] == '| method | deletion | Gini |'
  assert len(lines) == 5
  assert lines[3].endswith('| undefined |')
  mean, error = found.values[0, 0].mean(), found.values[0, 0].std(ddof=1)
  assert f'{mean:.3g} ± {error / 3**0.5:.1g}' in lines[2]


def test_what_is_undefined_is_counted():
  x = h.pictures((3, 4, 4, 1))
  maps = x.at[1].set(0)
  found = metrics.compare({'a': maps}, {'Gini': metrics.sparseness}, x, key=KEY)
  assert '(1 undefined)' in found.table().splitlines()[2]


def test_a_metric_of_no_numbers_and_a_name_that_is_taken():
  x = h.pictures((3, 4, 4, 1))
  compare = functools.partial(metrics.compare, x=x, key=KEY)
  with pytest.raises(metrics.MetricError, match="'mean' must return"):
    compare({'a': x}, {'mean': jnp.mean})
  with pytest.raises(metrics.MetricError, match='name'):
    compare({'random map (control)': x}, {})
