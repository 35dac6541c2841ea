"""Outputs of PyTorch's networks on made-up weights, to compare ours with.

Builds networks of torchvision and timm, fills them with numbers that follow
from each array's name and shape alone, runs them in evaluation mode on two
pictures and writes the logits to ``tests/golden/torch_outputs.npz`` and the
names and shapes of the arrays to ``torch_outputs.json`` beside it. The tests
make the same weights with :func:`weights` and need no PyTorch. From the
project's root, with torch, torchvision and timm installed:

    python experiments/reproduce/torch_outputs.py

It was run with torch 2.14.1, torchvision 0.29.1 and timm 1.0.31, on a CPU; it
takes a minute and 3 GB of memory.
"""
# The project itself never needs these packages.
# pyright: reportMissingImports=false

import json
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

GOLDEN = pathlib.Path(__file__).parents[2] / 'tests' / 'golden'
# Variance gained by a kernel. With 2, ReLU keeps the size of its numbers; less
# keeps a sum of many residual branches small.
GAINS = {
  'resnet18': 1.0,
  'resnet50': 1.0,
  'vgg16': 2.0,
  'vgg16_bn': 2.0,
  'vgg16_conv': 1.5,
  'deit_small_patch16_224': 1.0,
}


def numbers(name: str, shape: Sequence[int], deviation: float) -> np.ndarray:
  """Uniform numbers of mean zero that follow from the name, float32.

  Args:
    name: what seeds them.
    shape: their shape.
    deviation: their standard deviation.

  Returns:
    The numbers.
  """
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  x = rng.random(tuple(shape), dtype=np.float32)
  return (x - np.float32(0.5)) * np.float32(deviation * 12**0.5)


def weights(name: str, shape: Sequence[int], gain: float) -> np.ndarray:
  """The made-up array of one name.

  Args:
    name: PyTorch's name, which tells variances and scales from the rest.
    shape: its shape.
    gain: variance gained by a kernel, see ``GAINS``.

  Returns:
    The array; float32, or int64 for a count of batches.
  """
  if name.endswith('num_batches_tracked'):
    return np.zeros(shape, np.int64)
  if len(shape) in (2, 4):  # kernels of dense layers and convolutions
    return numbers(name, shape, (gain / np.prod(shape[1:])) ** 0.5)
  if len(shape) == 3:  # class tokens and position embeddings
    return numbers(name, shape, 0.5)
  scale = name.endswith(('weight', 'running_var'))
  return numbers(name, shape, 0.1) + np.float32(scale)


def pictures() -> np.ndarray:
  """The pictures, (2, 3, 224, 224): coarse squares under fine noise.

  The squares survive a mean over space, so that logits tell pictures apart.
  """
  squares = numbers('squares', (2, 3, 4, 4), 2.0)
  noise = numbers('noise', (2, 3, 224, 224), 0.5)
  return squares.repeat(56, axis=2).repeat(56, axis=3) + noise


def build(name: str) -> Any:
  """Makes a network of torchvision or timm.

  Args:
    name: one of ``GAINS``. ``vgg16_conv`` is torchvision's vgg16 with 2×2
      convolutions of stride 2 for its maxima and leaky ReLU for its ReLU.

  Returns:
    The PyTorch module.
  """
  import torchvision
  from torch import nn

  if name.startswith('deit'):
    import timm

    return timm.create_model(name)
  if name != 'vgg16_conv':
    return getattr(torchvision.models, name)(weights=None)
  network = torchvision.models.vgg16(weights=None)
  channels = 3
  for index, layer in enumerate(network.features):
    if isinstance(layer, nn.Conv2d):
      channels = layer.out_channels
    elif isinstance(layer, nn.MaxPool2d):
      network.features[index] = nn.Conv2d(channels, channels, 2, stride=2)
    else:
      network.features[index] = nn.LeakyReLU(0.5)
  network.classifier[1] = network.classifier[4] = nn.LeakyReLU(0.5)
  return network


def outputs(name: str) -> tuple[np.ndarray, Mapping[str, Sequence[int]]]:
  """The logits of a network, and the shapes of its arrays by name."""
  import torch

  network = build(name).eval()
  shapes = {key: list(x.shape) for key, x in network.state_dict().items()}
  network.load_state_dict(
    {
      key: torch.from_numpy(np.asarray(weights(key, shape, GAINS[name])))
      for key, shape in shapes.items()
    }
  )
  with torch.no_grad():
    return network(torch.from_numpy(pictures())).numpy(), shapes


def main() -> None:
  """Writes the logits and the shapes of every network."""
  logits, shapes = {}, {}
  for name in GAINS:
    logits[name], shapes[name] = outputs(name)
    print(f'{name}: logits of deviation {logits[name].std():.3g}')
  np.savez_compressed(GOLDEN / 'torch_outputs.npz', **logits)
  text = json.dumps(shapes)
  (GOLDEN / 'torch_outputs.json').write_text(text + '\n')


if __name__ == '__main__':
  main()
