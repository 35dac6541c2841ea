"""torchvision's names of a ResNet."""

from collections.abc import Callable
from typing import TypeAlias

from bort_jax.nn.resnet import ResidualNetwork, ResNet
from bort_jax.nn.torch_names.rule import Rule, batch_norm, conv, linear

Names: TypeAlias = Callable[[str, str], list[Rule]]


def resnet_names(model: ResNet) -> list[Rule]:
  """The rules of a ResNet of any depth.

  Args:
    model: the network.

  Returns:
    One rule for each of its arrays but a logit scale.

  Examples:
    >>> from flax import nnx
    >>> from bort_jax.nn.resnet import ResNet
    >>> from bort_jax.nn.torch_names.resnet import resnet_names
    >>> model = nnx.eval_shape(
    ...   lambda: ResNet((32, 32, 3), 10, depth=18, rngs=nnx.Rngs(0))
    ... )
    >>> resnet_names(model)[5][:2]
    ('layer1.0.conv1.weight', 'stages/0/0/conv1/kernel')
  """
  return residual_names(model, conv, batch_norm, linear)


def residual_names(
  model: ResidualNetwork, conv: Names, norm: Names, head: Names
) -> list[Rule]:
  """The rules of a residual network of any layers.

  Args:
    model: the network.
    conv: rules of a convolution, of its name there and its path here.
    norm: those of a normalization.
    head: those of the head.

  Returns:
    The rules of all of them.
  """
  rules = conv('conv1', 'stem/conv') + norm('bn1', 'stem/norm')
  for i, blocks in enumerate(model.stages):
    for j, block in enumerate(blocks):
      torch, ours = f'layer{i + 1}.{j}', f'stages/{i}/{j}'
      for k in range(1, block.convolutions + 1):
        rules += conv(f'{torch}.conv{k}', f'{ours}/conv{k}')
        rules += norm(f'{torch}.bn{k}', f'{ours}/norm{k}')
      if block.shortcut is not None:
        rules += conv(f'{torch}.downsample.0', f'{ours}/shortcut/conv')
        rules += norm(f'{torch}.downsample.1', f'{ours}/shortcut/norm')
  return rules + head('fc', 'head')
