"""The published numbers, in our layout, and what the tests do with them."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bort_jax import nn

GOLDEN = pathlib.Path(__file__).parents[2] / 'golden' / 'bcos.npz'


@functools.cache
def golden():
  """All arrays of the file by name."""
  with np.load(GOLDEN) as data:
    return {name: data[name] for name in data.files}


def meta():
  return json.loads(str(golden()['meta_json']))


def case(name):
  """The arrays of a case, without its name."""
  prefix = f'{name}/'
  return {
    key.removeprefix(prefix): value
    for key, value in golden().items()
    if key.startswith(prefix)
  }


def last(x):
  """Channels last."""
  return np.moveaxis(x, 1, -1)


def hwio(w):
  """PyTorch's kernel in Flax's layout, dense or of a convolution."""
  return np.moveaxis(w, (0, 1), (-1, -2))


def set_kernel(layer, kernel):
  layer.kernel = nnx.Param(jnp.asarray(kernel))


def gradients(layer, x, g):
  """(output, explanation gradient, training gradient, that of the kernel)."""
  y, forward, *found = _gradients(*nn.functional(layer), x, g)
  assert np.array_equal(forward, y)  # bit for bit
  return y, *found


@functools.partial(jax.jit, static_argnums=0)
def _gradients(apply_fn, params, x, g):
  streams = nn.bcos.two_streams(apply_fn, params, x)
  _, pull = jax.vjp(apply_fn, params, x)
  of_params, of_x = pull(g)
  forward, pull_explained = jax.vjp(streams.linear, streams.encoded)
  of_kernel = of_params['kernel'][...] if 'kernel' in of_params else None
  return streams.output, forward, pull_explained(g)[0], of_x, of_kernel


def worst(got, expected):
  """The largest deviation, in units of the largest number."""
  scale = np.max(np.abs(expected))
  return float(np.max(np.abs(np.asarray(got) - expected)) / (scale or 1))
