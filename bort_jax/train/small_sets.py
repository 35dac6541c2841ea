"""The MNIST and CIFAR families, read from their published archives."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from bort_jax.train.archives import read_cifar, read_idx, read_lines


class Split(NamedTuple):
  """A part of a set: its pictures and, by feature, their classes."""

  images: np.ndarray  # (N, H, W, C) uint8
  labels: dict[str, np.ndarray]  # each (N,) uint8
  has_ids: bool = False  # whether the examples have the feature ``id``


class Contents(NamedTuple):
  """A whole set: its splits and, where the archive has them, class names."""

  splits: dict[str, Split]
  label_names: dict[str, list[str]]


class _Cifar(NamedTuple):
  archive: str
  directory: str
  batches: dict[str, list[str]]
  label_names: dict[str, str]  # in the order of the labels in a record


_MNIST = ('mnist', 'fashion_mnist', 'kmnist')
_CIFAR = {
  'cifar10': _Cifar(
    'cifar-10-binary.tar.gz',
    'cifar-10-batches-bin',
    {
      'train': [f'data_batch_{number}.bin' for number in range(1, 6)],
      'test': ['test_batch.bin'],
    },
    {'label': 'batches.meta.txt'},
  ),
  'cifar100': _Cifar(
    'cifar-100-binary.tar.gz',
    'cifar-100-binary',
    {'train': ['train.bin'], 'test': ['test.bin']},
    {
      'coarse_label': 'coarse_label_names.txt',
      'label': 'fine_label_names.txt',
    },
  ),
}
NAMES = (*_MNIST, *_CIFAR)


def read(name: str, files: Mapping[str, pathlib.Path]) -> Contents:
  """Reads a set.

  Args:
    name: one of ``NAMES``.
    files: the published archives by their names.

  Returns:
    Its contents.

  Raises:
    DataError: if an archive is damaged.
  """
  if name in _CIFAR:
    return _read_cifar(_CIFAR[name], files)
  return Contents(
    {'train': _read_mnist(files, 'train'), 'test': _read_mnist(files, 't10k')},
    {},
  )


def _read_mnist(files: Mapping[str, pathlib.Path], prefix: str) -> Split:
  images = read_idx(files[f'{prefix}-images-idx3-ubyte.gz'], 3)
  labels = read_idx(files[f'{prefix}-labels-idx1-ubyte.gz'], 1)
  return Split(images[..., None], {'label': labels})


def _read_cifar(cifar: _Cifar, files: Mapping[str, pathlib.Path]) -> Contents:
  path, features = files[cifar.archive], list(cifar.label_names)
  inside = lambda member: f'{cifar.directory}/{member}'
  splits = {}
  for split, batches in cifar.batches.items():
    images, labels = read_cifar(path, list(map(inside, batches)), len(features))
    columns = dict(zip(features, labels.T, strict=True))
    splits[split] = Split(images, columns, has_ids=True)
  names = {
    feature: read_lines(path, inside(member))
    for feature, member in cifar.label_names.items()
  }
  return Contents(splits, names)
