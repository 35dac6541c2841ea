"""Envelopes hold, and are reached where they can be."""

import jax
import jax.numpy as jnp
import metric_helpers as h
import numpy as np
import pytest

from bort_jax import inversion, metrics

CURVES = {'deletion': metrics.deletion, 'insertion': metrics.insertion}
EACH = pytest.mark.parametrize('direction', list(CURVES))


def between(bounds, scores):
  return bool(jnp.all((scores >= bounds.lower) & (scores <= bounds.upper)))


@EACH
@pytest.mark.parametrize('score', ['softmax', 'logit', 'logit_ratio'])
def test_curves_stay_within(direction, score):
  case = (*h.network((4, 6, 6, 1)), h.pictures((4, 6, 6)))
  options = {'steps': 9, 'score': score}
  bounds = metrics.certified_envelope(*case, direction=direction, **options)
  curve = CURVES[direction](*case, **options)
  assert between(bounds, curve.scores)
  np.testing.assert_allclose(bounds.fractions, curve.fractions)
  whole = inversion.certificate(*case[:3]).upper
  np.testing.assert_allclose(bounds.lipschitz, whole, rtol=1e-6)
  start = 0 if direction == 'deletion' else -1
  assert bounds.distance[:, start].tolist() == [0] * 4


@EACH
@pytest.mark.parametrize('score', ['softmax', 'logit', 'logit_ratio'])
@pytest.mark.parametrize('shift', [0.0, 1000.0])
def test_rounding_takes_no_curve_out_of_its_bounds(direction, score, shift):
  """A linear network whose pictures hardly change, so that rounding rules."""
  keys = jax.random.split(jax.random.key(0), 3)
  shifted = lambda params, x: x.reshape(len(x), -1) @ params + shift
  params = jax.random.normal(keys[0], (27, 3))
  x = jax.random.uniform(keys[1], (9, 3, 3, 3))
  target = jnp.arange(9) % 3
  case = shifted, params, x, target, jax.random.normal(keys[2], (9, 3, 3))
  options = {'steps': 9, 'score': score}
  for baseline in (x + 1e-6, x, 0.0):
    options['baseline'] = baseline
    bounds = metrics.certified_envelope(*case, direction=direction, **options)
    assert between(bounds, CURVES[direction](*case, **options).scores)


def test_certain_classes_stay_within():
  """Probabilities that are rounded to 0 and to 1."""
  x = jnp.array([0.3, 0.7]).reshape(1, 1, 2, 1)
  for scale in (20.0, 50.0, 200.0, 1e4):
    weights = jnp.array([[scale, 0.0], [scale, 0.0]])
    for target in (0, 1):
      case = h.linear, weights, x, jnp.array([target]), x
      bounds = metrics.certified_envelope(*case, steps=2)
      assert between(bounds, metrics.deletion(*case, steps=2).scores)


def test_they_are_no_wider_than_the_constant_says(float64):
  """A network of the constant L that moves straight along the deletion."""
  weights = jnp.array([[3.0, 0.0], [4.0, 0.0]])
  x = jnp.array([0.6, 0.8]).reshape(1, 1, 2, 1)
  case = h.linear, weights, x, jnp.array([0]), x
  bounds = metrics.certified_envelope(*case, steps=1, score='logit')
  curve = metrics.deletion(*case, steps=1, score='logit')
  np.testing.assert_allclose(
    bounds.lower[:, -1], curve.scores[:, -1], atol=1e-8
  )
  assert between(bounds, curve.scores)


@EACH
def test_distances_are_those_of_the_changed_pictures(direction, float64):
  apply_fn, params, x, target = h.network((2, 4, 4, 3), dtype=jnp.float64)
  maps = jnp.arange(16.0).reshape(1, 4, 4) * jnp.ones((2, 1, 1))
  bounds = metrics.certified_envelope(
    apply_fn, params, x, target, maps, direction=direction, steps=8, lipschitz=1
  )
  base = jnp.zeros_like(x) if direction == 'deletion' else metrics.blurred(x)
  for step in range(9):
    changed = (maps >= 16 - 2 * step)[..., None]
    if direction == 'insertion':
      changed = ~changed
    mixed = jnp.where(changed, base, x)
    expected = jnp.linalg.norm((x - mixed).reshape(2, -1), axis=1)
    np.testing.assert_allclose(bounds.distance[:, step], expected, rtol=1e-10)


