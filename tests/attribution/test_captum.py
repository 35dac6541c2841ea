"""What Captum computes on the same network, pictures and noise."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bort_jax import attribution

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
# Captum adds up occlusions in float32, and adds ε at every layer, where we take
# linear layers that follow each other as one.
TOLERANCE = {'occlusion': 1e-6, 'lrp_epsilon': 1e-6}


def network(params, x):
  conv = lambda x, name, stride: (
    jax.lax.conv_general_dilated(
      x,
      params[f'{name}.weight'],
      (stride, stride),
      [(1, 1)] * 2,
      dimension_numbers=('NHWC', 'OIHW', 'NHWC'),
    )
    + params[f'{name}.bias'][None, None, None]
  )
  x = jax.nn.relu(conv(x, 'conv1', 1))
  pool = (1, 2, 2, 1)
  x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, pool, pool, 'VALID')
  x = last = jax.nn.relu(conv(x, 'conv2', 2))
  x = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
  logits = x @ params['dense.weight'].T + params['dense.bias'][None]
  return {'act2': last, 'logits': logits}


def logits(params, x):
  return network(params, x)['logits']


METHODS = {
  'gradient': lambda *a, g: attribution.gradient(*a),
  'gradient_times_input': lambda *a, g: attribution.gradient_times_input(*a),
  'smooth_grad': lambda *a, g: attribution.smooth_grad(*a, noise=g['noise']),
  'integrated_gradients_riemann_middle': lambda *a, g: (
    attribution.integrated_gradients(*a, steps=int(g['integration_steps']))
  ),
  'guided_backprop': lambda *a, g: attribution.guided_backprop(*a),
  'deconvnet': lambda *a, g: attribution.deconvnet(*a),
  'grad_cam': lambda *a, g: attribution.grad_cam(network, *a[1:], layer='act2'),
  'lrp_epsilon': lambda *a, g: attribution.lrp(*a),
  'occlusion': lambda *a, g: attribution.occlusion(*a, window=4, stride=2),
}


@pytest.mark.parametrize('method', METHODS)
def test_equals_captum(method, float64):
  with np.load(GOLDEN / 'captum_attributions.npz') as file:
    golden = dict(file)
  params = {
    name.removeprefix('network/'): jnp.asarray(array)
    for name, array in golden.items()
    if name.startswith('network/')
  }
  x = jnp.asarray(golden['pictures'])
  np.testing.assert_allclose(logits(params, x), golden['logits'], rtol=1e-12)
  target = jnp.asarray(golden['target'])
  found = METHODS[method](logits, params, x, target, g=golden)
  expected = golden[method]
  deviation = np.abs(found - expected).max() / np.abs(expected).max()
  assert deviation <= TOLERANCE.get(method, 1e-12)
