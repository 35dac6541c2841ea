"""Networks by name."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from bort_jax.nn.simple_cnn import SimpleCNN

_NETWORKS: dict[str, Callable[..., nnx.Module]] = {'simple_cnn': SimpleCNN}


def create(
  name: str,
  *,
  image_shape: Sequence[int],
  num_classes: int,
  rngs: nnx.Rngs,
  **options: Any,
) -> nnx.Module:
  """Makes a network by its name.

  Args:
    name: one of ``simple_cnn``.
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    rngs: random keys of the initialization.
    **options: further arguments of the network's class.

  Returns:
    The network: pictures (N, H, W, C) to logits (N, classes).

  Raises:
    ValueError: if there is no network of that name.

  Examples:
    >>> from flax import nnx
    >>> from bort_jax import nn
    >>> model = nn.create(
    ...   'simple_cnn', image_shape=(8, 8, 1), num_classes=10, rngs=nnx.Rngs(0)
    ... )
    >>> type(model).__name__
    'SimpleCNN'
  """
  if name not in _NETWORKS:
    near = difflib.get_close_matches(name, _NETWORKS, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise ValueError(
      f'No network is called {name!r}; there are {", ".join(_NETWORKS)}.{hint}'
    )
  return _NETWORKS[name](image_shape, num_classes, rngs=rngs, **options)
