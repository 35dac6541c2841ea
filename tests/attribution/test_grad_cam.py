"""Grad-CAM by hand, of layers by name and number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_helpers import (
  TARGET,
  cnn,
  conv,
  layers,
  parameters,
  pictures,
)

from bort_jax import attribution
from bort_jax.attribution import AttributionError

PARAMS, X = parameters(), pictures()
METHODS = {
  'grad_cam': attribution.grad_cam,
  'grad_cam_plus_plus': attribution.grad_cam_plus_plus,
}


def parts(params, x):
  """The map, its derivatives, which are the same in all places, and logits."""
  maps = np.asarray(layers(params, x)['maps'], np.float64)
  slope = np.asarray(params['dense'])[:, TARGET].T[:, None, None]
  size = maps.shape[1] * maps.shape[2]
  return maps, np.broadcast_to(slope / size, maps.shape)


def by_hand(name, params, x):
  maps, g = parts(params, x)
  if name == 'grad_cam':
    weights = g.mean((1, 2), keepdims=True)
  else:  # as published, equation 19
    below = 2 * g**2 + maps.sum((1, 2), keepdims=True) * g**3
    alpha = g**2 / below
    weights = (alpha * np.maximum(g, 0)).sum((1, 2), keepdims=True)
  return np.maximum((weights * maps).sum(-1, keepdims=True), 0)


def upsampled(maps, factor):
  """Between centres of cells, and beyond the outer ones constant."""
  size = maps.shape[1]
  centres = (np.arange(size * factor) + 0.5) / factor - 0.5
  centres = np.clip(centres, 0, size - 1)
  rows = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(size)[None]))
  return np.einsum('ih,jw,nhwc->nijc', rows, rows, maps)


@pytest.mark.parametrize('name', METHODS)
@pytest.mark.parametrize('layer', ['maps', 4])
def test_by_hand(name, layer):
  apply_fn = layers if layer == 'maps' else cnn
  found = METHODS[name](apply_fn, PARAMS, X, TARGET, layer=layer)
  expected = upsampled(by_hand(name, PARAMS, X), 2)
  assert found.shape == (*X.shape[:3], 1)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_what_speaks_against_the_class_can_be_kept():
  signed = attribution.grad_cam(
    layers, PARAMS, X, TARGET, layer='maps', relu=False
  )
  assert np.min(signed) < 0


def test_the_derivative_of_relu_at_zero_is_zero():
  """As that of jax.nn.relu, not the half of a maximum."""

  def apply_fn(params, x):
    maps = x[..., :1] * params
    y = jax.nn.relu(jnp.minimum(maps, 0.0) * 0)  # zero all over
    return {'maps': maps, 'logits': jnp.sum(y, (1, 2))}

  x, target = pictures(), jnp.zeros(3, int)
  found = attribution.grad_cam(
    apply_fn, jnp.ones((1, 1, 1, 1)), x, target, layer='maps', relu=False
  )
  np.testing.assert_array_equal(found, 0)


def test_an_earlier_layer_is_differentiated_through_what_follows(float64):
  params, x = parameters(dtype=jnp.float64), pictures(dtype=jnp.float64)

  def apply_fn(params, x):
    maps = conv(x, params['kernel0'])
    y = jax.nn.relu(conv(jax.nn.relu(maps), params['kernel1']))
    return {'maps': maps, 'logits': jnp.mean(y, (1, 2)) @ params['dense']}

  def after(maps, k):
    y = jax.nn.relu(conv(jax.nn.relu(maps[None]), params['kernel1']))
    return (jnp.mean(y, (1, 2)) @ params['dense'])[0, k]

  maps = apply_fn(params, x)['maps']
  g = jax.vmap(jax.grad(after))(maps, TARGET)
  expected = (jnp.mean(g, (1, 2), keepdims=True) * maps).sum(-1, keepdims=True)
  found = attribution.grad_cam(
    apply_fn, params, x, TARGET, layer='maps', relu=False
  )
  np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_layer_that_does_not_exist_suggests_one_that_does():
  with pytest.raises(AttributionError, match="Did you mean 'maps'"):
    attribution.grad_cam(layers, PARAMS, X, TARGET, layer='map')
  with pytest.raises(AttributionError, match='There is no segment 99'):
    attribution.grad_cam(cnn, PARAMS, X, TARGET, layer=99)
  with pytest.raises(AttributionError, match="Did you mean 'logits'"):
    attribution.grad_cam(
      layers, PARAMS, X, TARGET, layer='maps', output='logit'
    )


def test_a_layer_that_is_no_map_is_refused():
  with pytest.raises(AttributionError, match=r'output \(N, h, w, channels\)'):
    attribution.grad_cam(layers, PARAMS, X, TARGET, layer='logits')


def test_logits_that_do_not_come_of_the_layer_alone_are_refused():
  def apply_fn(params, x):
    outputs = layers(params, x)
    return {**outputs, 'logits': outputs['logits'] + jnp.mean(x)}

  with pytest.raises(AttributionError, match='not made of layer'):
    attribution.grad_cam(apply_fn, PARAMS, X, TARGET, layer='maps')
