"""Mosaics: which pictures, where they are, and whose tile is pointed at."""

import jax
import jax.numpy as jnp
import metric_helpers as h
import numpy as np
import pytest

from bort_jax import metrics

KEY = jax.random.key(0)


def sure_logits(per_class, classes=5, seed=0):
  """Of pictures that are predicted right, of random sureness."""
  rng = np.random.default_rng(seed)
  labels = np.repeat(np.arange(classes), per_class)
  logits = np.full((labels.size, classes), -5.0)
  own = rng.uniform(0.1, 5, labels.size)
  logits[np.arange(labels.size), labels] = own
  return logits, labels, own


def test_no_picture_is_used_twice_and_classes_differ():
  logits, labels, own = sure_logits(6)
  drawn = metrics.draw_mosaics(logits, labels, key=KEY)
  assert len(np.unique(drawn)) == drawn.size
  assert len(drawn) >= 6
  for mosaic in drawn:
    assert len(set(labels[mosaic])) == 4
  for c in range(5):
    sureness = [own[i] for i in drawn.ravel() if labels[i] == c]
    assert sureness == sorted(own[labels == c], reverse=True)[: len(sureness)]


def test_wrong_pictures_are_left_out():
  logits, labels, _ = sure_logits(4, classes=4)
  logits[5, 3] = 9
  drawn = metrics.draw_mosaics(logits, labels, key=KEY)
  assert len(drawn) == 3
  assert 5 not in drawn


def test_unsure_pictures_are_left_out_if_asked():
  logits, labels, _ = sure_logits(4, classes=4)
  logits[0, 0] = -0.1  # still predicted right, with a sigmoid below 0.5
  assert 0 not in metrics.draw_mosaics(logits, labels, key=KEY)
  drawn = metrics.draw_mosaics(logits, labels, key=KEY, confidence=None)
  assert set(drawn.ravel()) == set(range(16))


def test_no_more_than_asked_and_the_key_decides():
  logits, labels, _ = sure_logits(20)
  draw = lambda key: metrics.draw_mosaics(logits, labels, key=key, count=3)
  assert draw(KEY).shape == (3, 4)
  np.testing.assert_array_equal(draw(KEY), draw(KEY))
  assert (draw(KEY) != draw(jax.random.key(1))).any()


def test_too_few_classes():
  logits, labels, _ = sure_logits(2)
  with pytest.raises(metrics.MetricError, match='9 classes'):
    metrics.draw_mosaics(logits, labels, key=KEY, grid=3)


def test_tiles_are_row_by_row():
  x = h.pictures((9, 2, 3, 2))
  layout = jnp.array([[8, 7, 6, 5, 4, 3, 2, 1, 0]])
  whole = metrics.mosaic(x, layout)
  assert whole.shape == (1, 6, 9, 2)
  for tile in range(9):
    row, column = divmod(tile, 3)
    part = whole[0, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
    np.testing.assert_array_equal(part, x[8 - tile])


def test_own_tile_is_one_and_uniform_is_chance():
  maps = jnp.zeros((1, 4, 6, 4, 2))
  for tile in range(4):
    row, column = divmod(tile, 2)
    maps = maps.at[0, tile, 3 * row, 2 * column + 1, 0].set(2.0)
  np.testing.assert_allclose(metrics.grid_pointing(maps), 1)
  for grid in (2, 3):
    uniform = jnp.ones((2, grid**2, 6, 6))
    np.testing.assert_allclose(
      metrics.grid_pointing(uniform), 1 / grid**2, rtol=1e-6
    )


def test_what_is_negative_does_not_count_and_nothing_is_undefined():
  maps = jnp.ones((1, 4, 4, 4)).at[0, 0, :2, 2:].set(-7.0).at[0, 1].set(-1)
  maps = maps.at[0, 2, 0, 0].set(jnp.nan)
  found = metrics.grid_pointing(maps)[0]
  np.testing.assert_allclose(found[0], 1 / 3, rtol=1e-6)
  assert np.isnan(found).tolist() == [False, True, True, False]


def test_smoothing_spreads_beyond_the_tile():
  maps = jnp.zeros((1, 4, 6, 6)).at[:, :, 2, 0].set(1.0)
  smooth = metrics.grid_pointing(maps, smooth=3)  # a third goes below
  np.testing.assert_allclose(smooth[0, 0], 2 / 3, rtol=1e-6)
  maps = maps.at[:, :, 3, 0].set(-1.0)  # cancels it there
  smooth = metrics.grid_pointing(maps, smooth=3)
  np.testing.assert_allclose(smooth[0, 0], 1, rtol=1e-6)


@pytest.mark.parametrize(
  ('shape', 'smooth', 'match'),
  [
    ((1, 3, 6, 6), 1, 'n²'),
    ((1, 1, 6, 6), 1, 'n²'),
    ((1, 4, 5, 6), 1, 'multiples'),
    ((1, 4, 6, 6), 2, 'odd'),
    ((4, 6, 6), 1, 'n²'),
  ],
)
def test_what_is_no_mosaic(shape, smooth, match):
  with pytest.raises(metrics.MetricError, match=match):
    metrics.grid_pointing(jnp.ones(shape), smooth=smooth)


def own_color(apply_fn, params, x, target):
  """Where the channel of the class is."""
  return jnp.take_along_axis(x, target[:, None, None, None], axis=-1)


def mean_color(params, x):
  return x.mean((1, 2)) @ params


@pytest.mark.parametrize('chunk', [None, 1, 3])
@pytest.mark.parametrize('rescale', [False, True])
def test_the_game_of_a_network_that_sees_colors(rescale, chunk):
  x = jnp.eye(4)[:, None, None, :] * jnp.ones((4, 4, 4, 4))
  layout = jnp.array([[0, 1, 2, 3], [3, 1, 0, 2]])
  found = metrics.grid_pointing_game(
    own_color,
    mean_color,
    jnp.eye(4),
    x,
    jnp.arange(4),
    layout,
    rescale=rescale,
    chunk=chunk,
  )
  assert found.shape == (2, 4)
  assert jnp.all(found > (0.6 if rescale else 0.999))


def test_pictures_that_do_not_divide():
  x = h.pictures((4, 5, 5, 4))
  with pytest.raises(metrics.MetricError, match='equal tiles'):
    metrics.grid_pointing_game(
      own_color,
      mean_color,
      jnp.eye(4),
      x,
      jnp.arange(4),
      jnp.arange(4)[None],
      rescale=True,
    )
