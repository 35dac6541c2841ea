"""B-cos Inception-v3."""

from collections.abc import Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.bcos.layers import BcosLayers, BcosSettings, Ends, make_layers
from bort_jax.nn.residual import ConvNorm

# One convolution: output channels, kernel, stride, padding (None: half).
_Step = tuple[int, tuple[int, int], int, int | None]


def _half(outputs: int, rows: int, columns: int | None = None) -> _Step:
  return outputs, (rows, columns or rows), 1, None


def _down(outputs: int) -> _Step:
  return outputs, (3, 3), 2, 0


class Chain(nnx.Module):
  """Convolutions with norms, one after the other, perhaps behind a mean.

  Args:
    inputs: input channels.
    steps: the convolutions.
    layers: makes the layers.
    pool: whether a 3×3 mean comes first.
    forks: convolutions side by side at the end.
  """

  def __init__(
    self,
    inputs: int,
    steps: Sequence[_Step],
    layers: BcosLayers,
    *,
    pool: bool = False,
    forks: Sequence[_Step] = (),
  ):
    self.pool = pool
    self.steps, self.forks = nnx.List(), nnx.List()
    for step in steps:
      self.steps.append(_ConvNorm(inputs, step, layers))
      inputs = step[0]
    for fork in forks:
      self.forks.append(_ConvNorm(inputs, fork, layers))
    self.outputs = sum(fork[0] for fork in forks) or inputs

  def __call__(self, x: jax.Array) -> jax.Array:
    """Pictures (N, H, W, inputs) to (N, h, w, outputs)."""
    if self.pool:
      x = nnx.avg_pool(x, (3, 3), strides=(1, 1), padding='SAME')
    for step in self.steps:
      x = step(x)
    if not self.forks:
      return x
    return jnp.concatenate([fork(x) for fork in self.forks], axis=-1)


class Mixed(nnx.Module):
  """Chains side by side; one that halves has a mean beside them.

  Args:
    inputs: input channels.
    chains: arguments of each :class:`Chain`.
    layers: makes the layers.
  """

  def __init__(
    self, inputs: int, chains: Sequence[dict[str, Any]], layers: BcosLayers
  ):
    self.chains = nnx.List(
      Chain(inputs, layers=layers, **chain) for chain in chains
    )
    last = chains[0]['steps'][-1]
    self.halves = last[2] == 2
    self.outputs = sum(chain.outputs for chain in self.chains)
    self.outputs += inputs if self.halves else 0

  def __call__(self, x: jax.Array) -> jax.Array:
    """Pictures (N, H, W, inputs) to (N, h, w, outputs)."""
    parts = [chain(x) for chain in self.chains]
    if self.halves:
      parts.append(_halving_mean(x))
    return jnp.concatenate(parts, axis=-1)


