"""Layers, norms, losses and clipping equal the published code's numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from bcos_helpers import case, hwio, last
from golden_layers import (
  CONVS,
  DENSES,
  NORM_CASES,
  NORMS,
  layer_deviations,
  make_norm,
  norm_deviations,
  token_norm_deviations,
)

from bort_jax import nn
from bort_jax.nn.bcos import uniform_off_bce

TOLERANCE = 1e-10


@pytest.mark.parametrize('name', CONVS + DENSES)
def test_layers_equal_the_published_ones(name, float64, record_property):
  found = layer_deviations(name, np.float64)
  record_property('parity', (f'bcos {name}', found))
  assert np.nanmax([*found.values()]) <= TOLERANCE, found


@pytest.mark.parametrize('name', CONVS + DENSES)
def test_layers_equal_the_published_ones_in_float32(name):
  found = layer_deviations(name, np.float32)
  assert np.nanmax([*found.values()]) <= 1e-4


@pytest.mark.parametrize(('name', 'variant', 'mode'), NORM_CASES)
def test_norms_equal_the_published_ones(
  name, variant, mode, float64, record_property
):
  found = norm_deviations(name, variant, mode, np.float64)
  record_property('parity', (f'{name} {variant} {mode}', found))
  assert np.nanmax([*found.values()]) <= TOLERANCE, found


@pytest.mark.parametrize('name', [n + u for n in NORMS for u in ('', 'u')])
def test_norms_equal_the_published_ones_in_float32(name):
  for case_name, variant, mode in NORM_CASES:
    if case_name == name:
      found = norm_deviations(name, variant, mode, np.float32)
      assert np.nanmax([*found.values()]) <= 1e-4, (variant, mode, found)


@pytest.mark.parametrize('variant', ['affine', 'nobias'])
@pytest.mark.parametrize('name', ['an', 'bn', 'anu', 'bnu'])
def test_running_statistics_follow_the_published_rules(name, variant, float64):
  arrays, expected = case('norm'), case(f'norm/{name}/{variant}')
  layer = make_norm(name, variant)
  layer(jnp.asarray(last(arrays['x'])))
  np.testing.assert_allclose(
    layer.var[...], expected['new_running_var'], rtol=TOLERANCE
  )
  if layer.mean is None:  # theirs has one, which nothing changes
    size = len(expected['new_running_mean'])
    unchanged = arrays['running_mean'][:size]
    np.testing.assert_array_equal(expected['new_running_mean'], unchanged)
  else:
    np.testing.assert_allclose(
      layer.mean[...], expected['new_running_mean'], rtol=TOLERANCE
    )


def test_the_norm_of_tokens_equals_the_published_one(float64, record_property):
  found = token_norm_deviations(np.float64)
  record_property('parity', ('layernorm', found))
  assert np.nanmax([*found.values()]) <= TOLERANCE, found


@pytest.mark.parametrize(
  ('name', 'labels', 'off'),
  [
    ('bce', 'target', 0.0),
    ('uniform_off', 'target', None),
    ('uniform_off_soft', 'soft_target', None),
    ('off_2e-3', 'target', 2e-3),
  ],
)
def test_losses_equal_the_published_ones(name, labels, off, float64):
  arrays, expected = case('loss'), case(f'loss/{name}')
  loss = lambda z: uniform_off_bce(z, jnp.asarray(arrays[labels]), off)
  value, gradient = jax.value_and_grad(loss)(jnp.asarray(arrays['logits']))
  np.testing.assert_allclose(value, expected['value'], rtol=TOLERANCE)
  np.testing.assert_allclose(gradient, expected['grad'], atol=TOLERANCE)


def test_smooth_labels_give_the_published_loss(float64):
  arrays, expected = case('loss'), case('loss/bce_smooth0.1')
  hard = jax.nn.one_hot(arrays['target'], 10, dtype=np.float64)
  soft = optax.smooth_labels(hard, 0.1)
  loss = uniform_off_bce(jnp.asarray(arrays['logits']), soft, 0.0)
  np.testing.assert_allclose(loss, expected['value'], rtol=TOLERANCE)


@pytest.mark.parametrize('name', ['w4d', 'v1d'])
def test_optax_clips_gradients_as_published(name, float64):
  arrays = case(f'agc/{name}')
  put = lambda x: jnp.asarray(hwio(x) if x.ndim > 1 else x)
  clip = optax.adaptive_grad_clip(0.01, eps=1e-3)
  p, g = put(arrays['p']), put(arrays['g_in'])
  clipped: Any = clip.update(g, clip.init(p), p)[0]
  np.testing.assert_allclose(clipped, put(arrays['g_out']), rtol=TOLERANCE)
  assert not np.allclose(clipped, g)


def test_pictures_equal_the_published_ones(float64):
  arrays = case('render')
  weights, x = (
    jnp.asarray(np.moveaxis(arrays[key], 0, -1)[None]) for key in ('W', 'x')
  )
  for key, expected in arrays.items():
    if key.startswith('rgba'):
      smooth, percentile = key.removeprefix('rgba_s').split('_q')
      picture = nn.bcos.explanation_picture(
        weights, x, smooth=int(smooth), percentile=float(percentile)
      )
      np.testing.assert_allclose(picture[0], expected, atol=TOLERANCE)
