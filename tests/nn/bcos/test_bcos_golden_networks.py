"""Whole networks equal the published ones: logits, W, maps and pictures."""

import numpy as np
import pytest
from golden_networks import NETS, deviations

TOLERANCE = 1e-10


@pytest.mark.parametrize('name', NETS)
def test_networks_equal_the_published_ones(name, float64, record_property):
  found = deviations(name, np.float64)
  record_property('parity', (f'bcos {name}', found))
  # Transformers' positions are rounded to float32 there: see the test of that.
  rounded = name in ('netE', 'netF')
  assert max(found.values()) <= (1e-6 if rounded else TOLERANCE), found


@pytest.mark.parametrize('name', NETS)
def test_networks_equal_the_published_ones_in_float32(name):
  found = deviations(name, np.float32)
  found.pop('picture')  # colours are quotients, of numbers near zero too
  assert max(found.values()) <= 1e-4, found
