"""The published networks in ours, and how far ours are from them."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from bcos_helpers import case, golden, hwio, last, meta, set_kernel, worst
from flax import nnx

from bort_jax import nn
from bort_jax.nn.bcos import BcosConv, BcosResidualNetwork, BcosViT
from bort_jax.nn.residual import BasicBlock, Bottleneck

NETS = [f'net{x}' for x in 'ABCDEF' if f'net{x}/logits' in golden()]
SMOOTH = {'netC': 15, 'netD': 0}  # of the pictures; 3 for the others
PARTS = ('logits', 'W', 'map', 'sums', 'constant', 'picture')


class Chain(nnx.Module):
  """Convolutions, the mean over space and the last layer."""

  def __init__(self, name, param_dtype):
    facts, inputs = meta()[name], 6
    self.convs = nnx.List()
    for i, (outputs, kernel, stride, padding) in enumerate(facts['cfg']):
      conv = BcosConv(
        inputs,
        outputs,
        (kernel, kernel),
        stride,
        padding=padding,
        b=facts['b'],
        max_out=facts['M'],
        scale=facts.get('scale', 1.0),
        rngs=nnx.Rngs(0),
      )
      weights = case(name)[f'param/features.{i}.linear.weight']
      set_kernel(conv, hwio(weights).astype(param_dtype))
      self.convs.append(conv)
      inputs = outputs
    bias = -math.log(9)
    self.last = nn.bcos.LogitLayer(10, temperature=facts['T'], bias=bias)

  def __call__(self, x):
    for conv in self.convs:
      x = conv(x)
    return self.last(jnp.mean(x, axis=(1, 2)))


def counterpart(name, param_dtype):
  """A network of the geometry, without the weights."""
  options: dict[str, Any] = {'param_dtype': param_dtype, 'rngs': nnx.Rngs(0)}
  if name == 'netC':
    return BcosResidualNetwork(
      (16, 16, 3),
      10,
      block=BasicBlock,
      widths=(8, 16, 32),
      counts=(1, 1, 1),
      stem='small',
      max_out=2,
      **options,
    )
  if name == 'netD':
    return BcosResidualNetwork(
      (16, 16, 6),
      10,
      block=Bottleneck,
      widths=(4, 8, 16),
      counts=(1, 1, 1),
      stem='small',
      norm='position',
      norm_centered=True,
      **options,
    )
  stem = {'conv_widths': (8, 16), 'patch_size': 1} if name == 'netF' else {}
  return BcosViT(
    (16, 16, 3),
    10,
    **({'patch_size': 4} | stem),
    width=32,
    depth=2,
    num_heads=2,
    mlp_ratio=2,
    **options,
  )


def make(name, param_dtype=np.float64):
  if name in ('netA', 'netB'):
    return Chain(name, param_dtype)
  prefix = 'param/'
  weights = {
    key.removeprefix(prefix): value
    for key, value in case(name).items()
    if key.startswith(prefix)
  }
  model = nn.bcos.from_torch(weights, counterpart(name, param_dtype))
  model.eval()
  return model


def deviations(name, dtype):
  """Of logits, linear maps and pictures, for a network."""
  arrays = case(name)
  apply_fn, params = nn.functional(make(name, dtype))
  x = jnp.asarray(last(arrays['x']), dtype)
  got = nn.bcos.explain(apply_fn, params, x, jnp.asarray(arrays['pred']))
  every = nn.bcos.explain_all(apply_fn, params, x)
  picture = nn.bcos.explanation_picture(
    got.weights, got.encoded, smooth=SMOOTH.get(name, 3)
  )
  pictures = np.stack([arrays['rgba_0'], arrays['rgba_1']])
  found = {
    'logits': worst(every.logit, arrays['logits']),
    'W': worst(got.weights, last(arrays['W_pred'])),
    'map': worst(got.contribution_map, arrays['contribution_map']),
    'sums': worst(every.contribution, arrays['contrib_sum_all']),
    'constant': worst(every.constant, arrays.get('pos_const', np.zeros(1))),
    'picture': worst(picture, pictures),
  }
  np.testing.assert_allclose(got.logit_bias, arrays['logit_bias'], rtol=1e-6)
  error = np.abs(every.completeness_error) / np.abs(arrays['logits']).max()
  assert error.max() < (1e-13 if dtype == np.float64 else 1e-5)
  return found
