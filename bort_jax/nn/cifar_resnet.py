"""The narrow residual networks made for CIFAR."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.residual import BasicBlock, Layers
from bort_jax.nn.resnet import ResidualNetwork


class CifarResNet(ResidualNetwork):
  """ResNet-8, 14, 20, 32, 44, 56, 110: depth 6n + 2, for small pictures.

  A 3×3 convolution and three stages of n basic blocks, of width 16, 32 and 64.
  Shortcuts have no parameters, as published (option A): where the shape
  changes they take every second pixel and add channels of zeros behind. With
  ten classes ResNet-20 has 269,722 parameters and ResNet-56 853,018, the
  paper's 0.27 and 0.85 million.

  Initialization, training mode and statistics are as in
  :class:`bort_jax.nn.ResNet`.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    depth: 6n + 2, n ≥ 1.
    zero_init_residual: whether every block starts as its shortcut.
    logit_scale: whether the logits are scaled by a learned number, see
      :class:`bort_jax.nn.LogitScale`.
    kernel_init: initializer of all kernels; by default as in ResNet.
    dtype: dtype of the computation; by default that of input and parameters.
    param_dtype: dtype of the parameters.
    axis_name: mapped axis over which batch statistics are averaged, as in
      ResNet.
    rngs: random keys of the initialization.

  Raises:
    ValueError: if depth is not 6n + 2, or a side of the pictures is shorter
      than 4 pixels.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.cifar_resnet import CifarResNet
    >>> def outputs_of_resnet20(x):
    ...   model = CifarResNet((32, 32, 3), 10, depth=20, rngs=nnx.Rngs(0))
    ...   return model.intermediates(x)
    >>> outputs = nnx.eval_shape(outputs_of_resnet20, jnp.zeros((2, 32, 32, 3)))
    >>> outputs['stage3/block3'].shape, outputs['logits'].shape
    ((2, 8, 8, 64), (2, 10))

  References:
    He et al., `Deep Residual Learning for Image Recognition
    <https://arxiv.org/abs/1512.03385>`_, 2016, section 4.2
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    depth: int = 20,
    zero_init_residual: bool = True,
    logit_scale: bool = False,
    kernel_init: nnx.Initializer | None = None,
    dtype: jax.typing.DTypeLike | None = None,
    param_dtype: jax.typing.DTypeLike = jnp.float32,
    axis_name: str | None = None,
    rngs: nnx.Rngs,
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
      shortcut='pad',
      logit_scale=logit_scale,
      layers=Layers(
        kernel_init=kernel_init,
        zero_init_residual=zero_init_residual,
        dtype=dtype,
        param_dtype=param_dtype,
        axis_name=axis_name,
        rngs=rngs,
      ),
    )
