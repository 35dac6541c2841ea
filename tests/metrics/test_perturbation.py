"""Curves of deletion and insertion, against their published definitions."""

import functools

import jax
import jax.numpy as jnp
import metric_helpers as h
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from bort_jax import metrics
from bort_jax.metrics.ranking import pixel_ranks

CURVES = {'deletion': metrics.deletion, 'insertion': metrics.insertion}
BOTH = pytest.mark.parametrize('direction', list(CURVES))
CONVENTIONS = ('rise', 'xplique', 'quantus', 'logit_ratio')


def tied_maps(shape, levels, seed=0):
  """Maps of few values, so that many pixels are equal."""
  rng = np.random.default_rng(seed)
  return rng.integers(-levels, levels + 1, shape) / 4


@settings(deadline=None, max_examples=4)
@given(
  st.sampled_from([(1, 3, 4, 1), (2, 5, 5, 3), (3, 4, 6, 2)]),
  st.sampled_from(['deletion', 'insertion']),
  st.integers(1, 7),
  st.integers(0, 3),
)
def test_rise_to_rounding_with_ties(shape, direction, step, levels):
  with jax.enable_x64(True):
    apply_fn, params, x, target = h.network(shape, dtype=jnp.float64)
    maps = tied_maps(shape[:3], levels)
    ours = CURVES[direction](
      apply_fn, params, x, target, maps, pixels_per_step=step
    )
    theirs = h.PUBLISHED['rise'](
      h.numpy_logits(apply_fn, params),
      np.asarray(x),
      np.asarray(target),
      maps,
      step,
      direction == 'insertion',
    )
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-12)
    np.testing.assert_allclose(ours.published_auc, theirs.auc, atol=1e-12)


@settings(deadline=None, max_examples=4)
@given(
  st.sampled_from([(1, 3, 4, 1), (2, 5, 5, 3), (3, 4, 6, 2)]),
  st.sampled_from(['deletion', 'insertion']),
  st.integers(1, 12),
  st.integers(0, 3),
)
def test_xplique_to_rounding_with_ties(shape, direction, steps, levels):
  with jax.enable_x64(True):
    apply_fn, params, x, target = h.network(shape, dtype=jnp.float64)
    maps = tied_maps(shape, levels)
    ours = CURVES[direction](
      apply_fn, params, x, target, maps, steps=steps, convention='xplique'
    )
    theirs = h.PUBLISHED['xplique'](
      h.numpy_logits(apply_fn, params),
      np.asarray(x),
      np.asarray(target),
      maps,
      steps,
      direction == 'insertion',
    )
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-12)
    np.testing.assert_allclose(ours.published_auc, theirs.auc, atol=1e-12)


@BOTH
def test_logit_ratio_is_over_the_whole_pictures(direction, float64):
  apply_fn, params, x, target = h.network((2, 6, 7, 3), dtype=jnp.float64)
  maps = tied_maps(x.shape[:3], 9)
  case = apply_fn, params, x, target, maps
  ours = CURVES[direction](*case, convention='logit_ratio')
  plain = CURVES[direction](*case, pixels_per_step=10, score='logit')
  whole = apply_fn(params, x)[jnp.arange(2), target]
  expected = plain.scores / whole[:, None]
  np.testing.assert_allclose(ours.scores, expected, atol=1e-12)
  np.testing.assert_allclose(
    ours.published_auc, expected.mean(axis=1), atol=1e-12
  )
  assert ours.scores.shape == (2, 6)  # ⌈42 / 10⌉ steps


def test_a_ratio_to_zero_is_nan():
  x = jnp.ones((2, 1, 2, 1)).at[1].set(0)
  case = h.linear, jnp.ones((2, 2)), x, jnp.zeros(2, int), x
  found = metrics.deletion(*case, convention='logit_ratio', steps=2)
  assert found.scores[0].tolist() == [1, 0.5, 0]
  assert np.isnan(found.scores[1]).all()
  assert np.isnan(found.auc).tolist() == [False, True]


@BOTH
@pytest.mark.parametrize('convention', CONVENTIONS)
def test_areas_are_over_true_fractions(direction, convention):
  apply_fn, params, x, target = h.network((2, 5, 5, 1))
  found = CURVES[direction](
    apply_fn, params, x, target, x, steps=4, convention=convention
  )
  assert found.fractions[0] == 0
  assert found.fractions[-1] == 1
  expected = np.trapezoid(found.scores, found.fractions, axis=1)
  np.testing.assert_allclose(found.auc, expected, rtol=1e-6)
  exact = np.linspace(0, 25, 5)
  counts = np.floor(exact) if convention == 'xplique' else np.round(exact)
  np.testing.assert_allclose(found.fractions, counts / 25, rtol=1e-6)


