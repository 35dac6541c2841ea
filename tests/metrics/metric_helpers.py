"""Networks, pictures and reference curves that the tests of metrics share."""

import contextlib
import functools
import math
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np

REPRODUCE = pathlib.Path(__file__).parents[2] / 'experiments' / 'reproduce'
PUBLISHED = runpy.run_path(str(REPRODUCE / 'published_metrics.py'))


def flat(x):
  return x.reshape(len(x), math.prod(x.shape[1:]))


def linear(params, x):
  return flat(x) @ params


def convolutional(params, x):
  """Any size of picture, logits by the mean of a feature map."""
  kernel, head = params
  code = jax.nn.relu(convolved(x, kernel))
  return jnp.mean(code, axis=(1, 2)) @ head


def convolved(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def conv_params(channels, classes=4, seed=0, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(seed))
  kernel = jax.random.normal(keys[0], (3, 3, channels, 8), dtype)
  return kernel, jax.random.normal(keys[1], (8, classes), dtype)


def pictures(shape, seed=1, dtype=jnp.float32):
  return jax.random.uniform(jax.random.key(seed), shape, dtype)


def network(shape=(3, 6, 5, 2), classes=4, dtype=jnp.float32):
  """A network, its parameters, pictures, and what it predicts."""
  params = conv_params(shape[-1], classes, dtype=dtype)
  x = pictures(shape, dtype=dtype)
  target = jnp.argmax(convolutional(params, x), axis=-1)
  return convolutional, params, x, target


@functools.partial(jax.jit, static_argnums=0)
def gradient(apply_fn, params, x, target):
  chosen = target[:, None]
  score = lambda x: jnp.sum(
    jnp.take_along_axis(apply_fn(params, x), chosen, axis=1)
  )
  return jax.grad(score)(x)


def numpy_logits(apply_fn, params):
  compiled = jax.jit(apply_fn)
  return lambda x: np.asarray(compiled(params, jnp.asarray(x)))


@contextlib.contextmanager
def compilations():
  """Counts what is compiled meanwhile."""
  count = []

  def listen(event, *_, **__):
    if event.endswith('backend_compile_duration'):
      count.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield count
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
