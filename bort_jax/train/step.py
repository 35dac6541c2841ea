"""One pure step of training, and of evaluation."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

Apply: TypeAlias = Callable[[Any, jax.Array], jax.Array]


class TrainState(NamedTuple):
  """Everything that a step changes."""

  params: Any
  opt_state: optax.OptState


class Metrics(NamedTuple):
  """Means over one batch."""

  loss: jax.Array
  accuracy: jax.Array


def init_state(params: Any, tx: optax.GradientTransformation) -> TrainState:
  """The state before the first step, in buffers of its own."""
  # Copied because the step donates its state, and both networks start alike.
  params = jax.tree.map(jnp.copy, params)
  return TrainState(params, tx.init(params))


def train_step(
  apply_fn: Apply,
  tx: optax.GradientTransformation,
  state: TrainState,
  images: jax.Array,
  labels: jax.Array,
) -> tuple[TrainState, Metrics]:
  """One gradient step on a batch.

  Args:
    apply_fn: parameters and pictures in 0 … 1 to logits (N, classes).
    tx: the optimizer.
    state: state before the step.
    images: (N, H, W, C) uint8.
    labels: (N,) int32.

  Returns:
    The state after the step, and the metrics before it.

  Examples:
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from bort_jax.train.step import init_state, train_step
    >>> apply_fn = lambda params, x: x.reshape(len(x), -1) @ params['kernel']
    >>> tx = optax.sgd(0.1)
    >>> state = init_state({'kernel': jnp.zeros((4, 2))}, tx)
    >>> images = jnp.full((3, 2, 2, 1), 255, jnp.uint8)
    >>> labels = jnp.zeros(3, jnp.int32)
    >>> state, metrics = train_step(apply_fn, tx, state, images, labels)
    >>> round(float(metrics.loss), 4)
    0.6931
  """

  def loss_fn(params):
    logits = apply_fn(params, to_unit_range(images)).astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean(), logits

  (loss, logits), grads = jax.value_and_grad(loss_fn, has_aux=True)(
    state.params
  )
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  accuracy = jnp.mean(jnp.argmax(logits, -1) == labels)
  return TrainState(params, opt_state), Metrics(loss, accuracy)


def count_correct(
  apply_fn: Apply,
  params: Any,
  images: jax.Array,
  labels: jax.Array,
  mask: jax.Array,
) -> jax.Array:
  """The number of pictures, of those in the mask, whose class is found."""
  logits = apply_fn(params, to_unit_range(images))
  return jnp.sum((jnp.argmax(logits, -1) == labels) & mask)


def to_unit_range(images: jax.typing.ArrayLike) -> jax.Array:
  """Pictures in 0 … 255 as float32 in 0 … 1."""
  return jnp.asarray(images, jnp.float32) / 255
