"""Weights of the published B-cos networks."""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx

from bort_jax.nn.bcos.convnext import BcosConvNeXt
from bort_jax.nn.bcos.densenet import BcosDenseNet
from bort_jax.nn.bcos.inception import BcosInceptionV3, Chain
from bort_jax.nn.bcos.resnet import BcosResidualNetwork
from bort_jax.nn.bcos.vgg import WIDTHS, BcosVGG11
from bort_jax.nn.bcos.vit import BcosViT
from bort_jax.nn.from_torch import fill
from bort_jax.nn.torch_names import rule as torch_rule
from bort_jax.nn.torch_names.resnet import residual_names
from bort_jax.nn.torch_names.rule import Rule
from bort_jax.selection import path_name

Model = TypeVar('Model', bound=nnx.Module)


def from_torch(
  state_dict: Mapping[str, Any] | str | os.PathLike[str], model: Model
) -> Model:
  """A B-cos network with published weights.

  The counterparts are the networks of B-cos-v2: :class:`BcosResNet` and
  :class:`BcosCifarResNet`, :class:`BcosVGG11` (vgg11_bnu),
  :class:`BcosDenseNet`, :class:`BcosConvNeXt` (convnext_tiny; with
  ``norm='batch', norm_centered=False`` convnext_tiny_bnu) and
  :class:`BcosViT`. Of :class:`BcosInceptionV3` the names are those of
  torchvision, with ``.linear`` in each convolution as in the others; no
  published file was at hand, and an auxiliary classifier is passed over. The
  rest is as in :func:`bort_jax.nn.from_torch`; running
  means that the network does not have, as uncentred norms use none, are passed
  over, and all names may begin with ``0.``.

  Args:
    state_dict: arrays by PyTorch's names, or the path of a .safetensors file.
    model: a network of the same geometry. It is not changed.

  Returns:
    A network like ``model`` with the weights of the file, in the dtypes of
    ``model``, in the same mode (training or evaluation).

  Raises:
    TypeError: if no weights are published for that class of network.
    ValueError: if names are missing or unknown or shapes differ.
    FileNotFoundError: if there is no such file.

  Examples:
    >>> import numpy as np
    >>> from flax import nnx
    >>> from bort_jax import nn
    >>> model = nn.bcos.BcosCifarResNet(
    ...   (8, 8, 3), 10, depth=8, rngs=nnx.Rngs(0)
    ... )
    >>> nn.bcos.from_torch({'fc.linear.weight': np.zeros(9)}, model)
    ... # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: The weights do not fit BcosCifarResNet. Missing: ...
  """
  params = nnx.state(model)
  paths = {path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(params)}
  rules = [rule for rule in _rules(model) if rule.ours in paths]
  unused = r'\.running_mean$|^AuxLogits\.'
  return fill(state_dict, model, rules, prefix='0.', unused=unused)


def _rules(model: nnx.Module) -> list[Rule]:
  """The rules of all that a network may have."""
  for family, names in _FAMILIES.items():
    if isinstance(model, family):
      return names(model)
  known = ', '.join(family.__name__ for family in _FAMILIES)
  raise TypeError(
    f'Weights are published for {known}, got a {type(model).__name__}.'
  )


def _conv(torch: str, ours: str) -> list[Rule]:
  return torch_rule.conv(f'{torch}.linear', ours)


def _dense(torch: str, ours: str) -> list[Rule]:
  return torch_rule.linear(f'{torch}.linear', ours, bias=False)


_norm = torch_rule.batch_norm


def _resnet_names(model: BcosResidualNetwork) -> list[Rule]:
  return residual_names(model, _conv, _norm, _conv)


def _vgg_names(model: BcosVGG11) -> list[Rule]:
  del model  # there is but one
  rules = []
  number = index = 0
  for widths in WIDTHS:
    for _ in widths:
      rules += _conv(f'features.{number}', f'convs/{index}')
      rules += _norm(f'features.{number + 1}', f'norms/{index}')
      number, index = number + 2, index + 1
    number += 1  # the mean
  for i, name in enumerate(('fc1', 'fc2', 'head')):
    rules += _conv(f'classifier.{i}', name)
  return rules


def _densenet_names(model: BcosDenseNet) -> list[Rule]:
  rules = _conv('features.conv0', 'stem/conv')
  rules += _norm('features.norm0', 'stem/norm')
  for i, block in enumerate(model.blocks):
    for j in range(len(block)):
      torch = f'features.denseblock{i + 1}.denselayer{j + 1}'
      for k in (1, 2):
        rules += _norm(f'{torch}.norm{k}', f'blocks/{i}/{j}/norm{k}')
        rules += _conv(f'{torch}.conv{k}', f'blocks/{i}/{j}/conv{k}')
  for i in range(len(model.transitions)):
    torch = f'features.transition{i + 1}'
    rules += _norm(f'{torch}.norm', f'transitions/{i}/norm')
    rules += _conv(f'{torch}.conv', f'transitions/{i}/conv')
  return rules + _norm('features.norm5', 'norm') + _conv('classifier', 'head')


