"""Structural similarity, against scikit-image where it is installed."""

import jax
import jax.numpy as jnp
import metric_helpers as h
import numpy as np
import pytest

from bort_jax import metrics


def plainly(x, y, data_range, window):
  """The definition, one place of the window after the other."""
  offsets = np.arange(window) - window // 2
  line = np.exp(-(offsets**2) / (2 * 1.5**2))
  weights = np.outer(line, line)[..., None]
  weights /= weights.sum()
  c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
  values = []
  for i in range(x.shape[0] - window + 1):
    for j in range(x.shape[1] - window + 1):
      a, b = (p[i : i + window, j : j + window] for p in (x, y))
      mean_a, mean_b = ((weights * p).sum((0, 1)) for p in (a, b))
      var_a = (weights * (a - mean_a) ** 2).sum((0, 1))
      var_b = (weights * (b - mean_b) ** 2).sum((0, 1))
      both = (weights * (a - mean_a) * (b - mean_b)).sum((0, 1))
      values.append(
        (2 * mean_a * mean_b + c1)
        * (2 * both + c2)
        / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
      )
  return np.mean(values)


@pytest.mark.parametrize(
  ('shape', 'window'), [((11, 11, 1), 11), ((14, 17, 3), 11), ((8, 8, 1), 7)]
)
@pytest.mark.parametrize('data_range', [1.0, 255.0])
def test_it_is_what_its_definition_says(shape, window, data_range, float64):
  x = data_range * h.pictures((2, *shape), 0, jnp.float64)
  y = 0.6 * x + 0.4 * data_range * h.pictures((2, *shape), 1, jnp.float64)
  found = metrics.ssim(x, y, data_range=data_range, window=window)
  expected = [
    plainly(np.asarray(x[i]), np.asarray(y[i]), data_range, window)
    for i in range(2)
  ]
  np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.filterwarnings('ignore')
def test_scikit_image_agrees(float64):
  referee = pytest.importorskip(
    'skimage.metrics',
    reason="scikit-image is not installed: it comes with '.[referee]'",
  )
  x = h.pictures((2, 20, 24, 3), 0, jnp.float64)
  y = 0.5 * x + 0.5 * h.pictures(x.shape, 1, jnp.float64)
  expected = [
    referee.structural_similarity(
      np.asarray(x[i]),
      np.asarray(y[i]),
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
      data_range=1.0,
      channel_axis=-1,
    )
    for i in range(2)
  ]
  np.testing.assert_allclose(metrics.ssim(x, y), expected, atol=1e-12)


def test_equal_constant_and_broken_pictures():
  x = h.pictures((4, 12, 12, 1)).at[1].set(0.5)
  y = x.at[2, 3, 3, 0].set(jnp.nan).at[3].set(1 - x[3])
  found = metrics.ssim(x, y)
  np.testing.assert_allclose(found[:2], 1, rtol=1e-4)
  assert np.isnan(found[2])
  assert found[3] < 0
  np.testing.assert_allclose(jax.jit(metrics.ssim)(x, y), found, rtol=1e-4)


def test_reconstructions_are_measured_by_it():
  x = h.pictures((2, 12, 13, 1))
  back = 0.5 * x
  found = metrics.reconstruction_error(x, back)
  np.testing.assert_allclose(found.ssim, metrics.ssim(x, back))
  bytes_ = [jnp.round(255 * p).astype(jnp.uint8) for p in (x, back)]
  whole = metrics.reconstruction_error(*bytes_)
  np.testing.assert_allclose(whole.ssim, found.ssim, atol=0.01)


def test_small_pictures_have_none_unless_the_window_is_smaller():
  x = h.pictures((2, 8, 8, 1))
  assert np.isnan(metrics.reconstruction_error(x, x).ssim).all()
  found = metrics.reconstruction_error(x, x, window=7)
  np.testing.assert_allclose(found.ssim, 1, rtol=1e-5)
  with pytest.raises(metrics.MetricError, match='smaller odd window'):
    metrics.ssim(x, x)
  with pytest.raises(metrics.MetricError, match='must be odd'):
    metrics.ssim(x, x, window=6)
  with pytest.raises(metrics.MetricError, match='of one shape'):
    metrics.ssim(x, x[:1])
