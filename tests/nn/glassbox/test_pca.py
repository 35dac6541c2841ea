"""Principal components, beside scikit-learn's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.decomposition
from helpers import random_array

from bort_jax.nn import glassbox


def spread_rows(n, d):
  """Rows whose variances fall off by axis, turned at random."""
  scales = 2.0 ** -np.arange(d)
  turn = np.linalg.qr(random_array(0, (d, d)))[0]
  return jnp.asarray(random_array(1, (n, d)) * scales @ turn + 3)


@pytest.mark.parametrize('shape', [(30, 8), (6, 20)])
@pytest.mark.parametrize('key', [None, 0])
def test_is_that_of_scikit_learn(shape, key, float64):
  rows = spread_rows(*shape)
  key = None if key is None else jax.random.key(key)
  pca = glassbox.fit_pca(rows, 4, key=key)
  peer: Any = sklearn.decomposition.PCA(4, svd_solver='full').fit(rows)
  np.testing.assert_allclose(pca.variances, peer.explained_variance_, rtol=1e-9)
  np.testing.assert_allclose(
    pca.shares, peer.explained_variance_ratio_, rtol=1e-9
  )
  signs = np.sign(np.sum(pca.directions * peer.components_.T, axis=0))[None]
  np.testing.assert_allclose(
    pca.directions * signs, peer.components_.T, atol=1e-7
  )
  reduced = glassbox.reduce(pca, rows)
  np.testing.assert_allclose(reduced * signs, peer.transform(rows), atol=1e-7)
  gram = pca.directions.T @ pca.directions
  np.testing.assert_allclose(gram, np.eye(4), atol=1e-9)
  largest = np.abs(pca.directions).argmax(0)
  assert (np.asarray(pca.directions)[largest, np.arange(4)] > 0).all()


def test_equal_rows_have_no_shares_and_shorts_are_widened():
  pca = glassbox.fit_pca(jnp.ones((4, 3)), 2)
  np.testing.assert_array_equal(pca.variances, 0)
  assert np.isnan(pca.shares).all()
  short = glassbox.fit_pca(jnp.asarray(spread_rows(9, 4), jnp.bfloat16), 2)
  assert short.directions.dtype == jnp.float32


def test_repeated_rows_give_finite_orthonormal_directions():
  rows = jnp.asarray(random_array(2, (3, 40)), jnp.float32)
  pca = glassbox.fit_pca(jnp.tile(rows, (3, 1)), 7)  # of rank two
  gram = pca.directions.T @ pca.directions
  np.testing.assert_allclose(gram, np.eye(7), atol=1e-5)
  assert pca.variances[2:].max() < 1e-5 * pca.variances[1]
  reduced = glassbox.reduce(pca, rows)
  assert jnp.abs(reduced[:, 2:]).max() < 1e-3


@pytest.mark.parametrize(
  ('rows', 'components', 'match'),
  [
    (jnp.ones((4, 9)), 4, '1 … 3, got 4: 4 rows of 9.*give more pictures'),
    (jnp.ones((9, 4)), 5, '1 … 4, got 5'),
    (jnp.ones((9, 4)), 0, '1 … 4, got 0'),
    (jnp.ones((9, 4)), 0.9, 'integer'),
    (jnp.ones((9, 4), int), 2, 'must be floats'),
    (jnp.ones(9), 2, r'\(N, D\)'),
  ],
)
def test_refuses(rows, components, match):
  with pytest.raises(glassbox.GlassBoxError, match=match):
    glassbox.fit_pca(rows, components)
