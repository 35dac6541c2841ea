"""Shares of energy that are known."""

import math

import attack_helpers as h
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort_jax import attacks


def wave(height, width, rows, columns):
  y, x = jnp.mgrid[:height, :width]
  phase = 2 * jnp.pi * (rows * y / height + columns * x / width)
  return jnp.cos(phase)[None, :, :, None]


@pytest.mark.parametrize(
  ('rows', 'columns', 'share'),
  [(0, 0, 1), (2, 0, 1), (3, 0, 0), (0, 4, 1), (0, 5, 0), (2, 4, 0), (1, 2, 1)],
)
def test_a_wave_is_low_within_the_circle(rows, columns, share):
  # an eighth of the sampling frequency: 2 of 16 rows, 4 of 32 columns
  found = attacks.low_frequency_share(wave(16, 32, rows, columns))
  np.testing.assert_allclose(found.share, share, atol=1e-6)


@pytest.mark.parametrize('shape', [(28, 28, 1), (32, 32, 3), (17, 40, 2)])
@pytest.mark.parametrize('cutoff', [0.05, 0.125, 0.3])
def test_white_noise_has_the_share_of_the_grid(shape, cutoff):
  noise = jax.random.normal(jax.random.key(0), (300, *shape))
  found = attacks.low_frequency_share(noise, cutoff)
  numbers = found.random[0] * noise.size
  rtol = 4 * math.sqrt(2 / numbers)
  np.testing.assert_allclose(found.share.mean(), found.random[0], rtol=rtol)
  assert abs(found.random[0] - np.pi * cutoff**2) < 0.03


@pytest.mark.parametrize('size', [5, 10, 12, 28, 50])
def test_frequencies_on_the_circle_count(size):
  for k in range(size // 2):
    found = attacks.low_frequency_share(wave(size, size, 0, k), k / size)
    np.testing.assert_allclose(found.share, 1, atol=1e-5)


def test_cutoff_of_all_and_of_the_mean_alone():
  change = h.pictures((2, 6, 7, 3))
  whole = attacks.low_frequency_share(change, 0.75)
  np.testing.assert_allclose(whole.share, 1, rtol=1e-6)
  np.testing.assert_allclose(whole.random, 1)
  mean = attacks.low_frequency_share(change, 0)
  means = change.mean((1, 2))
  expected = 42 * (means**2).sum(-1) / (change**2).sum((1, 2, 3))
  np.testing.assert_allclose(mean.share, expected, rtol=1e-5)
  np.testing.assert_allclose(mean.random, 1 / 42, rtol=1e-6)


def test_a_random_change_has_the_share_of_the_area():
  mask = jax.random.bernoulli(jax.random.key(1), 0.3, (300, 14, 9))
  noise = jax.random.normal(jax.random.key(0), (300, 14, 9, 2))
  found = attacks.object_share(noise, mask)
  np.testing.assert_allclose(found.random, mask.mean((1, 2)), rtol=1e-6)
  np.testing.assert_allclose(found.share.mean(), found.random.mean(), rtol=0.02)
  constant = attacks.object_share(jnp.ones_like(noise), mask)
  np.testing.assert_allclose(constant.share, constant.random, rtol=1e-6)


def test_a_change_of_the_object_alone():
  x = jnp.zeros((2, 4, 6, 3)).at[:, 1:3, 2:5, 1].set(0.8)
  mask = attacks.foreground(x, 0.5)
  assert mask.sum() == 2 * 6
  np.testing.assert_allclose(attacks.object_share(x, mask).share, 1)
  np.testing.assert_allclose(attacks.object_share(x, ~mask).share, 0)


@settings(deadline=None, max_examples=30)
@given(
  st.sampled_from([(1, 1, 1), (5, 8, 3), (9, 2, 1)]),
  st.sampled_from([1e-30, 1e-3, 1.0, 1e30]),
  st.sampled_from(['float32', 'bfloat16', 'float64']),
)
def test_shares_add_up_at_any_size(shape, scale, dtype):
  height, width, _ = shape
  with jax.enable_x64(dtype == 'float64'):
    change = scale * h.pictures((2, *shape), dtype=dtype)
    mask = jnp.arange(height)[:, None] >= jnp.arange(width)[None]
    mask = jnp.broadcast_to(mask, (2, height, width))
    inside = attacks.object_share(change, mask)
    outside = attacks.object_share(change, ~mask)
    np.testing.assert_allclose(inside.share + outside.share, 1, rtol=1e-5)
    np.testing.assert_allclose(inside.random + outside.random, 1, rtol=1e-5)
    low = attacks.low_frequency_share(change)
    assert jnp.all((low.share >= 0) & (low.share <= 1 + 1e-5))


def test_no_change_has_no_share():
  change = jnp.zeros((2, 4, 4, 1)).at[1].set(0.1)
  mask = jnp.ones((2, 4, 4), bool)
  for found in (
    attacks.low_frequency_share(change),
    attacks.object_share(change, mask),
  ):
    assert np.isnan(found.share).tolist() == [True, False]
    assert np.isfinite(found.random).all()


def test_jit_and_vmap_change_nothing():
  change = h.pictures((3, 8, 6, 2)) - 0.5
  measure = attacks.low_frequency_share
  eager = measure(change, 0.2)
  np.testing.assert_allclose(jax.jit(measure)(change, 0.2), eager, rtol=1e-6)
  vmapped = jax.vmap(measure, (None, 0))(change, jnp.array([0.2, 0.4]))
  np.testing.assert_allclose(vmapped.share[0], eager.share, rtol=1e-6)
