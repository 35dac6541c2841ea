"""Networks by name."""

import difflib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from flax import nnx

from bort_jax.nn.all_conv import AllConv12
from bort_jax.nn.bcos.convnext import BcosConvNeXt
from bort_jax.nn.bcos.densenet import BcosDenseNet
from bort_jax.nn.bcos.inception import BcosInceptionV3
from bort_jax.nn.bcos.resnet import BcosCifarResNet, BcosResNet
from bort_jax.nn.bcos.vgg import BcosVGG11
from bort_jax.nn.bcos.vit import BcosViT
from bort_jax.nn.cifar_resnet import CifarResNet
from bort_jax.nn.patch_net import PatchNet
from bort_jax.nn.resnet import ResNet
from bort_jax.nn.simple_cnn import SimpleCNN
from bort_jax.nn.small_alexnet import SmallAlexNet
from bort_jax.nn.swin import Swin
from bort_jax.nn.vgg import VGG16
from bort_jax.nn.vit import ViT

_VITS = {
  'ti': partial(ViT, width=192, num_heads=3),
  's': partial(ViT, width=384, num_heads=6),
  'b': partial(ViT, width=768, num_heads=12),
}
_BCOS_VITS = {
  'ti': partial(BcosViT, width=192),
  's': partial(BcosViT, width=384),
}
# With a convolutional stem, which counts as one block.
_BCOS_VITCS = {
  'ti': partial(
    BcosViT, width=192, depth=11, patch_size=1, conv_widths=(24, 48, 96, 192)
  ),
  's': partial(
    BcosViT, width=384, depth=11, patch_size=1, conv_widths=(48, 96, 192, 384)
  ),
}
_NETWORKS: dict[str, Callable[..., nnx.Module]] = {
  'simple_cnn': SimpleCNN,
  'all_conv12': AllConv12,
  'small_alexnet': SmallAlexNet,
  'patch_net': PatchNet,
  'vgg16': VGG16,
  'vgg16_bn': partial(VGG16, batch_norm=True),
  **{f'resnet{d}': partial(ResNet, depth=d) for d in (18, 34, 50, 101, 152)},
  **{
    f'resnet{d}': partial(CifarResNet, depth=d)
    for d in (8, 20, 32, 44, 56, 110)
  },
  **{f'vit_{size}': network for size, network in _VITS.items()},
  **{f'deit_{size}': network for size, network in _VITS.items()},
  'swin_t': Swin,
  'swin_s': partial(Swin, depths=(2, 2, 18, 2)),
  **{
    f'bcos_resnet{d}': partial(BcosResNet, depth=d)
    for d in (18, 34, 50, 101, 152)
  },
  **{
    f'bcos_resnet{d}': partial(BcosCifarResNet, depth=d)
    for d in (8, 20, 32, 44, 56, 110)
  },
  'bcos_vgg11': BcosVGG11,
  'bcos_densenet121': BcosDenseNet,
  'bcos_inception_v3': BcosInceptionV3,
  'bcos_convnext_t': BcosConvNeXt,
  **{f'bcos_vit_{size}': network for size, network in _BCOS_VITS.items()},
  **{f'bcos_vitc_{size}': network for size, network in _BCOS_VITCS.items()},
}


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
    name: one of :func:`network_names`.
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    rngs: random keys of the initialization, and of dropout in training.
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
  maker = network_class(name)
  return maker(image_shape, num_classes, rngs=rngs, **options)


def network_names() -> list[str]:
  """The names that :func:`create` knows.

  Examples:
    >>> 'resnet50' in network_names()
    True
  """
  return list(_NETWORKS)


def network_class(name: str) -> Callable[..., nnx.Module]:
  """The class of a network by its name, with the options that the name sets.

  Args:
    name: one of :func:`network_names`.

  Returns:
    The class, or a ``functools.partial`` of it.

  Raises:
    ValueError: if there is no network of that name.

  Examples:
    >>> from bort_jax import nn
    >>> nn.network_class('simple_cnn').__name__
    'SimpleCNN'
  """
  if name not in _NETWORKS:
    near = difflib.get_close_matches(name, _NETWORKS, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise ValueError(
      f'No network is called {name!r}; there are {", ".join(_NETWORKS)}.{hint}'
    )
  return _NETWORKS[name]
