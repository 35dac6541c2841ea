"""B-cos residual networks, of the blocks of plain ones."""

from collections.abc import Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.bcos.layers import BcosSettings, Ends, make_layers
from bort_jax.nn.residual import BasicBlock, Bottleneck
from bort_jax.nn.resnet import DEPTHS, ResidualNetwork, StemKind


class BcosResidualNetwork(ResidualNetwork):
  """A residual network of B-cos layers, with neither ReLU nor maxima.

  The head is a B-cos layer of each pixel, and the logits are of its mean over
  space: the other order would be another network, as the head is not linear.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    block: ``BasicBlock`` or ``Bottleneck``.
    widths: each stage's width.
    counts: each stage's number of blocks.
    stem: ``'imagenet'`` (7×7 of stride 2, a 3×3 mean of stride 2) or
      ``'small'`` (3×3 of stride 1).
    zero_init_residual: whether every block starts as its shortcut.
    rngs: random keys of the initialization.
    **settings: see :class:`BcosSettings`; uncentred batch norm without bias by
      default.

  Raises:
    ValueError: if a side of the pictures is shorter than the total stride, or
      a setting is not valid.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.bcos import BcosResidualNetwork
    >>> from bort_jax.nn.residual import BasicBlock
    >>> model = BcosResidualNetwork(
    ...   (8, 8, 3),
    ...   10,
    ...   block=BasicBlock,
    ...   widths=(8, 16),
    ...   counts=(1, 1),
    ...   stem='small',
    ...   max_out=2,
    ...   rngs=nnx.Rngs(0),
    ... )
    >>> model(jnp.zeros((2, 8, 8, 3))).shape
    (2, 10)
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    block: type[BasicBlock] | type[Bottleneck],
    widths: Sequence[int],
    counts: Sequence[int],
    stem: StemKind,
    zero_init_residual: bool = False,
    rngs: nnx.Rngs,
    **settings: Unpack[BcosSettings],
  ):
    self.ends = Ends(image_shape, num_classes, settings)
    super().__init__(
      (*image_shape[:2], self.ends.channels),
      num_classes,
      block=block,
      widths=widths,
      counts=counts,
      stem=stem,
      shortcut='projection',
      logit_scale=False,
      layers=make_layers(settings, rngs, zero_init_residual=zero_init_residual),
    )

  def intermediates(self, x: jax.Array) -> dict[str, jax.Array]:
    """``stem``, ``stage1/block1``, …, ``head``, ``pool``, ``logits``."""
    out, x = self.features(self.ends.encode(x))
    out['head'] = self.head(x)
    out['pool'] = jnp.mean(out['head'], axis=(1, 2))
    out['logits'] = self.ends.finish(out['pool'])
    return out


class BcosResNet(BcosResidualNetwork):
  """B-cos ResNet-18, 34, 50, 101 or 152.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    depth: 18, 34, 50, 101 or 152.
    stem: see :class:`BcosResidualNetwork`; by default ``'small'`` where a side
      has fewer than 64 pixels.
    zero_init_residual: whether every block starts as its shortcut.
    rngs: random keys of the initialization.
    **settings: see :class:`BcosSettings`.

  Raises:
    ValueError: if the depth is unknown, and as BcosResidualNetwork.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.bcos import BcosResNet
    >>> def outputs_of_resnet18(x):
    ...   model = BcosResNet((64, 64, 3), 10, depth=18, rngs=nnx.Rngs(0))
    ...   return model.intermediates(x)
    >>> outputs = nnx.eval_shape(outputs_of_resnet18, jnp.zeros((2, 64, 64, 3)))
    >>> outputs['head'].shape
    (2, 2, 2, 10)

  References:
    Böhle, Singh, Fritz, Schiele, `B-cos Alignment for Inherently Interpretable
    CNNs and Vision Transformers <https://arxiv.org/abs/2306.10898>`_, 2023
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    depth: int = 50,
    stem: StemKind | None = None,
    zero_init_residual: bool = False,
    rngs: nnx.Rngs,
    **settings: Unpack[BcosSettings],
  ):
    if depth not in DEPTHS:
      raise ValueError(
        f'depth must be one of {", ".join(map(str, DEPTHS))}, got {depth!r}.'
        ' Depths 6n + 2 for small pictures are BcosCifarResNet.'
      )
    block, counts = DEPTHS[depth]
    super().__init__(
      image_shape,
      num_classes,
      block=block,
      widths=(64, 128, 256, 512),
      counts=counts,
      stem=stem or ('small' if min(image_shape[:2]) < 64 else 'imagenet'),
      zero_init_residual=zero_init_residual,
      rngs=rngs,
      **settings,
    )


class BcosCifarResNet(BcosResidualNetwork):
  """B-cos ResNet-8, 14, 20, …, 56, 110: depth 6n + 2, for small pictures.

  Shortcuts that change shape are 1×1 convolutions, as published.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    depth: 6n + 2, n ≥ 1.
    zero_init_residual: whether every block starts as its shortcut.
    rngs: random keys of the initialization.
    **settings: see :class:`BcosSettings`; the published recipe has
      ``max_out=2``.

  Raises:
    ValueError: if the depth is not 6n + 2, and as BcosResidualNetwork.

  Examples:
    >>> from flax import nnx
    >>> from bort_jax.nn.bcos import BcosCifarResNet
    >>> model = BcosCifarResNet((32, 32, 3), 10, depth=8, rngs=nnx.Rngs(0))
    >>> model.head.kernel.shape
    (1, 1, 64, 10)
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    depth: int = 20,
    zero_init_residual: bool = False,
    rngs: nnx.Rngs,
    **settings: Unpack[BcosSettings],
  ):
    count, rest = divmod(depth - 2, 6)
    if rest or count < 1:
      raise ValueError(
        f'depth must be 6n + 2 (8, 14, 20, 32, 44, 56, 110, …), got {depth!r}.'
      )
    super().__init__(
      image_shape,
      num_classes,
      block=BasicBlock,
      widths=(16, 32, 64),
      counts=(count,) * 3,
      stem='small',
      zero_init_residual=zero_init_residual,
      rngs=rngs,
      **settings,
    )
