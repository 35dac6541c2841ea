"""A small network trained on real pictures, and maps to be judged."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from quantus_adapter import CHANNELS_FIRST, Adapter

from bort_jax import nn
from bort_jax.train import Dataset


class Case(NamedTuple):
  """A trained network, pictures, and what is to be judged."""

  name: str
  apply_fn: Callable[[Any, Any], jax.Array]
  params: Any
  fresh: Any  # parameters of another initialization
  x: jax.Array  # (N, H, W, C)
  target: jax.Array  # (N,)
  maps: jax.Array  # (N, H, W), no two numbers of a map equal

  @property
  def step(self) -> int:
    """Pixels a step of a curve, of 32."""
    return self.x.shape[1] * self.x.shape[2] // 32

  @property
  def args(self) -> tuple[Any, Any, jax.Array, jax.Array]:
    """What every metric of the network takes first."""
    return self.apply_fn, self.params, self.x, self.target

  def adapter(self, softmax: bool, **options: Any) -> Adapter:
    """The network for Quantus."""
    return Adapter(jax.jit(self.apply_fn), self.params, softmax, **options)

  def batch(self) -> dict[str, np.ndarray]:
    """Pictures, classes and maps for Quantus, its own copies."""
    return {
      'x_batch': np.array(self.x).transpose(CHANNELS_FIRST).copy(),
      'y_batch': np.array(self.target),
      'a_batch': np.array(self.maps)[:, None].copy(),
    }

  def doubled(self) -> 'Case':
    """The same in float64, where that is on."""
    double = lambda tree: jax.tree.map(
      lambda values: jnp.asarray(values, jnp.float64), tree
    )
    return self._replace(
      name=self.name.replace('float32', 'float64'),
      params=double(self.params),
      fresh=double(self.fresh),
      x=double(self.x),
      maps=double(self.maps),
    )

  def logits(self, x: np.ndarray) -> np.ndarray:
    """The network of NumPy arrays."""
    return np.asarray(jax.jit(self.apply_fn)(self.params, jnp.asarray(x)))


@functools.partial(jax.jit, static_argnums=0)
def gradient(apply_fn, params, x, target) -> jax.Array:
  """The derivative of a class's logit."""
  score = lambda x: jnp.sum(
    jnp.take_along_axis(apply_fn(params, x), target[:, None], axis=1)
  )
  return jax.grad(score)(x)


def trained_case(dataset: Dataset, steps: int, pictures: int) -> Case:
  """A SimpleCNN trained on a data set for some steps."""
  shape = dataset.train_images.shape[1:]
  make = lambda seed: nn.functional(
    nn.create(
      'simple_cnn',
      image_shape=shape,
      num_classes=dataset.num_classes,
      widths=(4, 8, 8, 16, 16),
      activation='relu',
      rngs=nnx.Rngs(seed),
    )
  )
  (apply_fn, params), (_, fresh) = make(0), make(1)
  params = _fit(apply_fn, params, dataset, steps)
  x = jnp.asarray(dataset.test_images[:pictures], jnp.float32) / 255
  target = jnp.argmax(apply_fn(params, x), axis=-1)
  noise = jax.random.uniform(jax.random.key(0), x.shape[:3])
  saliency = jnp.sum(x * gradient(apply_fn, params, x, target), axis=-1)
  # black pixels have no share: noise, so that no two are equal
  maps = saliency + 0.01 * jnp.max(jnp.abs(saliency)) * noise
  name = f'{dataset.name}, float32'
  return Case(name, apply_fn, params, fresh, x, target, maps)


def _fit(apply_fn, params, dataset: Dataset, steps: int):
  optimizer = optax.adam(3e-3)

  @jax.jit
  def step(params, state, x, labels):
    def loss(params):
      logits = apply_fn(params, x)
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return jnp.mean(losses)

    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  state, rng = optimizer.init(params), np.random.default_rng(0)
  for _ in range(steps):
    drawn = rng.choice(len(dataset.train_labels), 64, replace=False)
    x = jnp.asarray(dataset.train_images[drawn], jnp.float32) / 255
    params, state = step(params, state, x, dataset.train_labels[drawn])
  return params


def apart(ours, theirs) -> float:
  """The largest deviation; NaN if one of the numbers is."""
  ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
  if ours.shape != theirs.shape:
    raise ValueError(f'{ours.shape} is compared with {theirs.shape}.')
  return float(np.max(np.abs(ours - theirs)))
