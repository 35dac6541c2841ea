"""torchvision's names of VGG16."""

import numpy as np

from bort_jax.nn.torch_names.rule import Rule, batch_norm, conv, linear
from bort_jax.nn.vgg import VGG16


def vgg_names(model: VGG16) -> list[Rule]:
  """The rules of VGG16, with or without batch normalization.

  torchvision numbers everything in a row: convolution, batch normalization if
  there is one, activation, and the end of a stage. Where that is a convolution
  (``pooling='conv'``), it is expected under the number of the maximum whose
  place it takes.

  Args:
    model: the network.

  Returns:
    One rule for each of its arrays but a logit scale.

  Examples:
    >>> from flax import nnx
    >>> from bort_jax.nn.torch_names.vgg import vgg_names
    >>> from bort_jax.nn.vgg import VGG16
    >>> model = nnx.eval_shape(
    ...   lambda: VGG16((32, 32, 3), 10, pooling='max', rngs=nnx.Rngs(0))
    ... )
    >>> vgg_names(model)[2][:2]
    ('features.2.weight', 'stages/0/1/conv/kernel')
  """
  rules = []
  number = 0
  for i, stage in enumerate(model.stages):
    for j, layer in enumerate(stage):
      ours = f'stages/{i}/{j}'
      rules += conv(f'features.{number}', f'{ours}/conv', bias=True)
      number += 1
      if layer.norm is not None:
        rules += batch_norm(f'features.{number}', f'{ours}/norm')
        number += 1
      number += 1  # the activation
    if model.pooling == 'conv':
      rules += conv(f'features.{number}', f'downs/{i}', bias=True)
    number += 1
  first, first_bias = linear('classifier.0', 'fc1')
  rules += [first._replace(transform=_rows_columns_channels), first_bias]
  return rules + linear('classifier.3', 'fc2') + linear('classifier.6', 'head')


def _rows_columns_channels(w: np.ndarray) -> np.ndarray:
  """Reorders inputs that PyTorch flattened by channel, row and column."""
  outputs, inputs = w.shape
  side = 7
  maps = w.reshape(outputs, inputs // side**2, side, side)
  return maps.transpose(2, 3, 1, 0).reshape(inputs, outputs)
