"""Networks and pictures that the tests of attacks share."""

import math

import jax
import jax.numpy as jnp


def linear(params, x):
  return flat(x) @ params


def flat(x):
  return x.reshape(len(x), math.prod(x.shape[1:]))


def two_layers(params, x):
  first, second = params
  return jnp.tanh(flat(x) @ first) @ second


def two_layer_params(shape, classes, seed=0, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(seed))
  size = math.prod(shape[1:])
  first = jax.random.normal(keys[0], (size, 16), dtype) / size**0.5
  second = jax.random.normal(keys[1], (16, classes), dtype)
  return first, second


def pictures(shape, seed=1, dtype=jnp.float32):
  return jax.random.uniform(jax.random.key(seed), shape, dtype)


def sign_of(weights, x):
  """A binary classifier's direction from class 0 to class 1."""
  return jnp.sign(weights[:, 1] - weights[:, 0]).reshape(x.shape[1:])


def network(shape=(3, 4, 5, 2), classes=4, dtype=jnp.float32):
  x = pictures(shape, dtype=dtype)
  params = two_layer_params(shape, classes, dtype=dtype)
  return two_layers, params, x, jnp.argmax(two_layers(params, x), axis=-1)
