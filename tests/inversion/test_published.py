"""The published backward pass, against its formula written out in numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bort_jax import inversion, nn
from bort_jax.nn import SimpleCNN


def undo_conv(y, kernel, bias, stride, padding, shape):
  """Patch by patch: transpose of the normalized rows, averaged overlaps."""
  n, height, width, channels = shape
  k = kernel.shape[0]
  rows = kernel.reshape(-1, kernel.shape[-1]).T
  total = np.zeros((n, height + 2 * padding, width + 2 * padding, channels))
  counts = np.zeros((1, *total.shape[1:3], 1))
  y = (y - bias) / (np.sum(rows**2, axis=1) + 1e-8)
  for i in range(y.shape[1]):
    for j in range(y.shape[2]):
      top, left = stride * i, stride * j
      window = np.s_[:, top : top + k, left : left + k]
      total[window] += (y[:, i, j] @ rows).reshape(n, k, k, channels)
      counts[window] += 1
  averaged = total / np.maximum(counts, 1)
  return averaged[:, padding : padding + height, padding : padding + width]


def reference(model, x):
  out = jax.tree.map(np.asarray, model.intermediates(x))
  inputs = {
    'conv1': np.asarray(x),
    'down1': out['act1'],
    'conv2': out['down1'],
    'down2': out['act2'],
    'conv3': out['down2'],
  }
  y = out['act3']
  for name in ('conv3', 'down2', 'conv2', 'down1', 'conv1'):
    if name.startswith('conv') and model.negative_slope:
      y = np.where(y < 0, y / model.negative_slope, y)
    layer = getattr(model, name)
    stride, padding = (2, 0) if name.startswith('down') else (1, 1)
    kernel, bias = np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])
    y = undo_conv(y, kernel, bias, stride, padding, inputs[name].shape)
  return y


@pytest.mark.parametrize('activation', ['leaky_relu', 'relu'])
def test_equals_the_published_rule(activation):
  model = SimpleCNN(
    (13, 11, 2),
    10,
    widths=(4, 6, 8, 10, 12),
    activation=activation,
    rngs=nnx.Rngs(0),
  )
  bias: Any = model.conv2.bias
  bias[...] = jnp.linspace(-1, 1, 8)
  x = jax.random.uniform(jax.random.key(0), (3, 13, 11, 2))
  apply_fn, params = nn.functional(model, 'intermediates')
  features = inversion.until(apply_fn, 'act3')
  got = inversion.reconstruct(features, params, x, method='published')
  np.testing.assert_allclose(got.x, reference(model, x), rtol=1e-4, atol=1e-5)