class BcosInceptionV3(nnx.Module):
  """B-cos Inception-v3, without the auxiliary classifier.

  Maxima are means, and the head of each pixel comes before the mean over space.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    rngs: random keys of the initialization.
    **settings: see :class:`BcosSettings`; uncentred batch norm without bias by
      default.

  Raises:
    ValueError: if a side of the pictures is shorter than 75 pixels, or a
      setting is not valid.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.bcos import BcosInceptionV3
    >>> def outputs_of_inception(x):
    ...   model = BcosInceptionV3((299, 299, 3), 1000, rngs=nnx.Rngs(0))
    ...   return model.intermediates(x)
    >>> outputs = nnx.eval_shape(
    ...   outputs_of_inception, jnp.zeros((2, 299, 299, 3))
    ... )
    >>> outputs['mixed11'].shape
    (2, 8, 8, 2048)

  References:
    Szegedy et al., `Rethinking the Inception Architecture for Computer Vision
    <https://arxiv.org/abs/1512.00567>`_, 2015
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    rngs: nnx.Rngs,
    **settings: Unpack[BcosSettings],
  ):
    if min(image_shape[:2]) < 75:
      raise ValueError(
        'Inception-v3 needs pictures of 75×75 pixels or more, got'
        f' {image_shape[0]}×{image_shape[1]}. Resize the pictures.'
      )
    self.ends = Ends(image_shape, num_classes, settings)
    layers = make_layers(settings, rngs, norm_epsilon=1e-3)
    first = [_down(32), (32, (3, 3), 1, 0), _half(64, 3)]
    second = [_half(80, 1), (192, (3, 3), 1, 0)]
    self.stem1 = Chain(self.ends.channels, first, layers)
    self.stem2 = Chain(64, second, layers)
    self.mixed = nnx.List()
    width = 192
    for chains in _MIXED:
      block = Mixed(width, chains, layers)
      self.mixed.append(block)
      width = block.outputs
    self.head = layers.linear(width, num_classes)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits (N, classes) of pictures (N, H, W, C)."""
    return self.intermediates(x)['logits']

  def intermediates(self, x: jax.Array) -> dict[str, jax.Array]:
    """``stem1``, ``stem2``, ``mixed1``, …, ``head``, ``pool``, ``logits``."""
    x = self.ends.encode(x)
    out = {}
    x = out['stem1'] = _halving_mean(self.stem1(x))
    x = out['stem2'] = _halving_mean(self.stem2(x))
    for number, block in enumerate(self.mixed, 1):
      x = out[f'mixed{number}'] = block(x)
    out['head'] = self.head(x)
    out['pool'] = jnp.mean(out['head'], axis=(1, 2))
    out['logits'] = self.ends.finish(out['pool'])
    return out


class _ConvNorm(ConvNorm):
  """The convolution of a step and its norm."""

  def __init__(self, inputs: int, step: _Step, layers: BcosLayers):
    outputs, kernel, stride, padding = step
    self.conv = layers.conv(inputs, outputs, kernel, stride, padding=padding)
    self.norm = layers.norm(outputs)


def _halving_mean(x: jax.Array) -> jax.Array:
  return nnx.avg_pool(x, (3, 3), strides=(2, 2))


def _pixels(pool: int) -> list[dict[str, Any]]:
  """Chains of 5×5 and 3×3 kernels."""
  return [
    {'steps': [_half(64, 1)]},
    {'steps': [_half(48, 1), _half(64, 5)]},
    {'steps': [_half(64, 1), _half(96, 3), _half(96, 3)]},
    {'steps': [_half(pool, 1)], 'pool': True},
  ]


def _lines(width: int) -> list[dict[str, Any]]:
  """Chains of 7×7 kernels as rows and columns."""
  row, column = _half(width, 1, 7), _half(width, 7, 1)
  return [
    {'steps': [_half(192, 1)]},
    {'steps': [_half(width, 1), row, _half(192, 7, 1)]},
    {'steps': [_half(width, 1), column, row, column, _half(192, 1, 7)]},
    {'steps': [_half(192, 1)], 'pool': True},
  ]


_forks = [_half(384, 1, 3), _half(384, 3, 1)]
_LAST = [
  {'steps': [_half(320, 1)]},
  {'steps': [_half(384, 1)], 'forks': _forks},
  {'steps': [_half(448, 1), _half(384, 3)], 'forks': _forks},
  {'steps': [_half(192, 1)], 'pool': True},
]
_MIXED = [
  *(_pixels(pool) for pool in (32, 64, 64)),
  [
    {'steps': [_down(384)]},
    {'steps': [_half(64, 1), _half(96, 3), _down(96)]},
  ],
  *(_lines(width) for width in (128, 160, 160, 192)),
  [
    {'steps': [_half(192, 1), _down(320)]},
    {
      'steps': [
        _half(192, 1),
        _half(192, 1, 7),
        _half(192, 7, 1),
        _down(192),
      ]
    },
  ],
  _LAST,
  _LAST,
]
