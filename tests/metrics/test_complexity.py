"""Sparseness and complexity of maps whose numbers are known."""

import jax
import jax.numpy as jnp
import metric_helpers as h
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from bort_jax import metrics

BOTH = pytest.mark.parametrize(
  'metric', [metrics.sparseness, metrics.complexity]
)


@settings(deadline=None, max_examples=8)
@given(
  st.sampled_from([(2, 2, 3), (1, 4, 4, 3), (3, 1, 1, 2)]),
  st.sampled_from([0, 2]),
  st.sampled_from(['float32', 'float64', 'bfloat16']),
)
def test_they_are_what_their_definitions_say(shape, levels, dtype):
  with jax.enable_x64(dtype == 'float64'):
    maps = h.pictures(shape, dtype=jnp.dtype(dtype)) - 0.5
    if levels:
      maps = jnp.round(levels * maps + 0.6)
    values = np.abs(np.asarray(maps, np.float64)).reshape(shape[0], -1)
    gini, entropy = metrics.sparseness(maps), metrics.complexity(maps)
    for i, v in enumerate(values):
      if not v.any():
        assert np.isnan(gini[i])
        assert np.isnan(entropy[i])
        continue
      pairs = np.abs(v[:, None] - v[None]).sum()
      expected = pairs / (2 * v.size * v.sum())
      rtol = 1e-12 if dtype == 'float64' else 1e-4
      np.testing.assert_allclose(gini[i], expected, rtol=rtol, atol=rtol)
      expected = scipy.stats.entropy(v)
      np.testing.assert_allclose(entropy[i], expected, rtol=rtol, atol=rtol)


@BOTH
@pytest.mark.parametrize('scale', [1e-30, 1e30, -1.0])
def test_scale_and_sign_do_not_matter(metric, scale):
  maps = h.pictures((2, 5, 5, 1)) + 0.1
  np.testing.assert_allclose(metric(scale * maps), metric(maps), rtol=1e-5)


@BOTH
def test_of_nothing_it_is_undefined(metric):
  maps = h.pictures((4, 3, 3)).at[0].set(0).at[1, 0, 0].set(jnp.nan)
  maps = maps.at[2, 1, 1].set(-jnp.inf)
  assert np.isnan(metric(maps)).tolist() == [True, True, True, False]
  np.testing.assert_allclose(jax.jit(metric)(maps), metric(maps))


@BOTH
def test_the_map_that_is_given_stays(metric):
  maps = np.ones((1, 2, 2))
  metric(maps)
  assert (maps == 1).all()
