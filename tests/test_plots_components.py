"""Figures of pictures taken apart."""

import numpy as np
import pytest
from helpers import random_array

from bort_jax import plots, symmetry


def texts(figure):
  return [panel.get_xlabel() for panel in figure.axes]


def test_shares_add_up_and_the_sum_is_the_picture():
  x = np.abs(random_array(0, (2, 6, 6, 1)))
  figure = plots.symmetry_components(x, symmetry.D4)
  rows = np.array(texts(figure)).reshape(2, 7)
  for row in rows:
    shares = [float(text.rstrip('%')) for text in row[1:-1]]
    assert abs(sum(shares) - 100) < 0.4
    assert float(row[-1].removeprefix('error ')) < 1e-12
  shown = np.asarray(figure.axes[6].get_images()[0].get_array())
  np.testing.assert_allclose(shown, np.clip(x[0, ..., 0], 0, 1), atol=1e-12)


def test_of_many_components_those_of_most_energy_are_drawn():
  x = np.ones((1, 4, 4, 3))
  x[:, :, ::2] = 0
  figure = plots.symmetry_components(x, symmetry.Shifts(4, 4), most=2)
  titles = [panel.get_title() for panel in figure.axes]
  assert titles == ['picture', '(0, 0)', '(0, 2)', 'sum']
  assert texts(figure)[1:3] == ['50.0%', '50.0%']


def test_black_pictures_have_no_energy_and_oblongs_are_refused():
  figure = plots.symmetry_components(np.zeros((1, 4, 4, 1)), symmetry.C4)
  assert texts(figure)[1] == '0.0%'
  with pytest.raises(ValueError, match='must be square'):
    plots.symmetry_components(np.zeros((1, 4, 6, 1)), symmetry.C4)
  with pytest.raises(ValueError, match='add an axis'):
    plots.symmetry_components(np.zeros((4, 4, 1)), symmetry.C4)