def test_what_a_convention_sets_is_told():
  apply_fn, params, x, target = h.network((1, 4, 8, 1))
  told = {
    name: (found.score, found.baseline, found.ties, found.scores.shape[1])
    for name in CONVENTIONS
    for found in [
      metrics.insertion(apply_fn, params, x, target, x, convention=name)
    ]
  }
  assert told == {
    'rise': ('softmax', 'blur', 'high', 5),
    'xplique': ('logit', '0', 'high', 11),
    'quantus': ('softmax', 'min', 'low', 33),
    'logit_ratio': ('logit_ratio', 'blur', 'high', 5),
  }


def test_the_authors_settings_of_large_pictures():
  x = jnp.ones((1, 224, 224, 1))
  weights = jnp.ones((224 * 224, 2)) / 224**2
  found = metrics.insertion(
    h.linear, weights, x, jnp.array([0]), x, convention='logit_ratio'
  )
  assert found.baseline == 'blur31'
  assert found.scores.shape == (1, 29)  # 28 steps of 8 rows


@pytest.mark.parametrize(
  ('size', 'shape'), [(11, (5, 30, 2)), (31, (40, 7, 1))]
)
def test_blur_is_that_of_a_filtered_point(size, shape, float64):
  x = h.pictures((2, *shape), dtype=jnp.float64)
  point = np.zeros((size, size))
  point[size // 2, size // 2] = 1
  kernel = scipy.ndimage.gaussian_filter(point, 5)
  expected = scipy.ndimage.correlate(
    np.asarray(x), kernel[None, :, :, None], mode='constant'
  )
  np.testing.assert_allclose(metrics.blurred(x, size), expected, atol=1e-12)


@pytest.mark.parametrize(
  ('baseline', 'expected'),
  [
    (0.25, lambda x: jnp.full_like(x, 0.25)),
    (
      jnp.array([0.1, 0.7]),
      lambda x: jnp.zeros_like(x).at[..., :].set([0.1, 0.7]),
    ),
    (
      'mean',
      lambda x: jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape),
    ),
    (
      'min',
      lambda x: jnp.broadcast_to(x.min((1, 2, 3), keepdims=True), x.shape),
    ),
    ('blur', metrics.blurred),
  ],
)
def test_the_last_point_is_of_the_substrate(baseline, expected):
  apply_fn, params, x, target = h.network()
  found = metrics.deletion(
    apply_fn, params, x, target, x, steps=3, score='logit', baseline=baseline
  )
  want = apply_fn(params, expected(x))[jnp.arange(len(x)), target]
  np.testing.assert_allclose(found.scores[:, -1], want, rtol=1e-4, atol=1e-5)


def test_the_mean_does_not_drift():
  x = jnp.array([0.0, 1.0, 2.0, 9.0]).reshape(1, 2, 2, 1)
  found = metrics.deletion(
    h.linear,
    jnp.eye(4),
    x,
    jnp.array([3]),
    x,
    steps=4,
    score='logit',
    baseline='mean',
  )
  np.testing.assert_allclose(found.scores[0], [9, 3, 3, 3, 3])


@settings(deadline=None, max_examples=10)
@given(
  st.sampled_from([(1, 1, 1), (2, 3, 4), (1, 5, 2)]),
  st.sampled_from(['low', 'high']),
  st.integers(0, 3),
  st.sampled_from(['float32', 'bfloat16', 'float16', 'int32']),
)
def test_ranks_are_those_of_a_stable_sort(shape, ties, levels, dtype):
  maps = tied_maps(shape, levels) * 4
  ranks = pixel_ranks(jnp.asarray(maps, dtype)[..., None], ties)
  pixels = maps.reshape(len(maps), -1)
  order = np.argsort(-pixels, axis=1, kind='stable')
  if ties == 'high':
    order = np.argsort(pixels, axis=1, kind='stable')[:, ::-1]
  np.testing.assert_array_equal(
    np.take_along_axis(np.asarray(ranks).reshape(pixels.shape), order, 1),
    np.broadcast_to(np.arange(pixels.shape[1]), pixels.shape),
  )


