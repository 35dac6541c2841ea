"""Adversarial training with the consistent loss.

Found of the papers, in their abstracts and notes of others: training on
adversarial pictures with a loss that aligns the representations of real and
adversarial pictures. Not found: its weights, layers and form. What is here is
our reading: CE(x) + CE(x*) + β · the mean over layers of ‖φ(x) − φ(x*)‖², the
mean over the pictures, with x* by FGSM or PGD and ε drawn for each picture.

References:
  Dong et al., `Towards Interpretable Deep Neural Networks by Leveraging
  Adversarial Examples <https://arxiv.org/abs/1708.05493>`_, 2017, and, of the
  same title, `2019 <https://arxiv.org/abs/1901.09035>`_
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bort_jax import attacks
from bort_jax.products import as_products
from bort_jax.train.adversarial import Adversarial
from bort_jax.train.augment import EPSILON, picture_keys
from bort_jax.train.errors import RunError
from bort_jax.train.network import Network

_LOGITS = 'logits'


@dataclasses.dataclass(frozen=True)
class _Evaluating:
  """A network as attacks take it; equal ones are compiled once."""

  network: Network

  def __call__(self, weights: Any, x: jax.Array) -> jax.Array:
    """Logits of pictures, each by itself."""
    return as_products(self.network.apply)(*weights, x)


def paired(
  options: Adversarial,
  network: Network,
  weights: tuple[Any, Any],
  key: jax.Array,
  first_index: int | jax.Array,
  images: jax.Array,
  targets: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Puts behind each picture its adversarial one.

  Pairs are neighbours, so a batch that is split over devices is paired without
  communication. The attack is on the network as it is evaluated: with running
  statistics, without dropout. PGD starts at the picture itself, so that nothing
  depends on how the batch is split.

  Args:
    options: which attack; ``'none'`` changes nothing.
    network: the network.
    weights: its parameters and statistics.
    key: the random key of the batch; it may be that of ``augment_batch``.
    first_index: index of the first picture in the whole batch.
    images: (N, H, W, C) float32 in 0 … 1.
    targets: (N, K) soft labels; the class to leave is the largest of each.

  Returns:
    Pictures (2N, H, W, C) and targets (2N, K).
  """
  if not options.is_on:
    return images, targets
  keys = picture_keys(key, first_index, len(images))
  draw = lambda key: jax.random.uniform(jax.random.fold_in(key, EPSILON))
  epsilon = options.epsilon * jax.vmap(draw)(keys)
  case = (
    _Evaluating(network),
    weights,
    images,
    jnp.argmax(targets, axis=-1),
    epsilon,
  )
  if options.attack == 'pgd':
    attack = attacks.pgd(*case, steps=options.attack_steps)
  else:
    attack = attacks.fgsm(*case)
  pairs = jnp.stack([images, jax.lax.stop_gradient(attack.x)], axis=1)
  return pairs.reshape(-1, *images.shape[1:]), jnp.repeat(targets, 2, axis=0)


def run_paired(
  options: Adversarial,
  network: Network,
  params: Any,
  stats: Any,
  images: jax.Array,
  key: jax.Array,
) -> tuple[jax.Array, Any, jax.Array]:
  """Runs a network on pairs, in one pass.

  Both of a pair are normalized by the same batch statistics, those of real and
  adversarial pictures together, and one dropout and stochastic depth is drawn
  for both, so that what their layers differ by is theirs; running statistics
  are those of both too. Where β is 0 no layers are needed, and dropout is drawn
  for each picture by itself.

  Args:
    options: see :func:`paired`.
    network: the network.
    params: its parameters.
    stats: its running statistics.
    images: pictures as :func:`paired` gives them.
    key: of dropout.

  Returns:
    Logits, the new statistics, and β times the consistent loss (): 0 without an
    attack, and where β is 0.
  """
  if not options.compares_layers:
    return *network.train(params, stats, images, key), jnp.float32(0)
  outputs, stats = network.train_pairs(params, stats, images, key)
  names = options.consistent_layers or consistent_by_default(outputs)
  loss = jnp.mean(jnp.stack([_distance(outputs[name]) for name in names]))
  return outputs[_LOGITS], stats, options.beta * loss


def _distance(output: jax.Array) -> jax.Array:
  """The mean over pairs of the squared distance of both."""
  output = output.astype(jnp.promote_types(output.dtype, jnp.float32))
  difference = output[0::2] - output[1::2]
  return jnp.sum(jnp.square(difference)) / len(difference)


def consistent_by_default(outputs: Mapping[str, Any]) -> list[str]:
  """The names of all layers but the logits."""
  return [name for name in outputs if name != _LOGITS]


def check_layers(
  options: Adversarial, network: Network, image_shape: Sequence[int]
) -> None:
  """Refuses layers that a network does not name, before anything takes long.

  Raises:
    RunError: if there is no such layer, or the network names none.
  """
  if not options.compares_layers:
    return
  x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)

  def named(x):
    model: Any = network.merge(*network.init())
    if not hasattr(model, 'intermediates'):
      return {}
    return model.intermediates(x)

  outputs = jax.eval_shape(named, x)
  names = consistent_by_default(outputs)
  if not outputs or not (names or options.consistent_layers):
    raise RunError(
      'The consistent loss compares layers by their names, but this network'
      ' names none but its logits. Choose another --model, or set --beta 0 to'
      ' train on adversarial pictures without it.'
    )
  for layer in options.consistent_layers:
    if layer not in outputs:
      near = difflib.get_close_matches(layer, names, n=1)
      hint = f' Did you mean {near[0]!r}?' if near else ''
      raise RunError(
        f'There is no layer {layer!r} for consistent_layers; there are'
        f' {", ".join(names)}.{hint}'
      )
