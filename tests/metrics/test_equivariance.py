"""Layers that move with their pictures, and layers that do not."""

import jax
import jax.numpy as jnp
import metric_helpers as h
import numpy as np
import pytest

from bort_jax import metrics, symmetry
from bort_jax.symmetry import C4, D4, Shifts


def mirrored(params, x):
  """Two filters that a mirror swaps, a layer of no law, and a mean."""
  pair = jnp.stack([params, params[:, ::-1]], axis=-1)
  code = jax.nn.relu(h.convolved(x, pair))
  flat = jnp.mean(code, axis=(1, 2))
  return {
    'pair': code,
    'square': x**2,
    'norm': jnp.sum(x**2, axis=(1, 2)),
    'flat': flat,
    'places': code * jnp.arange(1.0, 7.0).reshape(1, 6, 1, 1)[:, : x.shape[1]],
    'odd': code[:, :5, :4],
  }


LAYERS = ['pair', 'square', 'norm', 'flat', 'places', 'odd']
KERNEL = jax.random.normal(jax.random.key(3), (3, 3, 1))
X = jax.random.normal(jax.random.key(4), (24, 6, 6, 1))


@pytest.fixture(scope='module')
def found():
  batches = [X[:12], X[12:]]
  return metrics.equivariance(
    mirrored, KERNEL, batches, group=D4, layers=LAYERS
  )


def test_the_identity_changes_nothing(found):
  for layer in LAYERS[:-1]:
    for guess in ('natural', 'fitted', 'invariance', 'mixed'):
      assert getattr(found[layer], guess)[0] < 1e-9
    assert found[layer].chance[0] > 0.05


def test_what_is_equivariant_or_invariant_is_found_so(found):
  assert found['square'].natural.max() < 1e-9
  assert found['square'].invariance[1:].min() > 0.1
  assert found['norm'].invariance.max() < 1e-9
  np.testing.assert_array_equal(found['norm'].natural, found['norm'].invariance)


def test_filters_that_a_mirror_swaps_need_the_fitted_map(found):
  mirror = D4.elements.index('mirror')
  pair = found['pair']
  assert pair.natural[mirror] > 0.1
  assert pair.fitted[mirror] < 1e-6
  assert pair.fitted[1] > 0.05  # turned filters are not in the bank
  assert found['flat'].fitted[mirror] < 1e-6
  assert found['places'].fitted[1] > 0.05


def test_maps_that_the_group_cannot_move_have_no_natural_action(found):
  assert np.isnan(found['odd'].natural).all()
  assert np.isnan(found['odd'].fitted).all()
  assert np.isfinite(found['odd'].invariance).all()


def test_errors_are_those_of_the_definition():
  """On the measured half, by numpy, with the best matrix of the other half."""
  layers = mirrored(KERNEL, X)
  moved = mirrored(KERNEL, symmetry.act(D4, 1, X))
  result = metrics.equivariance(
    mirrored, KERNEL, [X], group=D4, layers=['pair'], ridge=0
  )['pair']
  plain, target = (np.asarray(a['pair'], np.float64) for a in (layers, moved))
  guess = np.rot90(plain, axes=(1, 2))
  fit, measure = slice(0, None, 2), slice(1, None, 2)
  energy = np.sum(target[measure] ** 2)
  error = lambda made: np.sum((target[measure] - made[measure]) ** 2) / energy
  np.testing.assert_allclose(result.natural[1], error(guess), rtol=1e-5)
  np.testing.assert_allclose(result.invariance[1], error(plain), rtol=1e-5)
  for u, value in ((guess, result.fitted[1]), (plain, result.mixed[1])):
    matrix = np.linalg.lstsq(
      u[fit].reshape(-1, 2), target[fit].reshape(-1, 2), rcond=None
    )[0]
    np.testing.assert_allclose(value, error(u @ matrix), rtol=1e-4)
  others = [
    np.sum((t - p) ** 2)
    for i, t in enumerate(target[measure])
    for j, p in enumerate(plain[measure])
    if i != j
  ]
  expected = np.mean(others) / (energy / len(target[measure]))
  np.testing.assert_allclose(result.chance[1], expected, rtol=1e-5)


def test_chance_is_not_fitted_where_channels_outnumber_pictures():
  noise = jax.random.normal(jax.random.key(5), (36, 40))
  wide = lambda params, x: {'wide': jnp.tanh(h.flat(x) @ params)}
  result = metrics.equivariance(
    wide, noise, [X[:12]], group=C4, layers=['wide']
  )['wide']
  assert result.fitted[1] > 0.3  # 6 pictures, 40 channels: in-sample it is 0
  assert result.fitted[1] < 5  # and their rounding is not solved for


def test_one_measured_picture_has_no_chance():
  result = metrics.equivariance(
    mirrored, KERNEL, [X[:2]], group=C4, layers=['square']
  )['square']
  assert np.isnan(result.chance).all()
  assert result.natural.max() < 1e-9


def test_shifts_batches_and_float64(float64):
  x = X.astype(jnp.float64)
  circular = lambda params, x: {
    'conv': h.convolved(
      jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], 'wrap'), params
    )[:, 1:-1, 1:-1],
  }
  kernel = KERNEL[..., None].astype(jnp.float64)
  run = lambda batches: metrics.equivariance(
    circular, kernel, batches, group=Shifts(2, 3), layers=['conv']
  )['conv']
  one, two = run([x]), run([x[:12], x[12:]])
  assert one.natural.max() < 1e-28
  assert one.invariance[1:].min() > 0.1
  for whole, parts in zip(one, two, strict=True):
    np.testing.assert_allclose(whole, parts, rtol=1e-9, atol=1e-20)


def test_no_element_is_compiled_for_itself():
  run = lambda: metrics.equivariance(
    mirrored, KERNEL, [X[:16]], group=C4, layers=['square']
  )
  run()
  with h.compilations() as count:
    run()
  assert not count


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'layers': ['pear']}, "Did you mean 'pair'"),
    ({'layers': ['pair', 'pair']}, 'given twice'),
    ({'x': jnp.ones((2, 4, 6, 1))}, '4×6'),
    ({'x': jnp.ones((1, 6, 6, 1))}, 'two pictures or more'),
    ({'x': jnp.ones((2, 6, 6, 1), int)}, 'must be floats'),
    ({'batches': []}, 'nothing in it'),
    ({'ridge': -1.0}, 'ridge must be'),
  ],
)
def test_refuses(options, match):
  given = {'layers': ['pair'], 'group': C4, **options}
  batches = given.pop('batches', [given.pop('x', X)])
  with pytest.raises(ValueError, match=match):
    metrics.equivariance(mirrored, KERNEL, batches, **given)


def test_refuses_tokens():
  tokens = lambda params, x: {'tokens': x.reshape(len(x), -1, 1)}
  with pytest.raises(metrics.MetricError, match='tokens to the grid'):
    metrics.equivariance(tokens, None, [X], group=C4, layers=['tokens'])