def test_zeros_of_either_sign_are_equal():
  maps = jnp.array([0.0, -0.0, 0.0]).reshape(1, 1, 3, 1)
  assert pixel_ranks(maps, 'low').ravel().tolist() == [0, 1, 2]


@BOTH
@pytest.mark.parametrize('chunk', [2, 5, 100])
def test_chunks_change_nothing(direction, chunk):
  case = (*h.network((3, 4, 5, 2)), h.pictures((3, 4, 5)))
  whole = CURVES[direction](*case, steps=6)
  parts = CURVES[direction](*case, steps=6, chunk=chunk)
  np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-5)


def test_maps_of_any_form_rank_alike():
  apply_fn, params, x, target = h.network()
  maps = h.pictures(x.shape[:3])
  forms = maps, maps[..., None], jnp.stack([maps / 4, 3 * maps / 4], -1)
  curves = [
    metrics.deletion(apply_fn, params, x, target, form, steps=5).scores
    for form in forms
  ]
  np.testing.assert_array_equal(curves[0], curves[1])
  np.testing.assert_allclose(curves[0], curves[2], rtol=1e-6)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16', 'float64'])
def test_types(dtype):
  with jax.enable_x64(dtype == 'float64'):
    apply_fn, params, x, target = h.network(dtype=jnp.dtype(dtype))
    found = metrics.deletion(apply_fn, params, x, target, x, steps=4)
    wide = jnp.float64 if dtype == 'float64' else jnp.float32
    assert found.scores.dtype == found.auc.dtype == wide
    assert np.isfinite(found.auc).all()


def test_a_map_that_is_not_finite_is_undefined_alone():
  apply_fn, params, x, target = h.network()
  for bad in (jnp.nan, jnp.inf):
    maps = x.at[1, 0, 0, 0].set(bad)
    found = metrics.deletion(apply_fn, params, x, target, maps, steps=4)
    assert np.isnan(found.auc).tolist() == [False, True, False]


def test_the_least_important_may_go_first():
  weights = jnp.array([[4.0], [-2.0], [1.0], [1.0]])
  x = jnp.ones((1, 2, 2, 1))
  maps = weights.reshape(1, 2, 2)
  curve = metrics.deletion(
    h.linear,
    weights,
    x,
    jnp.array([0]),
    maps,
    steps=4,
    score='logit',
    first='smallest',
  )
  np.testing.assert_allclose(curve.scores, [[4.0, 6.0, 5.0, 4.0, 0.0]])
  assert curve.first == 'smallest'
  with pytest.raises(metrics.MetricError, match='first must be one of'):
    metrics.deletion(
      h.linear,
      weights,
      x,
      jnp.array([0]),
      maps,
      first='least',  # pyright: ignore[reportArgumentType]
    )


def test_a_constant_map_goes_by_the_tie_rule():
  x = jnp.arange(1.0, 5).reshape(1, 2, 2, 1)
  case = h.linear, jnp.ones((4, 1)), x, jnp.array([0]), jnp.ones((1, 2, 2))
  curve = functools.partial(metrics.deletion, *case, score='logit', steps=4)
  assert curve(ties='low').scores[0].tolist() == [10, 9, 7, 4, 0]
  assert curve(ties='high').scores[0].tolist() == [10, 6, 3, 1, 0]


@BOTH
def test_jit_and_vmap_change_nothing(direction):
  apply_fn, params, x, target = h.network()
  curve = functools.partial(CURVES[direction], apply_fn, steps=5)
  eager = curve(params, x, target, x)
  jitted = jax.jit(curve)(params, x, target, x)
  np.testing.assert_allclose(jitted.scores, eager.scores, rtol=1e-5)
  assert jitted.convention == 'rise'
  others = jnp.stack([target, (target + 1) % 4])
  mapped = jax.vmap(lambda target: curve(params, x, target, x))(others)
  np.testing.assert_allclose(mapped.auc[0], eager.auc, rtol=1e-5)
  assert not np.allclose(mapped.auc[1], eager.auc)


@BOTH
def test_a_second_call_compiles_nothing(direction):
  apply_fn, params, x, target = h.network()
  own, others = (lambda params, x: apply_fn(params, x)), x + 0.1
  with h.compilations() as first:
    CURVES[direction](own, params, x, target, x, steps=5)
  with h.compilations() as second:
    CURVES[direction](own, params, others, target, others, steps=5)
  assert first
  assert not second
