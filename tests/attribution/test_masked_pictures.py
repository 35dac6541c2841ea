"""Occlusion against plain loops, and RISE against its definition."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_helpers import (
  KEY,
  TARGET,
  logit,
  parameters,
  pictures,
  shallow,
)

from bort_jax import attribution
from bort_jax.attribution import AttributionError
from bort_jax.attribution.rise import random_masks

PARAMS = parameters()
SHAPE = 3, 7, 5, 2
X = pictures(SHAPE)


def occluded(window, stride, baseline):
  """The definition, in loops."""
  x, sums = np.asarray(X), np.zeros(SHAPE)
  times = np.zeros(SHAPE)
  height, width = SHAPE[1:3]
  whole = np.asarray(logit(shallow, PARAMS, X))
  starts = lambda size, i: range(
    0,
    max(0, math.ceil((size - window[i]) / stride[i])) * stride[i] + 1,
    stride[i],
  )
  for top in starts(height, 0):
    for left in starts(width, 1):
      place = np.s_[:, top : top + window[0], left : left + window[1]]
      covered = x.copy()
      covered[place] = np.broadcast_to(baseline, SHAPE)[place]
      fall = whole - np.asarray(logit(shallow, PARAMS, jnp.asarray(covered)))
      sums[place] += fall.reshape(3, 1, 1, 1)
      times[place] += 1
  return sums / np.maximum(times, 1), times


@pytest.mark.parametrize(
  ('window', 'stride'),
  [((3, 2), (2, 3)), ((1, 1), (1, 1)), ((2, 4), (4, 1)), ((9, 9), (2, 2))],
)
def test_occlusion_is_its_definition(window, stride):
  baseline = np.asarray([0.5, -0.2], np.float32)
  found = attribution.occlusion(
    shallow,
    PARAMS,
    X,
    TARGET,
    window=window,
    stride=stride,
    baseline=baseline.reshape(1, 1, 1, 2),
  )
  expected, times = occluded(window, stride, baseline)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  if all(s <= w for s, w in zip(stride, window, strict=True)):
    assert np.all(times > 0)  # the borders too


def test_one_number_is_both_sides_of_a_window():
  occlusion = lambda **options: attribution.occlusion(
    shallow, PARAMS, X, TARGET, **options
  )
  np.testing.assert_array_equal(
    occlusion(window=2, stride=1), occlusion(window=(2, 2), stride=(1, 1))
  )


@pytest.mark.parametrize('window', [0, 1.5, (1, 2, 3), (2, -1), True, 'wide'])
def test_other_windows_are_refused(window):
  with pytest.raises(AttributionError, match='window must be'):
    attribution.occlusion(shallow, PARAMS, X, TARGET, window=window, stride=1)


@pytest.mark.parametrize('softmax', [True, False])
def test_rise_is_its_definition(softmax):
  masks = random_masks(KEY, jnp.arange(6), SHAPE[1:3], 2, 0.4)
  expected = np.zeros(SHAPE)
  for mask in np.asarray(masks)[:, None, :, :, None]:
    logits = shallow(PARAMS, X * mask)
    scores = jax.nn.softmax(logits) if softmax else logits
    chosen = np.asarray(scores)[np.arange(3), TARGET]
    expected += chosen.reshape(3, 1, 1, 1) * mask / (6 * 0.4)
  found = attribution.rise(
    shallow,
    PARAMS,
    X,
    TARGET,
    key=KEY,
    masks=6,
    cells=2,
    probability=0.4,
    softmax=softmax,
  )
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_masks_are_smooth_random_and_of_the_mean_asked_for():
  masks = random_masks(KEY, jnp.arange(800), (21, 14), 7, 0.3)
  assert masks.shape == (800, 21, 14)
  assert float(masks.min()) >= 0
  assert float(masks.max()) <= 1
  np.testing.assert_allclose(masks.mean(0), 0.3, atol=0.06)
  np.testing.assert_allclose(masks.mean(), 0.3, atol=0.01)
  # bilinear over cells of 3 × 2 pixels: no jump is larger than a cell's share
  assert float(jnp.abs(jnp.diff(masks, axis=1)).max()) <= 1 / 3 + 1e-5
  assert float(jnp.abs(jnp.diff(masks, axis=2)).max()) <= 1 / 2 + 1e-5
  assert len(np.unique(np.asarray(masks).reshape(800, -1), axis=0)) == 800


@pytest.mark.parametrize('probability', [0.0, 1.5, -0.1, float('nan')])
def test_other_probabilities_are_refused(probability):
  with pytest.raises(AttributionError, match='probability must be above 0'):
    attribution.rise(
      shallow, PARAMS, X, TARGET, key=KEY, probability=probability
    )
