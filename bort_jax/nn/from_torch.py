"""Weights from PyTorch."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bort_jax.nn.resnet import ResNet
from bort_jax.nn.torch_names import Rule
from bort_jax.nn.torch_names.resnet import resnet_names
from bort_jax.nn.torch_names.vgg import vgg_names
from bort_jax.nn.torch_names.vit import vit_names
from bort_jax.nn.vgg import VGG16
from bort_jax.nn.vit import ViT
from bort_jax.selection import path_name

Model = TypeVar('Model', bound=nnx.Module)

_FAMILIES: dict[type[nnx.Module], Callable[[Any], list[Rule]]] = {
  ResNet: resnet_names,
  VGG16: vgg_names,
  ViT: vit_names,
}
# Ours alone: it stays as it is.
_LOGIT_SCALE = '/log_scale'
# PyTorch's alone: how many batches a normalization has seen.
_BATCH_COUNT = '.num_batches_tracked'


def from_torch(
  state_dict: Mapping[str, Any] | str | os.PathLike[str], model: Model
) -> Model:
  """A network with the weights of its counterpart in PyTorch.

  The counterparts: :class:`bort_jax.nn.ResNet`, torchvision's ResNets;
  :class:`bort_jax.nn.VGG16` with ``pooling='max'``, torchvision's vgg16, and
  with ``batch_norm=True`` its vgg16_bn (with ``pooling='conv'``, such a network
  that has convolutions in the place of its maxima); :class:`bort_jax.nn.ViT`,
  timm's vision transformers such as deit_small_patch16_224. All or nothing:
  every array of the file must have its place, of its shape, and every array of
  the network must be in the file, running statistics included. A learned logit
  scale, which PyTorch does not have, keeps its value; PyTorch's counts of
  batches are passed over.

  PyTorch's own files are pickles and are not read. From PyTorch, write
  ``safetensors.torch.save_file(network.state_dict(), path)``.

  Args:
    state_dict: arrays by PyTorch's names, as numpy arrays or anything that
      ``np.asarray`` takes; or the path of a .safetensors file, of which one
      array at a time is in memory (it needs the package ``safetensors``).
    model: a network of the same geometry. It is not changed.

  Returns:
    A network like ``model`` with the weights of the file, in the dtypes of
    ``model``, in the same mode (training or evaluation).

  Raises:
    TypeError: if PyTorch's names are not known for that class of network.
    ValueError: if names are missing or unknown or shapes differ (one error
      lists all three, the first eight each), or the file is not a safetensors
      file.
    FileNotFoundError: if there is no such file.

  Examples:
    >>> import numpy as np
    >>> from flax import nnx
    >>> from bort_jax.nn.from_torch import from_torch
    >>> from bort_jax.nn.resnet import ResNet
    >>> model = nnx.eval_shape(
    ...   lambda: ResNet((32, 32, 3), 10, depth=18, rngs=nnx.Rngs(0))
    ... )
    >>> from_torch({'fc.bias': np.zeros(9)}, model)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: The weights do not fit ResNet. Missing: conv1.weight, ...
  """
  return fill(state_dict, model, _rules(model))


def fill(
  state_dict: Mapping[str, Any] | str | os.PathLike[str],
  model: Model,
  rules: list[Rule],
  *,
  prefix: str = '',
  unused: str = '(?!)',
) -> Model:
  """A network with the weights that its rules find.

  Args:
    state_dict: as for :func:`from_torch`.
    model: the network.
    rules: where each of its arrays is found.
    prefix: what names may begin with, if all do; it is dropped.
    unused: regular expression of names that no rule needs to name.

  Returns:
    As :func:`from_torch`.

  Raises:
    ValueError: as :func:`from_torch`.
    FileNotFoundError: as :func:`from_torch`.
  """
  graphdef, randomness, params = nnx.split(model, nnx.RngState, ...)
  leaves, structure = jax.tree_util.tree_flatten_with_path(params)
  ours = {path_name(path): leaf for path, leaf in leaves}
  with _arrays(state_dict) as (names, read):
    before = prefix if all(name.startswith(prefix) for name in names) else ''
    names = {name.removeprefix(before) for name in names}
    needed = {rule.torch for rule in rules}
    names = {n for n in names if n in needed or not re.search(unused, n)}
    network = type(model).__name__
    new = _convert(network, rules, ours, names, lambda n: read(before + n))
  params = jax.tree_util.tree_unflatten(structure, [new[path] for path in ours])
  return nnx.merge(graphdef, randomness, params)


def _convert(
  network: str,
  rules: list[Rule],
  ours: dict[str, Any],
  names: set[str],
  read: Callable[[str], np.ndarray],
) -> dict[str, Any]:
  """The network's arrays by path, from the file's."""
  new = {
    path: leaf for path, leaf in ours.items() if path.endswith(_LOGIT_SCALE)
  }
  wrong = []
  for rule in rules:
    if rule.torch not in names:
      continue
    leaf, array = ours[rule.ours], read(rule.torch)
    try:
      value = rule.transform(array)
    except (ValueError, IndexError):
      value = array
    if value.shape == leaf.shape:
      new[rule.ours] = jnp.array(value, leaf.dtype)  # a copy
    else:
      wrong.append(
        f'{rule.torch} gives {value.shape} for {rule.ours} of shape'
        f' {leaf.shape}'
      )
  expected = {rule.torch: None for rule in rules}
  found = {name for name in names if not name.endswith(_BATCH_COUNT)}
  _refuse(
    network,
    {
      'Missing': [name for name in expected if name not in names],
      'Unknown': sorted(found - set(expected)),
      'Wrong shape': wrong,
    },
  )
  return new


def _rules(model: nnx.Module) -> list[Rule]:
  for family, names in _FAMILIES.items():
    if isinstance(model, family):
      return names(model)
  known = ', '.join(family.__name__ for family in _FAMILIES)
  raise TypeError(
    f"PyTorch's names are known for {known}, got a {type(model).__name__}."
  )


def _refuse(network: str, problems: dict[str, list[str]], limit: int = 8):
  """Raises one error that lists every problem, if there is one."""
  parts = []
  for title, items in problems.items():
    if items:
      more = len(items) - limit
      rest = f' and {more} more' if more > 0 else ''
      parts.append(f'{title}: {", ".join(items[:limit])}{rest}.')
  if parts:
    raise ValueError(
      f'The weights do not fit {network}. {" ".join(parts)} Make the network'
      ' with the depth, options and number of classes of the weights.'
    )


@contextlib.contextmanager
def _arrays(
  state_dict: Mapping[str, Any] | str | os.PathLike[str],
) -> Iterator[tuple[set[str], Callable[[str], np.ndarray]]]:
  """The names of the arrays, and a function from a name to its array."""
  if isinstance(state_dict, Mapping):
    yield set(state_dict), lambda name: np.asarray(state_dict[name])
    return
  import safetensors

  path = Path(state_dict)
  if not path.is_file():
    raise FileNotFoundError(f'There is no file {str(path)!r}.')
  try:
    file = safetensors.safe_open(path, framework='numpy')
  except safetensors.SafetensorError as error:
    raise ValueError(
      f'{str(path)!r} is not a whole safetensors file ({error}). From PyTorch,'
      ' write safetensors.torch.save_file(network.state_dict(), path).'
    ) from error
  with file:
    yield set(file.keys()), file.get_tensor
