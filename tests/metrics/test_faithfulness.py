"""Faithfulness, infidelity, sensitivity and completeness that are known."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import metric_helpers as h
import numpy as np
import pytest

from bort_jax import metrics

KEY = jax.random.key(3)


Case = tuple[Any, Any, jax.Array, jax.Array]


def linear_case(
  shape=(2, 4, 5, 3), dtype=jnp.float32
) -> tuple[Case, jax.Array, jax.Array]:
  """A linear network and its exact maps: of the score, and per unit of x."""
  x = h.pictures(shape, dtype=dtype)
  params = jax.random.normal(KEY, (x[0].size, 3), dtype)
  target = jnp.arange(len(x)) % 3
  weights = params[:, target].T.reshape(x.shape)
  return (h.linear, params, x, target), x * weights, weights


def test_the_exact_map_of_a_linear_network_is_faithful(float64):
  case, exact, weights = linear_case(dtype=jnp.float64)
  found = metrics.faithfulness_correlation(*case, exact, key=KEY)
  np.testing.assert_allclose(found.correlation, 1, atol=1e-12)
  np.testing.assert_allclose(found.attribution, found.drop, atol=1e-12)
  total = metrics.completeness(*case, exact)
  np.testing.assert_allclose(total.delta, 0, atol=1e-12)
  np.testing.assert_allclose(
    total.total, h.linear(*case[1:3])[jnp.arange(2), case[3]]
  )
  noise = metrics.infidelity(*case, weights, key=KEY, samples=20)
  np.testing.assert_allclose(noise.value, 0, atol=1e-20)
  half = metrics.infidelity(*case, weights / 2, key=KEY, samples=20)
  np.testing.assert_allclose(half.scale, 2, rtol=1e-10)
  np.testing.assert_allclose(half.scaled, 0, atol=1e-20)


def test_against_a_baseline_that_is_not_black(float64):
  case, _, weights = linear_case(dtype=jnp.float64)
  baseline = jnp.array([0.3, 0.1, 0.9])
  exact = weights * (case[2] - baseline.reshape(1, 1, 1, 3))
  found = metrics.faithfulness_correlation(
    *case, exact, key=KEY, baseline=baseline, runs=10, subset_size=3
  )
  np.testing.assert_allclose(found.attribution, found.drop, atol=1e-12)
  total = metrics.completeness(*case, exact, baseline=baseline)
  np.testing.assert_allclose(total.delta, 0, atol=1e-12)


def test_a_random_map_is_not_faithful():
  case, _, _ = linear_case((8, 8, 8, 1))
  noise = metrics.random_attribution(KEY, case[2])
  found = metrics.faithfulness_correlation(*case, noise, key=KEY)
  assert abs(found.correlation.mean()) < 0.4
  assert jnp.all(jnp.abs(found.correlation) < 0.95)


@pytest.mark.parametrize('channels', [None, 1, 3])
def test_maps_that_are_the_same_everywhere_are_undefined(channels):
  case, _, _ = linear_case((2, 32, 32, 3))
  maps = jnp.full((2, 32, 32), 0.1)
  if channels is not None:
    maps = maps[..., None] * jnp.arange(1.0, 1 + channels).reshape(1, 1, 1, -1)
  correlated = functools.partial(
    metrics.faithfulness_correlation, *case, maps, runs=20
  )
  assert jnp.all(jnp.isnan(correlated(key=KEY).correlation))
  sizes = jnp.arange(1, 21).reshape(1, 20, 1, 1)
  order = jnp.arange(1024).reshape(1, 1, 32, 32)
  growing = jnp.broadcast_to(order < sizes, (2, 20, 32, 32))
  found = correlated(subsets=growing)
  assert jnp.all(jnp.isfinite(found.correlation))
  np.testing.assert_allclose(
    found.attribution,
    jnp.sum(maps.reshape(2, 1024, -1), -1)[:, :1] * sizes.reshape(1, 20),
    rtol=1e-5,
  )


@pytest.mark.parametrize('numbers', [False, True])
def test_subsets_that_are_given_are_used(numbers, float64):
  apply_fn, params, x, target = h.network(dtype=jnp.float64)
  maps = h.pictures(x.shape, 5, jnp.float64)
  shape = (3, 7, *x.shape[1:]) if numbers else (3, 7, *x.shape[1:3])
  subsets = jax.random.bernoulli(KEY, 0.4, shape)
  found = metrics.faithfulness_correlation(
    apply_fn, params, x, target, maps, subsets=subsets, score='softmax'
  )
  chosen = subsets if numbers else subsets[..., None]
  chosen = np.broadcast_to(chosen, (3, 7, *x.shape[1:]))
  score = lambda x: jax.nn.softmax(apply_fn(params, x))[jnp.arange(3), target]
  for run in range(7):
    mixed = jnp.where(chosen[:, run], 0, x)
    np.testing.assert_allclose(
      found.drop[:, run], score(x) - score(mixed), atol=1e-12
    )
    total = np.where(chosen[:, run], maps, 0).sum((1, 2, 3))
    np.testing.assert_allclose(found.attribution[:, run], total, atol=1e-12)
  expected = [
    np.corrcoef(found.attribution[i], found.drop[i])[0, 1] for i in range(3)
  ]
  np.testing.assert_allclose(found.correlation, expected, atol=1e-12)


def test_drawn_subsets_have_their_size_and_differ():
  case, _, _ = linear_case((2, 4, 5, 1))
  ones = jnp.ones((2, 4, 5))
  found = metrics.faithfulness_correlation(
    *case, ones, key=KEY, subset_size=6, runs=30
  )
  np.testing.assert_allclose(found.attribution, 6, rtol=1e-6)
  assert np.isnan(found.correlation).all()  # of a constant there is none
  drops = np.unique(np.round(found.drop, 5))
  assert drops.size > 50


def test_infidelity_is_of_independent_perturbations(float64):
  case, _, weights = linear_case((4, 4, 5, 2), jnp.float64)
  off = weights + 0.5
  found = metrics.infidelity(*case, off, key=KEY, samples=4000)
  # I·a − I·w = 0.5 Σ I, of 40 independent numbers of deviation 0.2
  expected = 0.25 * 40 * 0.2**2
  np.testing.assert_allclose(found.value, expected, rtol=0.15)


@pytest.mark.parametrize('factor', [1e-30, 1e-20, 1e20])
def test_the_best_scale_is_found_of_maps_of_any_size(factor):
  case, _, weights = linear_case()
  found = metrics.infidelity(*case, factor * weights, key=KEY, samples=20)
  np.testing.assert_allclose(found.scale * factor, 1, rtol=1e-4)
  np.testing.assert_allclose(found.scaled, 0, atol=1e-8)
  nothing = metrics.infidelity(*case, 0 * weights, key=KEY, samples=20)
  assert jnp.all(jnp.isnan(nothing.scale) & jnp.isnan(nothing.scaled))


def test_squares_are_taken_from_the_picture_itself(float64):
  case, exact, weights = linear_case((2, 5, 6, 2), jnp.float64)
  found = metrics.infidelity(
    *case,
    jnp.zeros_like(weights),
    key=KEY,
    samples=300,
    perturbation=metrics.SquareRemoval(2),
  )
  corners = jnp.stack(
    [
      exact[:, i : i + 2, j : j + 2].sum((1, 2, 3))
      for i in range(4)
      for j in range(5)
    ]
  )
  expected = jnp.mean(corners**2, axis=0)
  np.testing.assert_allclose(found.value, expected, rtol=0.3)
  assert np.isnan(found.scale).all()
  assert np.isnan(found.scaled).all()


def test_perturbations_of_another_shape_are_refused():
  case, _, weights = linear_case()
  wrong = lambda key, x: x[:2]
  with pytest.raises(metrics.MetricError, match='perturbation'):
    metrics.infidelity(*case, weights, key=KEY, perturbation=wrong)
  with pytest.raises(metrics.MetricError, match='size must be 1'):
    metrics.infidelity(
      *case, weights, key=KEY, perturbation=metrics.SquareRemoval(9)
    )


def times_input(apply_fn, params, x, target):
  """The map that is the picture, of which all is known."""
  return x


def test_sensitivity_of_the_picture_itself():
  apply_fn, params, _, target = h.network()
  x = jnp.ones((3, 6, 5, 2)).at[1].set(0)
  found = metrics.max_sensitivity(
    times_input, apply_fn, params, x, target, key=KEY, radius=0.1, samples=20
  )
  # √60 times the root mean square of a uniform number, at most 0.1
  assert jnp.all(found.absolute > 0.1 * (60 / 3) ** 0.5)
  assert jnp.all(found.absolute < 0.1 * 60**0.5)
  assert np.isnan(found.relative).tolist() == [False, True, False]
  np.testing.assert_allclose(
    found.relative[0], found.absolute[0] / 60**0.5, rtol=1e-5
  )


def test_a_linear_network_has_a_gradient_that_does_not_change():
  case, _, _ = linear_case()
  found = metrics.max_sensitivity(h.gradient, *case, key=KEY)
  np.testing.assert_allclose(found.absolute, 0, atol=1e-5)


def sensitivity(case: Case, maps, chunk):
  return metrics.max_sensitivity(h.gradient, *case, key=KEY, chunk=chunk)


def faithfulness(case: Case, maps, chunk):
  return metrics.faithfulness_correlation(
    *case, maps, key=KEY, runs=6, chunk=chunk
  )


def infidelity(case: Case, maps, chunk):
  return metrics.infidelity(*case, maps, key=KEY, samples=6, chunk=chunk)


def completeness(case: Case, maps, chunk):
  return metrics.completeness(*case, maps)


EACH = pytest.mark.parametrize(
  'metric', [sensitivity, faithfulness, infidelity, completeness]
)


@pytest.mark.parametrize('metric', [sensitivity, faithfulness, infidelity])
@pytest.mark.parametrize('chunk', [2, 100])
def test_chunks_do_not_change_what_is_drawn(metric, chunk):
  case = h.network()
  whole, parts = (metric(case, case[2], c) for c in (None, chunk))
  for a, b in zip(whole, parts, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@EACH
def test_a_second_call_compiles_none_of_it(metric):
  apply_fn, params, x, target = h.network()
  own, others = (lambda params, x: apply_fn(params, x)), x + 0.1
  with h.compilations() as first:
    metric((own, params, x, target), x, None)
  with h.compilations() as second:
    metric((own, params, others, target), others, None)
  assert first
  assert not second


@EACH
def test_jit_and_vmap_change_no_value(metric):
  apply_fn, params, x, target = h.network()
  run = lambda target: metric((apply_fn, params, x, target), x, None)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
  eager = run(target)
  jax.tree.map(close, jax.jit(run)(target), eager)
  mapped = jax.vmap(run)(jnp.stack([target, (target + 1) % 4]))
  jax.tree.map(lambda a, b: close(a[0], b), mapped, eager)


@EACH
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_short_types(metric, dtype):
  case = h.network(dtype=jnp.dtype(dtype))
  for values in metric(case, case[2], None):
    assert values.dtype == jnp.float32
    assert np.isfinite(values).all()


def test_a_key_or_subsets():
  case, exact, _ = linear_case()
  with pytest.raises(metrics.MetricError, match='random key, or the subsets'):
    metrics.faithfulness_correlation(*case, exact)
  with pytest.raises(metrics.MetricError, match='subsets must be bool'):
    metrics.faithfulness_correlation(
      *case, exact, subsets=jnp.ones((2, 3, 4, 4), bool)
    )
