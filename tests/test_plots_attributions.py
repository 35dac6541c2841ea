"""Figures of attribution maps: colours, scales, shapes."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bort_jax import plots
from bort_jax.plots.colors import clip_scale, flat_map, normalized

PICTURES = np.random.default_rng(0).random((2, 6, 5, 3))
MAPS = np.random.default_rng(1).normal(size=(2, 6, 5, 3))


def test_signs_have_colours_of_their_own():
  maps = np.array([-1.0, 0.0, 1.0]).reshape(1, 1, 3, 1)
  against, none, favour = plots.map_colors(maps, 'signed')[0, 0].astype(int)
  assert against[2] > against[0]  # purple
  assert favour[0] > favour[2]  # orange
  assert none.min() > 240
  positive, zero, negative = plots.map_colors(maps, 'absolute')[0, 0].tolist()
  assert positive == negative != zero


def test_few_pixels_do_not_rule_the_colours():
  maps = np.ones((1, 20, 20, 1))
  maps[0, 0, 0] = 1e6
  assert normalized(maps, 'signed')[0, 5, 5] == 1
  assert normalized(maps, 'signed', 100)[0, 5, 5] < 1e-5


def test_each_map_has_a_scale_of_its_own():
  maps = np.stack([MAPS[0], 1000 * MAPS[0]])
  first, second = normalized(maps, 'signed')
  np.testing.assert_allclose(first, second, rtol=1e-12)


@settings(deadline=None, max_examples=30)
@given(
  hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.float16]),
    hnp.array_shapes(min_dims=4, max_dims=4, max_side=4),
    elements=st.floats(-1000, 1000, width=16),
  ),
  st.sampled_from(['signed', 'absolute']),
)
def test_normalized_maps_are_in_range(maps, kind):
  values = normalized(maps, kind)
  low = -1 if kind == 'signed' else 0
  assert values.shape == maps.shape[:-1]
  assert np.all((values >= low) & (values <= 1))
  assert plots.map_colors(maps, kind).shape == (*maps.shape[:-1], 3)


def test_a_map_of_zeros_is_blank():
  assert clip_scale(np.zeros(4)) == 1
  assert np.all(normalized(np.zeros((1, 2, 2, 1)), 'signed') == 0)


def test_a_map_of_few_pixels_is_not_blank():
  maps = np.zeros((1, 20, 20, 1))
  maps[0, 3, 3] = 2.0
  assert normalized(maps, 'signed')[0, 3, 3] == 1


@pytest.mark.parametrize('kind', ['signed', 'absolute'])
@pytest.mark.parametrize('channels', [1, 3])
def test_an_overlay_has_a_row_for_each_picture(kind, channels):
  figure = plots.attribution_overlay(PICTURES, MAPS[..., :channels], kind=kind)
  *panels, bar = figure.axes
  assert len(panels) == 6
  low, high = bar.get_ylim()
  assert (low, high) == (-1 if kind == 'signed' else 0, 1)
  map_image = panels[1].images[0]
  assert map_image.get_cmap().name == {'signed': 'PuOr_r'}.get(kind, 'cividis')
  np.testing.assert_allclose(
    np.asarray(map_image.get_array()), normalized(MAPS[..., :channels], kind)[0]
  )
  opacity = np.asarray(panels[2].images[1].get_alpha())
  assert opacity.shape == (6, 5)
  assert 0 <= opacity.min() < opacity.max() <= 0.85


def test_a_grid_has_a_column_for_each_method():
  figure = plots.attribution_grid(
    PICTURES,
    {'a': MAPS, 'b': MAPS[..., :1]},
    kind={'a': 'signed', 'b': 'absolute'},
  )
  assert [p.get_title() for p in figure.axes[:3]] == ['input', 'a', 'b']
  names = [p.images[0].get_cmap().name for p in figure.axes[3:]]
  assert names == ['gray', 'PuOr_r', 'cividis']


def test_no_figure_is_left_with_pyplot():
  plots.attribution_grid(PICTURES, {'a': MAPS})
  plots.attribution_overlay(PICTURES, MAPS)
  pyplot = sys.modules.get('matplotlib.pyplot')
  assert pyplot is None or not pyplot.get_fignums()


@pytest.mark.parametrize(
  ('pictures', 'maps', 'message'),
  [
    (PICTURES, MAPS[:1], 'attribution has shape'),
    (PICTURES, MAPS[:, :4], 'attribution has shape'),
    (PICTURES, MAPS[..., 0], 'attribution has shape'),
    (PICTURES[..., :2], MAPS[..., :2], 'one channel or three'),
    (PICTURES, np.full_like(MAPS, np.nan), 'not finite'),
    (PICTURES, np.full_like(MAPS, np.inf), 'not finite'),
  ],
)
def test_what_does_not_fit_is_refused(pictures, maps, message):
  with pytest.raises(ValueError, match=message):
    plots.attribution_overlay(pictures, maps)


def test_settings_outside_their_range_are_refused():
  with pytest.raises(ValueError, match='kind must be one of signed, absolute'):
    flat_map(MAPS, 'sined')  # pyright: ignore[reportArgumentType]
  with pytest.raises(ValueError, match='percentile'):
    plots.attribution_overlay(PICTURES, MAPS, percentile=0)
  with pytest.raises(ValueError, match='at least one method'):
    plots.attribution_grid(PICTURES, {})
  with pytest.raises(ValueError, match='add an axis'):
    flat_map(MAPS[0, 0])