def _convnext_names(model: BcosConvNeXt) -> list[Rule]:
  rules = _conv('features.0', 'patches') + _norm('features.1', 'norm')
  for i, blocks in enumerate(model.stages):
    for j in range(len(blocks)):
      torch, ours = f'features.{2 * i + 2}.{j}', f'stages/{i}/{j}'
      rules += _conv(f'{torch}.block.0', f'{ours}/conv')
      rules += _norm(f'{torch}.block.1', f'{ours}/norm')
      rules += _conv(f'{torch}.block.2', f'{ours}/fc1')
      rules += _conv(f'{torch}.block.3', f'{ours}/fc2')
      rules += [Rule(f'{torch}.layer_scale', f'{ours}/layer_scale', np.ravel)]
  for i in range(len(model.downs)):
    rules += _norm(f'features.{2 * i + 3}.0', f'downs/{i}/norm')
    rules += _conv(f'features.{2 * i + 3}.1', f'downs/{i}/conv')
  return (
    rules + _norm('classifier.0', 'last_norm') + _conv('classifier.1', 'head')
  )


def _inception_names(model: BcosInceptionV3) -> list[Rule]:
  rules = []
  for number, stem in enumerate((('1a', '2a', '2b'), ('3b', '4a')), 1):
    for i, name in enumerate(stem):
      side = 1 if name == '3b' else 3
      torch = f'Conv2d_{name}_{side}x{side}'
      rules += _conv_norm(torch, f'stem{number}/steps/{i}')
  blocks = zip(_INCEPTION_BLOCKS.items(), model.mixed, strict=True)
  for i, ((block, branches), mixed) in enumerate(blocks):
    for j, (name, chain) in enumerate(zip(branches, mixed.chains, strict=True)):
      torch, ours = f'Mixed_{block}.branch{name}', f'mixed/{i}/chains/{j}'
      for ending, place in _places(chain).items():
        rules += _conv_norm(torch + ending, f'{ours}/{place}')
  return rules + _conv('fc', 'head')


def _conv_norm(torch: str, ours: str) -> list[Rule]:
  conv, norm = _conv(f'{torch}.conv', f'{ours}/conv'), f'{ours}/norm'
  return conv + _norm(f'{torch}.bn', norm)


def _places(chain: Chain) -> dict[str, str]:
  """Where the convolutions of a branch are, by the ends of their names."""
  steps, forks = len(chain.steps), len(chain.forks)
  if steps == 1 and not forks:
    return {'': 'steps/0'}
  places = {f'_{i + 1}': f'steps/{i}' for i in range(steps)}
  ends = zip('ab'[:forks], range(forks), strict=True)
  return places | {f'_{steps + 1}{a}': f'forks/{i}' for a, i in ends}


_PIXELS = '1x1', '5x5', '3x3dbl', '_pool'
_LINES = '1x1', '7x7', '7x7dbl', '_pool'
_LAST = '1x1', '3x3', '3x3dbl', '_pool'
_INCEPTION_BLOCKS = {
  **dict.fromkeys(('5b', '5c', '5d'), _PIXELS),
  '6a': ('3x3', '3x3dbl'),
  **dict.fromkeys(('6b', '6c', '6d', '6e'), _LINES),
  '7a': ('3x3', '7x7x3'),
  **dict.fromkeys(('7b', '7c'), _LAST),
}


def _vit_names(model: BcosViT) -> list[Rule]:
  rules = _dense('to_patch_embedding.linear', 'patch_embed')
  for i in range(len(model.stem)):
    torch = 'to_patch_embedding.conv_stem'
    rules += _conv(f'{torch}.{3 * i}', f'stem/{i}/conv')
    rules += _norm(f'{torch}.{3 * i + 1}', f'stem/{i}/norm')
  for i in range(len(model.blocks)):
    torch, ours = f'transformer.encoder_{i}', f'blocks/{i}'
    rules += _norm(f'{torch}.attn.norm', f'{ours}/norm1')
    for part, name in enumerate(('query', 'key', 'value')):
      third = lambda w, part=part: np.split(w, 3)[part].T
      path = f'{ours}/attention/{name}/kernel'
      rules += [Rule(f'{torch}.attn.to_qkv.weight', path, third)]
    rules += _dense(f'{torch}.attn.to_out', f'{ours}/attention/out')
    rules += _norm(f'{torch}.ff.net.norm', f'{ours}/norm2')
    rules += _dense(f'{torch}.ff.net.linear1', f'{ours}/mlp/fc1')
    rules += _dense(f'{torch}.ff.net.linear2', f'{ours}/mlp/fc2')
  rules += _norm('linear_head.norm', 'norm')
  return rules + _dense('linear_head.linear', 'head')


_FAMILIES: dict[type[nnx.Module], Callable[[Any], list[Rule]]] = {
  BcosResidualNetwork: _resnet_names,
  BcosVGG11: _vgg_names,
  BcosDenseNet: _densenet_names,
  BcosInceptionV3: _inception_names,
  BcosConvNeXt: _convnext_names,
  BcosViT: _vit_names,
}
