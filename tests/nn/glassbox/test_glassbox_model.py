"""GlassBox from pictures to labels, and what it refuses."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bort_jax import inversion, metrics, symmetry
from bort_jax.nn import glassbox
from bort_jax.train import load_dataset


@pytest.fixture(scope='module')
def digits():
  data = load_dataset('digits')
  x = data.train_images[:400] / np.float32(255)
  return x[:300], data.train_labels[:300], x[300:], data.train_labels[300:400]


def box(**options):
  return glassbox.GlassBox(components=30, **options)


@pytest.fixture(scope='module')
def fitted(digits):
  x, y, *_ = digits
  features = glassbox.CosineBank(3, cell=1)
  return box(features=features, batch_size=1000).fit(x, y)


def test_turned_digits_are_told_as_well_as_upright_ones(digits, fitted):
  *_, x, y = digits
  accuracy = fitted.score(x, y)
  assert accuracy > 0.7
  turned = np.rot90(x, axes=(1, 2))
  assert fitted.score(turned, y) == accuracy
  plain = box(parts=('plain',)).fit(*digits[:2])
  assert plain.score(x, y) > 0.85
  assert plain.score(turned, y) < 0.4
  np.testing.assert_allclose(
    fitted.predict_proba(x), fitted.predict_proba(turned), atol=1e-4
  )


def test_passes_are_padded_and_do_not_matter(digits, fitted):
  *_, x, _ = digits
  whole = fitted.transform(x)
  assert whole.shape == (100, 30)
  fitted.batch_size, before = 8 * 7, fitted.batch_size
  np.testing.assert_allclose(fitted.transform(x), whole, atol=1e-5)
  fitted.batch_size = before


@pytest.mark.parametrize('classifier', ['ridge', 'knn', 'logistic', 'mlp'])
def test_every_classifier_on_labels_of_any_kind(digits, classifier):
  x, y, xs, ys = digits
  names = np.array(list('abcdefghij'))
  if classifier == 'mlp':
    classifier = glassbox.MLP(steps=300)
  model = box(parts=['plain'], classifier=classifier, scale=True)
  model.fit(x, names[y])
  assert list(np.asarray(model.classes)) == list('abcdefghij')
  assert model.predict(xs).dtype == names.dtype
  assert model.score(xs, names[ys]) > 0.8
  assert model.scores(xs).dtype == jnp.float32
  if classifier != 'ridge':
    total = model.predict_proba(xs).sum(1)
    np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_two_classes(digits):
  x, y, xs, ys = digits
  model = box().fit(x[y < 2], y[y < 2])
  assert model.score(xs[ys < 2], ys[ys < 2]) > 0.9
  assert model.scores(xs).shape == (100, 2)


def test_layers_are_named_for_metrics_and_agree(digits, fitted):
  *_, x, y = digits
  outputs, learned = fitted.functional()
  z = jax.jit(inversion.until(outputs, 'reduced'))(learned, x)
  np.testing.assert_allclose(z, fitted.transform(x), atol=1e-5)
  logits = jax.jit(inversion.until(outputs, 'logits'))(learned, x)
  np.testing.assert_allclose(logits, fitted.scores(x), rtol=1e-3, atol=1e-3)
  layers = ['features', 'average', 'logits']
  moved = metrics.equivariance(
    outputs, learned, [x[:40]], group=symmetry.C4, layers=layers
  )
  for layer in layers[1:]:
    assert moved[layer].invariance.max() < 1e-6
  bank = moved['features']
  assert bank.fitted.max() < 1e-6  # a turn swaps filters
  assert bank.natural[1] > 0.05


def network(params, x):
  return {'pool': jax.nn.relu(x.reshape(len(x), -1) @ params)}


def test_features_of_a_network(digits):
  x, y, *_ = digits
  params = jnp.asarray(np.random.default_rng(0).normal(size=(64, 40)))
  made = box(
    features=inversion.until(network, 'pool'),
    feature_params=params,
    group=symmetry.C4,
    parts=['average'],
  ).fit(x, y)
  assert made.transform(x[:3]).shape == (3, 30)
  missing = box(features=inversion.until(network, 'pol'), feature_params=params)
  with pytest.raises(inversion.InversionError, match="Did you mean 'pool'"):
    missing.fit(x, y)


def test_scikit_learn_is_needed_by_two_settings_alone(digits, monkeypatch):
  x, y, *_ = digits
  real = importlib.import_module

  def without(name, package=None):
    if name.startswith('sklearn'):
      raise ModuleNotFoundError(name)
    return real(name, package)

  monkeypatch.setattr(importlib, 'import_module', without)
  for options, user in (
    ({'classifier': 'knn'}, "classifier='knn'"),
    ({'scale': True}, 'scale=True'),
  ):
    with pytest.raises(glassbox.GlassBoxError, match='needs scikit-learn') as e:
      box(parts=['plain'], **options).fit(x, y)
    assert user in str(e.value)
    assert "'bort-jax[train]'" in str(e.value)
  box(parts=['plain']).fit(x, y)


X, Y = jnp.zeros((6, 4, 4, 1)), np.arange(6) % 2


@pytest.mark.parametrize(
  ('call', 'match'),
  [
    (lambda: box(parts=['mean']), 'some of plain, average'),
    (lambda: box(parts='average'), 'must be a list'),
    (lambda: box(parts=[]), 'must be a list'),
    (lambda: box(parts=['average', 'average']), 'each once'),
    (lambda: box(classifier='svm'), r'one of lda.*glassbox.KNN'),
    (lambda: box(batch_size=0), 'batch_size must be'),
    (lambda: box().predict(X), r'not fitted yet: call fit\(x, y\)'),
    (lambda: box().fit(X, Y), '1 … 5, got 30: 6 rows'),
    (lambda: box().fit(X[..., 0], Y), 'axis for one channel'),
    (lambda: box().fit(X.astype(int), Y), 'Convert integers'),
    (lambda: box().fit(X.at[3, 0, 0].set(jnp.nan), Y), 'Leave those pictures'),
    (
      lambda: glassbox.GlassBox(
        components=3, classifier=glassbox.LDA(shrinkage=0.0)
      ).fit(X, Y),
      'more shrinkage or penalty',
    ),
    (lambda: box().fit(X, Y[:5]), r'labels \(6,\)'),
    (lambda: box().fit(X, 0 * Y), 'two classes or more, but every'),
    (lambda: box().fit(X, Y, np.array([0, 1, 7])), 'No picture is of class 7'),
    (
      lambda: box().fit(X, Y, np.array([0])),
      'of class 1, which is not in',
    ),
    (lambda: box().fit(X[:, :3], Y), 'must be square.*3×4'),
  ],
)
def test_refuses(call, match):
  with pytest.raises(ValueError, match=match):
    call()


def test_ridge_has_no_probabilities(digits):
  model = box(parts=['plain'], classifier='ridge').fit(*digits[:2])
  with pytest.raises(glassbox.GlassBoxError, match="'lda' or 'logistic'"):
    model.predict_proba(digits[2])
