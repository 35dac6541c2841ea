"""One step of training, and counting on padded batches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from bort_jax import bort_adamw
from bort_jax.train.augment import Recipe
from bort_jax.train.network import make_network
from bort_jax.train.step import (
  StepOptions,
  evaluation_step,
  init_state,
  train_step,
)


class Linear(nnx.Module):
  def __init__(self, drop=0.0):
    self.layer = nnx.Linear(4, 3, use_bias=False, rngs=nnx.Rngs(0))
    self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0)) if drop else None
    self.drop = nnx.Dropout(drop, rngs=nnx.Rngs(0))

  def __call__(self, x):
    x = self.drop(x.reshape(len(x), -1))
    x = self.layer(x)
    return x if self.norm is None else self.norm(x)


NETWORK = make_network(Linear)
KEY = jax.random.key(0)


def batch(key):
  images = jax.random.randint(key, (6, 2, 2, 1), 0, 256).astype(jnp.uint8)
  return images, jnp.arange(6) % 3


def kernel_of(state):
  return np.asarray(state.params['layer']['kernel'][...], np.float64)


@pytest.mark.parametrize('smoothing', [0.0, 0.3])
def test_step_follows_the_gradient_of_the_cross_entropy(smoothing):
  images, labels = batch(jax.random.key(1))
  tx = optax.sgd(0.5)
  state = init_state(NETWORK, tx)
  kernel = kernel_of(state)
  options = StepOptions(label_smoothing=smoothing)
  new, metrics = train_step(NETWORK, tx, options, state, images, labels, KEY)
  x = np.asarray(images, np.float64).reshape(6, 4) / 255
  logits = x @ kernel
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  targets = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
  grad = x.T @ (p - targets) / 6
  np.testing.assert_allclose(kernel_of(new), kernel - 0.5 * grad, atol=1e-6)
  loss = -np.sum(targets * np.log(p), 1).mean()
  np.testing.assert_allclose(metrics.loss, loss, rtol=1e-5)
  np.testing.assert_allclose(
    metrics.accuracy, np.mean(logits.argmax(1) == labels), rtol=1e-6
  )
  assert int(new.step) == 1


@pytest.mark.parametrize(
  ('loss', 'off'), [('bce', 0.0), ('bce_uniform_off', 1 / 3)]
)
def test_step_follows_the_gradient_of_binary_cross_entropy(loss, off):
  images, labels = batch(jax.random.key(1))
  state = init_state(NETWORK, optax.sgd(0.5))
  kernel = kernel_of(state)
  new, metrics = train_step(
    NETWORK, optax.sgd(0.5), StepOptions(loss=loss), state, images, labels, KEY
  )
  x = np.asarray(images, np.float64).reshape(6, 4) / 255
  p = 1 / (1 + np.exp(-x @ kernel))
  targets = np.maximum(np.eye(3)[labels], off)
  grad = x.T @ (p - targets) / 18
  np.testing.assert_allclose(kernel_of(new), kernel - 0.5 * grad, atol=1e-6)
  losses = -targets * np.log(p) - (1 - targets) * np.log(1 - p)
  np.testing.assert_allclose(metrics.loss, losses.mean(), rtol=1e-5)
  counts = evaluation_step(
    NETWORK,
    None,
    state.params,
    state.stats,
    images,
    labels,
    jnp.arange(6) < 2,
    loss=loss,
  )
  right = np.eye(3)[labels]  # in evaluation off is off
  losses = -right * np.log(p) - (1 - right) * np.log(1 - p)
  np.testing.assert_allclose(counts.loss, losses[:2].mean(1).sum(), rtol=1e-5)


def test_compiles_once_and_keeps_the_host_out():
  tx = bort_adamw(1e-3, 1.0)
  options = StepOptions(Recipe(pad_crop=1, mixup=0.2), ema=0.9)
  step = jax.jit(partial(train_step, NETWORK, tx, options), donate_argnums=0)
  state = init_state(NETWORK, tx, ema=True)
  images, labels = batch(jax.random.key(1))
  state, _ = step(state, images, labels, KEY)
  with jax.transfer_guard('disallow'):
    for _ in range(3):
      state, _ = step(state, images, labels, KEY)
  assert getattr(step, '_cache_size')() == 1  # noqa: B009


def test_the_average_follows_the_parameters():
  tx = optax.sgd(0.5)
  state = init_state(NETWORK, tx, ema=True)
  step = jax.jit(partial(train_step, NETWORK, tx, StepOptions(ema=0.3)))
  expected = kernel_of(state)
  decays = [0.1, 2 / 11, 0.25, 4 / 13, 5 / 14]  # (1 + step) / (10 + step)
  for seed, decay in enumerate(decays):
    decay = min(0.3, decay)
    state, _ = step(state, *batch(jax.random.key(seed)), KEY)
    expected = decay * expected + (1 - decay) * kernel_of(state)
  average = state.ema[0]['layer']['kernel'][...]
  np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-6)


def test_dropout_and_statistics_are_functions_of_key_and_step():
  network = make_network(partial(Linear, 0.5))
  tx = optax.sgd(0.0)
  state = init_state(network, tx)
  step = jax.jit(partial(train_step, network, tx, StepOptions()))
  images, labels = batch(jax.random.key(1))
  first, metrics = step(state, images, labels, KEY)
  again, same = step(state, images, labels, KEY)
  _, other_key = step(state, images, labels, jax.random.key(1))
  _, next_step = step(first, images, labels, KEY)
  assert float(metrics.loss) == float(same.loss)
  losses = {float(m.loss) for m in (metrics, other_key, next_step)}
  assert len(losses) == 3
  assert np.any(first.stats['norm']['mean'][...] != 0)
  x = jnp.ones((2, 2, 2, 1))
  logits = network.apply(first.params, again.stats, x)
  np.testing.assert_array_equal(
    logits, network.apply(first.params, again.stats, x)
  )


def test_counts_are_of_the_mask_alone():
  images = 255 * jnp.eye(4, dtype=jnp.uint8)[:3].reshape(3, 2, 2, 1)
  state = init_state(NETWORK, optax.sgd(0.0))
  kernel = jnp.eye(4, 3)
  params = jax.tree.map(lambda _: kernel, state.params)
  labels = jnp.array([0, 2, 2])
  count = lambda mask: evaluation_step(
    NETWORK,
    None,
    params,
    state.stats,
    images,
    labels,
    jnp.array(mask),
    loss='softmax',
  )
  whole, part = count([True, True, True]), count([True, True, False])
  assert (int(whole.correct), int(whole.pictures)) == (2, 3)
  assert (int(part.correct), int(part.pictures)) == (1, 2)
  right = np.log(np.e + 2) - 1
  np.testing.assert_allclose(part.loss, 2 * right + 1, rtol=1e-5)
