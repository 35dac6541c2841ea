"""Correlations against SciPy, ties included."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from bort_jax.metrics.correlation import average_ranks, pearson, spearman


def rows(shape, levels, seed):
  """Numbers, of few values where there are levels."""
  rng = np.random.default_rng(seed)
  if levels:
    return rng.integers(0, levels + 1, shape).astype(float)
  return rng.normal(size=shape)


@settings(deadline=None, max_examples=20)
@given(
  st.sampled_from([(1, 2), (3, 7), (2, 40)]),
  st.sampled_from([0, 1, 3]),
  st.integers(0, 3),
)
def test_ranks_and_correlations_are_scipys(shape, levels, seed):
  a, b = rows(shape, levels, seed), rows(shape, levels, seed + 10)
  with jax.enable_x64(True):
    np.testing.assert_array_equal(
      average_ranks(jnp.asarray(a)), scipy.stats.rankdata(a, axis=1)
    )
    for ours, theirs in (
      (pearson, scipy.stats.pearsonr),
      (spearman, scipy.stats.spearmanr),
    ):
      found = ours(jnp.asarray(a), jnp.asarray(b))
      for i in range(shape[0]):
        if np.ptp(a[i]) and np.ptp(b[i]):
          expected: Any = theirs(a[i], b[i])
          np.testing.assert_allclose(found[i], expected[0], atol=1e-12)
        else:
          assert np.isnan(found[i])


@pytest.mark.parametrize('scale', [1e-30, 1e30])
def test_size_does_not_matter(scale):
  a = jax.random.normal(jax.random.key(0), (2, 50))
  b = a + jax.random.normal(jax.random.key(1), (2, 50))
  expected = pearson(a, b)
  np.testing.assert_allclose(pearson(scale * a, b), expected, rtol=1e-4)


def test_what_is_not_finite_has_no_correlation():
  a = jnp.array([[1.0, 2, jnp.nan], [1, 2, jnp.inf], [1, 2, 4]])
  b = jnp.array([[1.0, 2, 3]] * 3)
  for correlation in (pearson, spearman):
    assert np.isnan(correlation(a, b)).tolist() == [True, True, False]


def test_a_constant_whose_mean_is_rounded_has_none():
  a = jnp.full((1, 300), 0.1)
  b = jax.random.normal(jax.random.key(0), (1, 300))
  assert np.isnan(pearson(a, b))[0]
