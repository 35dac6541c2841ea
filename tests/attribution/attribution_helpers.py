"""Networks, pictures and methods that the tests of attributions share."""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax import attribution

SHAPE = 3, 6, 6, 2
CLASSES = 4


def conv(x, kernel, stride=1):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def row(bias, like):
  return bias.reshape(*[1] * (like.ndim - 1), -1)


def max_pool(x):
  window = 1, 2, 2, 1
  return jax.lax.reduce_window(x, -np.inf, jax.lax.max, window, window, 'SAME')


def layers(params, x, activation=jax.nn.relu):
  """Convolutions, pooling and a dense layer, each with a bias."""
  y = conv(x, params['kernel0'])
  y = activation(y + row(params['bias0'], y))
  y = conv(max_pool(y), params['kernel1'])
  y = activation(y + row(params['bias1'], y))
  logits = jnp.mean(y, (1, 2)) @ params['dense']
  return {'maps': y, 'logits': logits + row(params['bias2'], logits)}


def cnn(params, x):
  return layers(params, x)['logits']


def shallow(params, x):
  """One convolution: it compiles fast."""
  y = conv(x, params['kernel0'], 2)
  y = jax.nn.relu(y + row(params['bias0'], y))
  logits = jnp.mean(y, (1, 2)) @ params['dense']
  return logits + row(params['bias2'], logits)


def residual(params, x):
  """A block with a skip."""
  y = jax.nn.relu(conv(x, params['kernel0']))
  z = jax.nn.relu(conv(y, params['kernel1']))
  y = jax.nn.relu(y + conv(z, params['kernel1']))
  return jnp.mean(y, (1, 2)) @ params['dense']


def reused(params, x):
  """One layer, three times."""
  y = jax.nn.relu(conv(x, params['kernel0']))
  for _ in range(3):
    y = jax.nn.relu(conv(y, params['kernel1']))
  return jnp.mean(y, (1, 2)) @ params['dense']


# drawn by NumPy: jax.random compiles for every shape
def parameters(seed=0, bias=0.1, dtype=jnp.float32, width=5):
  rng = np.random.default_rng(seed)
  draw = lambda scale, *shape: jnp.asarray(
    scale * rng.standard_normal(shape), dtype
  )
  return {
    'kernel0': draw(0.3, 3, 3, SHAPE[-1], width),
    'kernel1': draw(0.2, 3, 3, width, width),
    'dense': draw(1.0, width, CLASSES),
    'bias0': draw(bias, width),
    'bias1': draw(bias, width),
    'bias2': draw(bias, CLASSES),
  }


def pictures(shape=SHAPE, seed=7, dtype=jnp.float32):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


TARGET = jnp.array([1, 3, 0])
KEY = jax.random.key(5)

METHODS = {
  'gradient': attribution.gradient,
  'gradient_times_input': attribution.gradient_times_input,
  'smooth_grad': functools.partial(attribution.smooth_grad, key=KEY, samples=5),
  'integrated_gradients': functools.partial(
    attribution.integrated_gradients, steps=5
  ),
  'expected_gradients': functools.partial(
    attribution.expected_gradients,
    key=KEY,
    samples=5,
    background=pictures((4, *SHAPE[1:]), 8),
  ),
  'guided_backprop': attribution.guided_backprop,
  'deconvnet': attribution.deconvnet,
  'grad_cam': functools.partial(attribution.grad_cam, layer=1),
  'grad_cam_plus_plus': functools.partial(
    attribution.grad_cam_plus_plus, layer=1
  ),
  'lrp': attribution.lrp,
  'lrp_z_plus': functools.partial(attribution.lrp, rule='z_plus'),
  'occlusion': functools.partial(attribution.occlusion, window=3, stride=2),
  'rise': functools.partial(attribution.rise, key=KEY, masks=7, cells=3),
}


def logit(apply_fn, params, x, target=TARGET):
  logits = np.asarray(jax.jit(apply_fn)(params, x))
  return logits[np.arange(len(x)), target]


def total(maps):
  return np.sum(np.asarray(maps), (1, 2, 3))


@contextlib.contextmanager
def compilations():
  """Counts what is compiled meanwhile."""
  count: list[Any] = []

  def listen(event, *_, **__):
    if event.endswith('backend_compile_duration'):
      count.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield count
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
