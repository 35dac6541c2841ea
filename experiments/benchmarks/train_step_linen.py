"""Networks in Flax's Linen and a step that trains them, for train_step.py.

The step does what that of Flax's ImageNet example does: the loss with the decay
of all kernels in it, statistics as a second result, metrics. Nothing of the
project is imported.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen
from train_step_cases import (
  MOMENTUM,
  UPDATES,
  WARMUP,
  WEIGHT_DECAY,
  Case,
  Step,
)

conv = partial(linen.Conv, use_bias=False)
norm = partial(linen.BatchNorm, use_running_average=False, momentum=0.9)
zeros = linen.initializers.zeros


class BasicBlock(linen.Module):
  """Two 3×3 convolutions."""

  width: int
  stride: int

  @linen.compact
  def __call__(self, x):
    """The block's output."""
    strides = (self.stride, self.stride)
    y = linen.relu(norm()(conv(self.width, (3, 3), strides)(x)))
    y = norm(scale_init=zeros)(conv(self.width, (3, 3))(y))
    if x.shape != y.shape:
      x = norm()(conv(self.width, (1, 1), strides)(x))
    return linen.relu(x + y)


class Bottleneck(linen.Module):
  """Three convolutions, with the stride in the 3×3 one."""

  width: int
  stride: int

  @linen.compact
  def __call__(self, x):
    """The block's output."""
    strides = (self.stride, self.stride)
    y = linen.relu(norm()(conv(self.width, (1, 1))(x)))
    y = linen.relu(norm()(conv(self.width, (3, 3), strides)(y)))
    y = norm(scale_init=zeros)(conv(4 * self.width, (1, 1))(y))
    if x.shape != y.shape:
      x = norm()(conv(4 * self.width, (1, 1), strides)(x))
    return linen.relu(x + y)


class ResNet(linen.Module):
  """Four stages of blocks."""

  block: type[linen.Module]
  counts: tuple[int, ...]
  small: bool  # pictures, with a stem of stride one
  num_classes: int

  @linen.compact
  def __call__(self, x):
    """Logits."""
    if self.small:
      x = linen.relu(norm()(conv(64, (3, 3))(x)))
    else:
      x = linen.relu(norm()(conv(64, (7, 7), (2, 2), padding=3)(x)))
      padding: Any = ((1, 1), (1, 1))  # which Flax takes, untyped
      x = linen.max_pool(x, (3, 3), (2, 2), padding)
    block: Any = self.block
    for stage, count in enumerate(self.counts):
      for number in range(count):
        x = block(64 * 2**stage, 2 if stage and not number else 1)(x)
    return linen.Dense(self.num_classes)(jnp.mean(x, (1, 2)))


class ViT(linen.Module):
  """A vision transformer with a class token."""

  num_classes: int
  width: int = 384
  depth: int = 12
  num_heads: int = 6
  patch: int = 16

  @linen.compact
  def __call__(self, x):
    """Logits."""
    patch = (self.patch, self.patch)
    x = linen.Conv(self.width, patch, patch, padding='VALID')(x)
    x = x.reshape(len(x), -1, self.width)
    token = self.param('token', zeros, (1, 1, self.width))
    x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], axis=1)
    shape = (1, x.shape[1], self.width)
    x += self.param('position', linen.initializers.normal(0.02), shape)
    for _ in range(self.depth):
      y = linen.LayerNorm(1e-6)(x)
      x += linen.MultiHeadDotProductAttention(self.num_heads)(y, y)
      y = linen.Dense(4 * self.width)(linen.LayerNorm(1e-6)(x))
      x += linen.Dense(self.width)(linen.gelu(y, approximate=False))
    return linen.Dense(self.num_classes)(linen.LayerNorm(1e-6)(x)[:, 0])


def network_of(case: Case) -> linen.Module:
  """The network of a case."""
  if case.network == 'vit_s':
    return ViT(case.num_classes)
  block, counts = {
    'resnet18': (BasicBlock, (2, 2, 2, 2)),
    'resnet50': (Bottleneck, (3, 4, 6, 3)),
  }[case.network]
  small = min(case.image_shape[:2]) < 64
  return ResNet(block, counts, small, case.num_classes)


def kernels(params: Any) -> Any:
  """Whether a parameter decays."""
  is_kernel = lambda path, _: path[-1].key == 'kernel'
  return jax.tree_util.tree_map_with_path(is_kernel, params)


def linen_step(case: Case, images, labels) -> Step:
  """A step of training."""
  network = network_of(case)
  variables: Any = jax.jit(network.init)(
    jax.random.key(0), jnp.zeros((1, *case.image_shape))
  )
  decays = case.optimizer == 'sgd'  # in the loss
  rate = optax.warmup_cosine_decay_schedule(
    0.0, case.learning_rate, int(WARMUP * UPDATES), UPDATES
  )
  tx = (
    optax.sgd(rate, MOMENTUM)
    if decays
    else optax.adamw(rate, weight_decay=WEIGHT_DECAY, mask=kernels)
  )

  @partial(jax.jit, donate_argnums=0)
  def step(state, images, labels):
    params, stats, opt_state = state

    def loss_of(params):
      x = images.astype(jnp.float32) / 255
      logits, new = network.apply(
        {'params': params, **stats}, x, mutable=['batch_stats']
      )
      targets = jax.nn.one_hot(labels, case.num_classes)
      loss = jnp.mean(optax.softmax_cross_entropy(logits, targets))
      if decays:
        squares = [jnp.sum(w**2) for w in jax.tree.leaves(params) if w.ndim > 1]
        loss += WEIGHT_DECAY / 2 * sum(squares)
      return loss, (new, logits)

    value_and_grad = jax.value_and_grad(loss_of, has_aux=True)
    (loss, (stats, logits)), grads = value_and_grad(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    right = jnp.mean(jnp.argmax(logits, -1) == labels)
    state = optax.apply_updates(params, updates), stats, opt_state
    return state, (loss, right)

  params = variables.pop('params')
  carry = [(params, variables, tx.init(params))]

  def run():
    carry[0], metrics = step(carry[0], images, labels)
    jax.block_until_ready((carry[0], metrics))

  leaves = jax.tree.leaves(params)
  return Step(run, sum(math.prod(leaf.shape) for leaf in leaves))