def test_a_probability_needs_no_more_than_its_log_odds(float64):
  """Random pairs of logits at a distance: none leaves the interval."""
  keys = jax.random.split(jax.random.key(0), 2)
  logits = 3 * jax.random.normal(keys[0], (500, 1, 1, 5))
  moved = logits + jax.random.normal(keys[1], logits.shape)
  target = jnp.argmax(logits.reshape(500, 5), axis=1)
  identity = lambda _, x: x.reshape(len(x), 5)
  bounds = metrics.certified_envelope(
    identity,
    None,
    logits,
    target,
    jnp.ones((500, 1, 1)),
    steps=1,
    baseline=moved,
    lipschitz=1.0,
  )
  curve = metrics.deletion(
    identity,
    None,
    logits,
    target,
    jnp.ones((500, 1, 1)),
    steps=1,
    baseline=moved,
  )
  assert between(bounds, curve.scores)
  assert jnp.all((bounds.lower >= 0) & (bounds.upper <= 1))


def test_without_a_bound_all_is_open_but_the_picture_itself():
  case = (*h.network(), h.pictures((3, 6, 5)))
  bounds = metrics.certified_envelope(*case, steps=3, lipschitz=jnp.inf)
  width = bounds.upper[:, 0] - bounds.lower[:, 0]
  assert jnp.all((width > 0) & (width < 1e-4))
  np.testing.assert_array_equal(bounds.lower[:, 1:], 0)
  np.testing.assert_array_equal(bounds.upper[:, 1:], 1)


def test_a_constant_that_is_none():
  case = (*h.network(), h.pictures((3, 6, 5)))
  for wrong in (-1.0, float('nan')):
    with pytest.raises(ValueError, match='lipschitz'):
      metrics.certified_envelope(*case, lipschitz=wrong)


def test_maps_that_are_not_finite_are_undefined():
  maps = h.pictures((3, 6, 5)).at[1, 0, 0].set(jnp.nan)
  bounds = metrics.certified_envelope(*h.network(), maps, lipschitz=1)
  assert np.isnan(bounds.lower).any(axis=1).tolist() == [False, True, False]


def test_distances_that_are_not_finite_are_undefined():
  """Without numbers of what stands for the pixels nothing is certain."""
  case = (*h.network(), h.pictures((3, 6, 5)))
  bounds = metrics.certified_envelope(
    *case, steps=2, baseline=jnp.nan, lipschitz=1
  )
  for bound in bounds.lower, bounds.upper:
    assert np.isnan(bound).tolist() == [[False, True, True]] * 3


def test_jit_changes_no_bound():
  apply_fn, params, x, target = h.network()
  run = lambda params, x: metrics.certified_envelope(
    apply_fn, params, x, target, x, steps=4
  )
  eager, jitted = run(params, x), jax.jit(run)(params, x)
  np.testing.assert_allclose(jitted.lower, eager.lower, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('traced', ['target', 'attribution'])
def test_parameters_may_be_known_where_others_are_traced(traced):
  apply_fn, params, x, target = h.network()
  case = {'target': target, 'attribution': x}

  def bounds(value, lipschitz=None):
    return metrics.certified_envelope(
      apply_fn,
      params,
      x,
      **{**case, traced: value},
      steps=4,
      lipschitz=lipschitz,
    )

  eager, jitted = bounds(case[traced]), jax.jit(bounds)(case[traced])
  np.testing.assert_allclose(jitted.lower, eager.lower, rtol=1e-3, atol=1e-5)
  for wrong in (-1.0, jnp.nan, jnp.float32(-1), np.ones(2)):
    with pytest.raises(ValueError, match='lipschitz'):
      jax.jit(lambda value, wrong=wrong: bounds(value, wrong))(case[traced])
  open_ended = jax.jit(lambda value: bounds(value, jnp.inf))(case[traced])
  assert jnp.all(open_ended.upper[:, 1:] == 1)
