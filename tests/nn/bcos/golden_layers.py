"""The published layers and norms in ours, and how far ours are from them."""

from typing import Any

import jax.numpy as jnp
import numpy as np
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

from bort_jax.nn.bcos import BcosConv, BcosDense, Norm
from bort_jax.nn.bcos.norm import NormKind

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


NORM_CASES = [
  (name + u, variant, mode)
  for name in NORMS
  for u in ('', 'u')
  for variant in ('affine', 'nobias')
  for mode in ('train', 'eval')
]


def norm_deviations(name, variant, mode, dtype):
  """Of output and gradients, for a norm."""
  arrays, expected = case('norm'), case(f'norm/{name}/{variant}/{mode}')
  layer = make_norm(name, variant, dtype)
  if mode == 'eval':
    layer.eval()
  x, g = (last(arrays[key]).astype(dtype) for key in ('x', 'g'))
  got = dict(zip(PARTS, gradients(layer, jnp.asarray(x), g), strict=True))
  assert {'y', 'gx_train'} <= set(expected)
  return {
    key: worst(got[key], last(expected[key])) if key in expected else np.nan
    for key in PARTS
  }


def token_norm_deviations(dtype):
  """Of output and gradients, for the norm of tokens."""
  arrays = case('layernorm')
  layer: Any = Norm(
    16, 'position', centered=True, param_dtype=dtype, rngs=nnx.Rngs(0)
  )
  layer.scale[...] = jnp.asarray(arrays['weight'], dtype)
  x, g = (arrays[key].astype(dtype) for key in ('x', 'g'))
  got = gradients(layer, jnp.asarray(x), g)
  found = {
    key: worst(a, arrays[key])
    for key, a in zip(PARTS[:3], got[:3], strict=True)
  }
  return found | {'gw_train': np.nan}
