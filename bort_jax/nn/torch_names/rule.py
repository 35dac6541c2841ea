"""One rule: which array of PyTorch's becomes which of ours, and how."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Rule(NamedTuple):
  """Fills one array of a network from one array of PyTorch's.

  Attributes:
    torch: its name in the state dict, e.g. ``'layer1.0.conv1.weight'``.
    ours: the path in the network, joined by ``/``, as
      :func:`bort_jax.selection.path_name` writes it, e.g.
      ``'stages/0/0/conv1/kernel'``.
    transform: from the array of the file to ours. It gets a numpy array and
      must give one of exactly our shape; the dtype is ours anyway. It runs only
      on arrays of the file, so an index or reshape that fails there is reported
      as a wrong shape.
  """

  torch: str
  ours: str
  transform: Callable[[np.ndarray], np.ndarray]


def conv(torch: str, ours: str, *, bias: bool = False) -> list[Rule]:
  """A convolution: its kernel (out, in, h, w) becomes (h, w, in, out).

  Args:
    torch: the layer's name in the state dict, without ``.weight``.
    ours: the layer's path, without ``/kernel``.
    bias: whether it has a bias.

  Returns:
    The rules of its arrays.

  Examples:
    >>> from bort_jax.nn.torch_names import conv
    >>> [rule.ours for rule in conv('features.0', 'convs/0', bias=True)]
    ['convs/0/kernel', 'convs/0/bias']
  """
  kernel = Rule(
    f'{torch}.weight', f'{ours}/kernel', lambda w: w.transpose(2, 3, 1, 0)
  )
  return [kernel, *_biases(torch, ours, bias)]


def linear(torch: str, ours: str, *, bias: bool = True) -> list[Rule]:
  """A dense layer: its kernel (out, in) becomes (in, out).

  Args:
    torch: as for :func:`conv`.
    ours: as for :func:`conv`.
    bias: as for :func:`conv`.

  Returns:
    The rules of its arrays.

  Examples:
    >>> from bort_jax.nn.torch_names import linear
    >>> [rule.torch for rule in linear('fc', 'head')]
    ['fc.weight', 'fc.bias']
  """
  kernel = Rule(
    f'{torch}.weight', f'{ours}/kernel', lambda w: w.transpose(1, 0)
  )
  return [kernel, *_biases(torch, ours, bias)]


def batch_norm(torch: str, ours: str) -> list[Rule]:
  """A batch normalization: scale, bias and running statistics.

  Args:
    torch: as for :func:`conv`.
    ours: as for :func:`conv`.

  Returns:
    The rules of its arrays.

  Examples:
    >>> from bort_jax.nn.torch_names import batch_norm
    >>> [rule.torch for rule in batch_norm('bn1', 'norm1')]
    ['bn1.weight', 'bn1.bias', 'bn1.running_mean', 'bn1.running_var']
  """
  return [
    Rule(f'{torch}.weight', f'{ours}/scale', _same),
    Rule(f'{torch}.bias', f'{ours}/bias', _same),
    Rule(f'{torch}.running_mean', f'{ours}/mean', _same),
    Rule(f'{torch}.running_var', f'{ours}/var', _same),
  ]


def _biases(torch: str, ours: str, bias: bool) -> list[Rule]:
  return [Rule(f'{torch}.bias', f'{ours}/bias', _same)] if bias else []


def _same(x: np.ndarray) -> np.ndarray:
  return x
