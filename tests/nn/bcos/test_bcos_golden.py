"""Layers, norms, losses and clipping equal the published code's numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from bcos_helpers import (
  case,
  golden,
  gradients,
  hwio,
  last,
  meta,
  set_kernel,
  worst,
)
from flax import nnx

from bort_jax import nn
from bort_jax.nn.bcos import BcosConv, BcosDense, Norm, uniform_off_bce
from bort_jax.nn.bcos.norm import NormKind

TOLERANCE = 1e-10
CASES = [name for name in meta() if f'{name}/y' in golden()]
CONVS = [name for name in CASES if name.startswith('conv')]
DENSES = [name for name in CASES if name.startswith('lin')]
PARTS = ('y', 'gx_explain', 'gx_train', 'gw_train')


def both(number):
  return tuple(number) if isinstance(number, list) else (number, number)


def make_conv(name, dtype):
  facts, arrays = meta()[name], case(name)
  layer = BcosConv(
    facts['cin'],
    facts['cout'],
    both(facts['k']),
    both(facts['s']),
    padding=both(facts['p']),
    kernel_dilation=facts.get('dil', 1),
    feature_group_count=facts.get('grp', 1),
    b=facts['b'],
    max_out=facts['M'],
    scale=float(arrays.get('scale', 1.0)),
    normalize=facts['kind'] != 'bcosify',
    use_bias='bias' in arrays,
    param_dtype=dtype,
    rngs=nnx.Rngs(0),
  )
  set_kernel(layer, hwio(arrays['w']).astype(dtype))
  if 'bias' in arrays:
    layer.bias = nnx.Param(jnp.asarray(arrays['bias'], dtype))
  return layer


def make_dense(name, dtype):
  facts = meta()[name]
  layer = BcosDense(
    facts['fin'],
    facts['fout'],
    b=facts['b'],
    max_out=facts['M'],
    normalize=not facts['kind'].endswith('bcosify'),
    param_dtype=dtype,
    rngs=nnx.Rngs(0),
  )
  set_kernel(layer, hwio(case(name)['w']).astype(dtype))
  return layer


def layer_deviations(name, dtype):
  """Of output and gradients, for a convolution or a dense layer."""
  arrays = case(name)
  conv = name.startswith('conv')
  layer = (make_conv if conv else make_dense)(name, dtype)
  to_ours = last if conv else lambda x: x
  x, g = (to_ours(arrays[key]).astype(dtype) for key in ('x', 'g'))
  got = dict(zip(PARTS, gradients(layer, jnp.asarray(x), g), strict=True))
  expected = {key: to_ours(arrays[key]) for key in PARTS[:3]}
  if 'gw_train' in arrays:
    expected['gw_train'] = hwio(arrays['gw_train'])
  return {
    key: worst(got[key], expected[key]) if key in expected else np.nan
    for key in PARTS
  }


@pytest.mark.parametrize('name', CONVS + DENSES)
def test_layers_equal_the_published_ones(name, float64, record_property):
  found = layer_deviations(name, np.float64)
  record_property('parity', (f'bcos {name}', found))
  assert np.nanmax([*found.values()]) <= TOLERANCE, found


@pytest.mark.parametrize('name', CONVS + DENSES)
def test_layers_equal_the_published_ones_in_float32(name):
  found = layer_deviations(name, np.float32)
  assert np.nanmax([*found.values()]) <= 1e-4


NORMS: dict[str, NormKind] = {
  'an': 'all',
  'bn': 'batch',
  'gn': 'group',
  'in': 'instance',
  'ln': 'layer',
  'pn': 'position',
}


def make_norm(name, variant, dtype=np.float64):
  arrays = case('norm')
  layer: Any = Norm(
    8,
    NORMS[name.removesuffix('u')],
    centered=not name.endswith('u'),
    use_bias=variant == 'affine',
    param_dtype=dtype,
    rngs=nnx.Rngs(0),
  )
  size = 1 if name.startswith('an') else 8
  put = lambda key: jnp.asarray(arrays[key][:size], dtype)
  layer.scale[...] = put('weight')
  if layer.bias is not None:
    layer.bias[...] = put('bias')
  if layer.var is not None:
    layer.var[...] = put('running_var')
  if layer.mean is not None:
    layer.mean[...] = put('running_mean')
  return layer


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('variant', ['affine', 'nobias'])
@pytest.mark.parametrize('name', [n + u for n in NORMS for u in ('', 'u')])
def test_norms_equal_the_published_ones(
  name, variant, mode, float64, record_property
):
  arrays, expected = case('norm'), case(f'norm/{name}/{variant}/{mode}')
  layer = make_norm(name, variant)
  if mode == 'eval':
    layer.eval()
  x, g = jnp.asarray(last(arrays['x'])), last(arrays['g'])
  got = dict(zip(PARTS, gradients(layer, x, g), strict=True))
  assert {'y', 'gx_train'} <= set(expected)
  found = {
    key: worst(got[key], last(expected[key])) if key in expected else np.nan
    for key in PARTS
  }
  record_property('parity', (f'{name} {variant} {mode}', found))
  assert np.nanmax([*found.values()]) <= TOLERANCE, found


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
  arrays = case('layernorm')
  layer: Any = Norm(
    16, 'position', centered=True, param_dtype=np.float64, rngs=nnx.Rngs(0)
  )
  layer.scale[...] = jnp.asarray(arrays['weight'])
  got = gradients(layer, jnp.asarray(arrays['x']), arrays['g'])
  found = {
    key: worst(a, arrays[key])
    for key, a in zip(PARTS[:3], got[:3], strict=True)
  }
  found['gw_train'] = np.nan
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
