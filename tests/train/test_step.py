"""One step of training, and counting on padded batches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bort_jax import bort_adamw
from bort_jax.train.step import count_correct, init_state, train_step


def apply_fn(params, x):
  return x.reshape(len(x), -1) @ params['kernel']


def batch(key):
  images = jax.random.randint(key, (6, 2, 2, 1), 0, 256).astype(jnp.uint8)
  return images, jnp.arange(6) % 3


def test_step_follows_the_gradient_of_the_cross_entropy():
  kernel = jax.random.normal(jax.random.key(0), (4, 3))
  images, labels = batch(jax.random.key(1))
  tx = optax.sgd(0.5)
  state = init_state({'kernel': kernel}, tx)
  new, metrics = train_step(apply_fn, tx, state, images, labels)
  x = np.asarray(images, np.float64).reshape(6, 4) / 255
  logits = x @ np.asarray(kernel, np.float64)
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  grad = x.T @ (p - np.eye(3)[labels]) / 6
  np.testing.assert_allclose(
    new.params['kernel'], kernel - 0.5 * grad, atol=1e-6
  )
  np.testing.assert_allclose(
    metrics.loss, -np.log(p[np.arange(6), labels]).mean(), rtol=1e-5
  )
  np.testing.assert_allclose(
    metrics.accuracy, np.mean(logits.argmax(1) == labels), rtol=1e-6
  )


def test_compiles_once_and_keeps_the_host_out():
  tx = bort_adamw(1e-3, 1.0)
  step = jax.jit(partial(train_step, apply_fn, tx), donate_argnums=0)
  state = init_state({'kernel': jnp.eye(4, 3)}, tx)
  images, labels = batch(jax.random.key(1))
  state, _ = step(state, images, labels)
  with jax.transfer_guard('disallow'):
    for _ in range(3):
      state, _ = step(state, images, labels)
  assert getattr(step, '_cache_size')() == 1  # noqa: B009


def test_init_state_survives_donation():
  params = {'kernel': jnp.eye(4, 3)}
  tx = optax.sgd(0.1)
  step = jax.jit(partial(train_step, apply_fn, tx), donate_argnums=0)
  step(init_state(params, tx), *batch(jax.random.key(1)))
  assert float(params['kernel'].sum()) == 3.0


def test_count_correct_counts_the_mask_alone():
  images = 255 * jnp.eye(4, dtype=jnp.uint8)[:3].reshape(3, 2, 2, 1)
  params = {'kernel': jnp.eye(4, 3)}
  labels = jnp.array([0, 2, 2])
  count = lambda mask: int(
    count_correct(apply_fn, params, images, labels, jnp.array(mask))
  )
  assert count([True, True, True]) == 2
  assert count([True, True, False]) == 1
