"""Maps whose place is known."""

import functools

import jax
import jax.numpy as jnp
import metric_helpers as h
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort_jax import metrics

ALL = (
  metrics.pointing_game,
  metrics.relevance_rank_accuracy,
  metrics.relevance_mass_accuracy,
)


def square(n=1, size=6, start=1, stop=3):
  mask = np.zeros((n, size, size), bool)
  mask[:, start:stop, start:stop] = True
  return jnp.asarray(mask)


@pytest.mark.parametrize('metric', ALL)
def test_a_map_of_the_object_and_one_of_the_rest(metric):
  mask = square(2)
  inside = jnp.where(mask, 1 + h.pictures((2, 6, 6)), 0)
  outside = jnp.where(mask, 0, 1 + h.pictures((2, 6, 6)))
  np.testing.assert_allclose(metric(inside, mask), 1, rtol=1e-6)
  np.testing.assert_allclose(metric(outside, mask), 0, atol=1e-6)


@pytest.mark.parametrize('metric', ALL)
def test_what_points_nowhere_is_undefined(metric):
  maps = h.pictures((5, 6, 6)).at[1].set(-0.1).at[2, 0, 0].set(jnp.nan)
  maps = maps.at[3, 2, 2].set(jnp.inf)
  mask = square(5).at[4].set(False)
  expected = [False, True, True, True, True]
  assert np.isnan(metric(maps, mask)).tolist() == expected


def test_a_constant_map_is_no_hit_but_its_mass_is_known():
  maps, mask = jnp.ones((1, 6, 6)), square()
  assert np.isnan(metrics.pointing_game(maps, mask))[0]
  assert np.isnan(metrics.relevance_rank_accuracy(maps, mask))[0]
  share = metrics.relevance_mass_accuracy(maps, mask)
  np.testing.assert_allclose(share, 4 / 36, rtol=1e-6)


def test_of_several_greatest_the_share_hits():
  maps = jnp.zeros((1, 6, 6))
  for place in ((1, 1), (2, 2), (5, 5)):
    maps = maps.at[0, *place].set(1)
  found = metrics.pointing_game(maps, square())
  np.testing.assert_allclose(found, 2 / 3, rtol=1e-6)


@pytest.mark.parametrize(
  ('place', 'distance'), [((1, 5), 3), ((4, 4), 8**0.5), ((0, 0), 2**0.5)]
)
def test_tolerance_is_a_distance(place, distance):
  maps = jnp.zeros((1, 6, 6)).at[0, *place].set(1)
  for tolerance, hit in ((distance - 0.01, 0), (distance + 0.01, 1)):
    found = metrics.pointing_game(maps, square(), tolerance=tolerance)
    assert found.tolist() == [hit]


@pytest.mark.parametrize('tolerance', [-1, np.inf, np.nan])
def test_a_tolerance_that_is_none(tolerance):
  with pytest.raises(metrics.MetricError, match='tolerance'):
    metrics.pointing_game(jnp.ones((1, 6, 6)), square(), tolerance=tolerance)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 5))
def test_rank_accuracy_is_the_mean_over_orders_of_ties(levels, size, seed):
  rng = np.random.default_rng(seed)
  maps = rng.integers(0, levels + 1, (1, 3, 4)).astype(float)
  if np.ptp(maps) == 0:
    return
  mask = np.zeros(12, bool)
  mask[rng.permutation(12)[:size]] = True
  found = metrics.relevance_rank_accuracy(
    jnp.asarray(maps, jnp.float32), jnp.asarray(mask.reshape(1, 3, 4))
  )
  hits = []
  for _ in range(2000):
    order = np.lexsort((rng.random(12), -maps.ravel()))
    hits.append(mask[order[:size]].mean())
  error = np.std(hits) / 2000**0.5
  np.testing.assert_allclose(found[0], np.mean(hits), atol=5 * error + 1e-6)


def test_a_random_map_has_the_share_of_the_area():
  maps = metrics.random_attribution(
    jax.random.key(0), jnp.zeros((2000, 6, 6, 2))
  )
  mask = square(2000)
  for metric in ALL:
    values = metric(maps, mask)
    error = values.std() / 2000**0.5
    assert abs(values.mean() - 4 / 36) < 4 * error


def test_channels_are_summed():
  maps, mask = h.pictures((2, 6, 6, 3)) - 0.5, square(2)
  for metric in ALL:
    np.testing.assert_allclose(
      metric(maps, mask), metric(maps.sum(-1), mask), rtol=1e-6
    )


def test_jit_and_vmap_change_no_place():
  maps, mask = h.pictures((2, 3, 6, 6)), square(3)
  for metric in (*ALL, functools.partial(metrics.pointing_game, tolerance=2)):
    one = metric(maps[1], mask)
    np.testing.assert_allclose(jax.jit(metric)(maps[1], mask), one)
    mapped = jax.vmap(lambda m, metric=metric: metric(m, mask))(maps)
    np.testing.assert_allclose(mapped[1], one)
