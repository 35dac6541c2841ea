"""Classifiers, beside scikit-learn's where it has the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as RidgeRegression

from bort_jax.nn import glassbox

KEY = jax.random.key(0)


def rows(classes, n=40):
  rng = np.random.default_rng(classes)
  labels = rng.permutation(np.arange(n) % classes)
  z = rng.normal(size=(n, 3)) + 1.5 * np.eye(4)[labels, :3]
  return jnp.asarray(z), jnp.asarray(labels)


@pytest.mark.parametrize('classes', [2, 4])
def test_lda_is_that_of_scikit_learn(classes, float64):
  z, labels = rows(classes)
  lda = glassbox.LDA(shrinkage=0.1)
  found = lda.probabilities(lda.fit(z, labels, classes, KEY), z)
  peer = LinearDiscriminantAnalysis(solver='lsqr', shrinkage=0.1)
  np.testing.assert_allclose(
    found, peer.fit(z, labels).predict_proba(z), atol=1e-9
  )


@pytest.mark.parametrize('classes', [2, 4])
def test_ridge_is_that_of_scikit_learn(classes, float64):
  z, labels = rows(classes)
  ridge = glassbox.Ridge(penalty=3.0)
  fitted = ridge.fit(z, labels, classes, KEY)
  targets = 2 * np.eye(classes)[labels] - 1
  peer = RidgeRegression(alpha=3.0).fit(z, targets)
  np.testing.assert_allclose(
    ridge.scores(fitted, z), peer.predict(z), atol=1e-9
  )


def test_logistic_is_that_of_scikit_learn(float64):
  z, labels = rows(4)
  logistic = glassbox.Logistic(penalty=2.0, tolerance=1e-9)
  found = logistic.probabilities(logistic.fit(z, labels, 4, KEY), z)
  peer = LogisticRegression(C=0.5, tol=1e-10, max_iter=1000).fit(z, labels)
  np.testing.assert_allclose(found, peer.predict_proba(z), atol=1e-6)


def test_a_perceptron_learns_what_no_line_divides():
  z = np.random.default_rng(0).uniform(-5, 5, (200, 2)).astype(np.float32)
  labels = (z[:, 0] * z[:, 1] > 0).astype(int)
  mlp = glassbox.MLP(hidden=32, steps=300, learning_rate=0.01)

  def learned(classifier, key):
    fitted = classifier.fit(z, labels, 2, key)
    best = np.argmax(classifier.scores(fitted, z), axis=1)
    return fitted, np.mean(best == labels)

  (one, share), (two, _) = (learned(mlp, jax.random.key(k)) for k in (0, 1))
  assert share > 0.95
  assert learned(glassbox.LDA(), KEY)[1] < 0.7
  assert np.any(np.asarray(one.head.weights) != np.asarray(two.head.weights))


@pytest.mark.parametrize(
  ('make', 'match'),
  [
    (lambda: glassbox.LDA(shrinkage=2.0), '0 … 1'),
    (lambda: glassbox.LDA(shrinkage=-1.0), 'LDA: shrinkage must be'),
    (lambda: glassbox.Ridge(penalty=float('nan')), 'Ridge: penalty'),
    (lambda: glassbox.Logistic(penalty=-1.0), 'Logistic: penalty'),
    (lambda: glassbox.MLP(hidden=0), 'hidden must'),
    (
      lambda: glassbox.MLP(steps=2.5),  # pyright: ignore[reportArgumentType]
      'steps must be an integer',
    ),
    (lambda: glassbox.KNN(neighbors=0), 'integer ≥ 1'),
    (
      lambda: glassbox.KNN(9).fit(jnp.ones((3, 1)), jnp.arange(3), 3, KEY),
      'ask fewer',
    ),
  ],
)
def test_refuses(make, match):
  with pytest.raises(glassbox.GlassBoxError, match=match):
    make()
