"""One pure step of training, and of evaluation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bort_jax.products import as_products
from bort_jax.train.adversarial import Adversarial
from bort_jax.train.augment import Recipe, augment_batch, mix_batch
from bort_jax.train.consistent import paired, run_paired
from bort_jax.train.losses import Loss, picture_losses
from bort_jax.train.network import Network


class TrainState(NamedTuple):
  """Everything that a step changes."""

  step: jax.Array  # shape=(), dtype=jnp.int32; steps done
  params: Any
  stats: Any  # running statistics
  opt_state: optax.OptState
  ema: Any  # running average of (params, stats), or None


class Metrics(NamedTuple):
  """Means over one batch."""

  loss: jax.Array
  accuracy: jax.Array


class Counts(NamedTuple):
  """Sums over the pictures of a batch that are in its mask."""

  loss: jax.Array
  correct: jax.Array
  pictures: jax.Array


class StepOptions(NamedTuple):
  """What a step of training does beside following the gradient."""

  augment: Recipe = Recipe()
  label_smoothing: float = 0.0
  ema: float | None = None  # largest decay of the running average
  axis_name: str | None = None  # of a pmap
  adversarial: Adversarial = Adversarial()
  loss: Loss = 'softmax'


def init_state(
  network: Network, tx: optax.GradientTransformation, ema: bool = False
) -> TrainState:
  """The state before the first step."""
  return first_state(tx, ema, *network.init())


def first_state(
  tx: optax.GradientTransformation, ema: bool, params: Any, stats: Any
) -> TrainState:
  """The state before the first step, of weights that are there."""
  average = jax.tree.map(jnp.copy, (params, stats)) if ema else None
  return TrainState(
    jnp.zeros([], jnp.int32), params, stats, tx.init(params), average
  )


def train_step(
  network: Network,
  tx: optax.GradientTransformation,
  options: StepOptions,
  state: TrainState,
  images: jax.Array,
  labels: jax.Array,
  key: jax.Array,
) -> tuple[TrainState, Metrics]:
  """One gradient step on a batch.

  Args:
    network: the network.
    tx: the optimizer.
    options: what else the step does.
    state: state before the step.
    images: (N, H, W, C) uint8; under a pmap, those of one device.
    labels: (N,) int32.
    key: the key of the whole run; the step's own is drawn from it.

  Returns:
    The state after the step, and the metrics before it.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from flax import nnx
    >>> from bort_jax.nn import SimpleCNN
    >>> from bort_jax.train.network import make_network
    >>> from bort_jax.train.step import StepOptions, init_state, train_step
    >>> network = make_network(
    ...   lambda: SimpleCNN((8, 8, 1), 2, rngs=nnx.Rngs(0))
    ... )
    >>> tx = optax.sgd(0.1)
    >>> images = jnp.zeros((3, 8, 8, 1), jnp.uint8)
    >>> labels = jnp.zeros(3, jnp.int32)
    >>> state, metrics = train_step(
    ...   network,
    ...   tx,
    ...   StepOptions(),
    ...   init_state(network, tx),
    ...   images,
    ...   labels,
    ...   jax.random.key(0),
    ... )
    >>> int(state.step), round(float(metrics.loss), 4)
    (1, 0.6931)
  """
  key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
  first = len(images) * _device_index(options.axis_name)
  targets = jax.nn.one_hot(labels, _num_classes(network, state, images))
  targets = optax.smooth_labels(targets, options.label_smoothing)
  images = augment_batch(options.augment, key, first, images)
  if options.augment.mixup or options.augment.cutmix:
    images, targets = mix_batch(options.augment, key, first, images, targets)
  pairs, weights = options.adversarial, (state.params, state.stats)
  images, targets = paired(pairs, network, weights, key, first, images, targets)
  copies = len(images) // len(labels)  # of each picture, the real one first

  def loss_fn(params):
    # Under a pmap each device draws its own dropout.
    draw = jax.random.fold_in(dropout_key, first)
    logits, stats, inconsistency = run_paired(
      pairs, network, params, state.stats, images, draw
    )
    logits = logits.astype(jnp.float32)
    loss = copies * picture_losses(options.loss, logits, targets).mean()
    return loss + inconsistency, (logits[::copies], stats)

  (loss, (logits, stats)), grads = jax.value_and_grad(
    as_products(loss_fn), has_aux=True
  )(state.params)
  metrics = Metrics(loss, jnp.mean(jnp.argmax(logits, -1) == labels))
  if options.axis_name is not None:
    grads, metrics = jax.lax.pmean((grads, metrics), options.axis_name)
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  ema = state.ema
  if options.ema is not None:
    ema = _follow(ema, (params, stats), options.ema, state.step)
  return TrainState(state.step + 1, params, stats, opt_state, ema), metrics


def _follow(average: Any, new: Any, decay: float, step: jax.Array) -> Any:
  """The running average; it forgets sooner while it is young.

  The warm-up (1 + step) / (10 + step) is that of TensorFlow's
  ExponentialMovingAverage.
  """
  share = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(
    lambda old, x: (
      (old + share * (x - old)).astype(x.dtype)
      if jnp.issubdtype(x.dtype, jnp.inexact)
      else x
    ),
    average,
    new,
  )


def evaluation_step(
  network: Network,
  axis_name: str | None,
  params: Any,
  stats: Any,
  images: jax.Array,
  labels: jax.Array,
  mask: jax.Array,
  *,
  loss: Loss,
) -> Counts:
  """Loss and correct classes, summed over the pictures in the mask.

  Targets that are never off are a part of training: what is measured is plain
  binary cross-entropy, as published.
  """
  apply = as_products(network.apply)
  logits = apply(params, stats, to_unit_range(images))
  logits = logits.astype(jnp.float32)
  targets = jax.nn.one_hot(labels, logits.shape[-1])
  plain = 'bce' if loss == 'bce_uniform_off' else loss
  losses = picture_losses(plain, logits, targets)
  correct = (jnp.argmax(logits, -1) == labels) & mask
  counts = Counts(
    jnp.sum(jnp.where(mask, losses, 0)), correct.sum(), mask.sum()
  )
  return jax.lax.psum(counts, axis_name) if axis_name else counts


def evaluated(state: TrainState) -> tuple[Any, Any]:
  """Parameters and statistics: their averages where there are, else as is."""
  return (state.params, state.stats) if state.ema is None else state.ema


def to_unit_range(images: jax.typing.ArrayLike) -> jax.Array:
  """Pictures in 0 … 255 as float32 in 0 … 1."""
  return jnp.asarray(images, jnp.float32) / 255


def _device_index(axis_name: str | None) -> int | jax.Array:
  if axis_name is None:
    return 0
  return jnp.asarray(jax.lax.axis_index(axis_name))


def _num_classes(network: Network, state: TrainState, images) -> int:
  x = jax.ShapeDtypeStruct(images.shape, jnp.float32)
  return jax.eval_shape(network.apply, state.params, state.stats, x).shape[-1]
