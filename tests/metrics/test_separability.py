"""Separability in constant memory is that of all pairs at once."""

import jax
import jax.numpy as jnp
import metric_helpers as h
import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from bort_jax import inversion, metrics

KEY = jax.random.key(0)


def rows(n=30, d=3, classes=3, shift=0.0):
  rng = np.random.default_rng(n)
  labels = np.arange(n) % classes
  x = rng.normal(size=(n, d)) + labels[:, None] + shift
  return x.astype(np.float32), labels


def by_pairs(x, labels):
  x = x.astype(np.float64)
  squared = ((x[:, None] - x) ** 2).sum(-1)
  same = labels[:, None] == labels
  pairs = same & ~np.eye(len(x), dtype=bool)
  means = np.stack([x[labels == k].mean(0) for k in np.unique(labels)])
  sizes = np.bincount(labels)
  between = sizes @ ((means - x.mean(0)) ** 2).sum(1)
  within = ((x - means[labels]) ** 2).sum()
  intra, inter = np.sqrt(squared[pairs].mean()), np.sqrt(squared[~same].mean())
  return {
    'intra': intra,
    'inter': inter,
    'ratio': inter / intra,
    'fisher': between / within,
    'silhouette': silhouette_score(x, labels),
  }


def streamed(x, labels, sizes, sample=100):
  spread = metrics.ClassSpread.start(
    x.shape[1], labels.max() + 1, key=KEY, sample=sample
  )
  for part in np.split(np.arange(len(x)), np.cumsum(sizes)):
    if len(part):
      spread = spread.add(x[part], labels[part])
  return spread


# far from zero, sums of squares would lose every digit
@pytest.mark.parametrize('shift', [0.0, 3000.0])
def test_measures_are_those_of_all_pairs(shift):
  x, labels = rows(shift=shift)
  found = streamed(x, labels, [12, 6]).result()
  for name, expected in by_pairs(x, labels).items():
    np.testing.assert_allclose(
      getattr(found, name), expected, rtol=1e-3 if shift else 1e-5
    )


@pytest.mark.parametrize('sizes', [[12, 6], [1, 12]])
def test_batches_do_not_matter(sizes):
  x, labels = rows()
  whole = streamed(x, labels, [], sample=10)
  parts = streamed(x, labels, sizes, sample=10)
  np.testing.assert_array_equal(
    np.sort(whole.priority), np.sort(parts.priority)
  )
  for one, other in zip(whole.result(), parts.result(), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4)


def test_the_sample_is_drawn_of_all_rows_alike():
  x = np.arange(400.0, dtype=np.float32)[:, None]
  spread = streamed(x, np.arange(400) % 2, [100, 100, 100], sample=100)
  kept = np.asarray(spread.sample[:, 0])
  assert len(set(kept.tolist())) == 100
  counts = np.histogram(kept, 4, (0, 400))[0]
  assert counts.min() > 10
  assert set(np.asarray(spread.sample_labels)) == {0, 1}


def test_silhouettes_with_single_rows_and_rows_that_do_not_count():
  x = jnp.array([[0.0], [1.0], [5.0], [np.nan]])
  labels = jnp.array([0, 0, 1, 1])
  where = jnp.array([True, True, True, False])
  found = metrics.silhouette(x, labels, 4, where=where)
  np.testing.assert_allclose(found, [0.8, 0.75, 0.0, np.nan], rtol=1e-6)
  alone = metrics.silhouette(x[:2], labels[:2], 2)
  assert np.isnan(alone).all()


def test_layers_of_a_network_by_name_and_number():
  params, x = h.conv_params(2), h.pictures((12, 5, 5, 2))
  labels = jnp.arange(12) % 2
  batches = [(x[:6], labels[:6]), (x[6:], labels[6:])]
  found = metrics.separability(
    h.convolutional, params, batches, layers=[1], num_classes=2, key=KEY
  )
  assert list(found) == ['input', 1]
  code = inversion.until(h.convolutional, 1)(params, x)
  for name, value in {'input': x, 1: code}.items():
    expected = by_pairs(np.asarray(h.flat(value)), np.asarray(labels))
    for field, number in expected.items():
      np.testing.assert_allclose(
        getattr(found[name], field), number, rtol=1e-4, atol=1e-6
      )


def test_nothing_is_compiled_again():
  params, x = h.conv_params(2), h.pictures((6, 5, 5, 2))
  batches = [(x, jnp.arange(6) % 2)]
  run = lambda params: metrics.separability(
    h.convolutional, params, batches, layers=[1], num_classes=2, key=KEY
  )
  run(params)
  with h.compilations() as count:
    run(jax.tree.map(lambda a: 2 * a, params))
  assert len(count) <= 2  # the doubling of two shapes


def test_what_is_not_known_is_undefined_and_shorts_and_wides_work():
  x, labels = rows()

  def run(x, labels):
    spread = metrics.ClassSpread.start(3, 3, key=KEY, dtype=x.dtype)
    return spread.add(x, labels).result()

  compiled = jax.jit(run)
  assert np.isfinite(compiled(x, labels)).all()
  for wrong in (np.where(labels == 2, 3, labels), np.minimum(labels, 1)):
    assert np.isnan(compiled(x, wrong)).all()
  short = compiled(jnp.asarray(x, jnp.bfloat16), labels)
  assert short.intra.dtype == jnp.float32
  with jax.enable_x64(True):
    wide = run(jnp.asarray(x, jnp.float64), labels)
    assert wide.intra.dtype == jnp.float64


def outputs(params, x):
  return {'mean': x.mean((1, 2)), 'sum': x.sum()}


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'layers': ['mena']}, "no layer 'mena'.*Did you mean 'mean'"),
    ({'layers': ['sum']}, 'a row for each picture'),
    ({'layers': []}, 'at least one'),
    ({'layers': 'mean'}, 'list of layers'),
    ({'layers': ['mean', 'mean']}, 'given twice'),
    ({'layers': ['input']}, 'the pictures themselves'),
    ({'num_classes': 4}, r'No picture is of class 2, 3.*0 … 1'),
    ({'num_classes': 1}, 'num_classes must be at least 2'),
    ({'sample': 1}, 'sample must be at least 2'),
    ({'batches': []}, 'nothing in it'),
    ({'batches': [(jnp.ones((2, 3, 3, 1)), [0, 2])]}, 'labels 2 does not'),
  ],
)
def test_refuses(options, match):
  given = {
    'batches': [(h.pictures((4, 3, 3, 1)), [0, 1, 0, 1])],
    'layers': ['mean'],
    'num_classes': 2,
    'key': KEY,
  }
  given |= options
  batches = given.pop('batches')
  with pytest.raises(ValueError, match=match):
    metrics.separability(outputs, None, batches, **given)
