"""B-cos VGG-11."""

from collections.abc import Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.bcos.layers import BcosSettings, Ends, make_layers

WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))
_HIDDEN = 4096


class BcosVGG11(nnx.Module):
  """Eight 3×3 convolutions in five stages, then three more as the classifier.

  Every convolution of the stages is followed by a norm, and every stage by a
  2×2 mean. The classifier is convolutional, 7×7, 1×1 and 1×1, and the logits
  are of its mean over space.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    rngs: random keys of the initialization.
    **settings: see :class:`BcosSettings`; uncentred batch norm without bias by
      default.

  Raises:
    ValueError: if a side of the pictures is shorter than 32 pixels, or a
      setting is not valid.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.bcos import BcosVGG11
    >>> def outputs_of_vgg11(x):
    ...   model = BcosVGG11((224, 224, 3), 1000, rngs=nnx.Rngs(0))
    ...   return model.intermediates(x)
    >>> outputs = nnx.eval_shape(outputs_of_vgg11, jnp.zeros((2, 224, 224, 3)))
    >>> outputs['down5'].shape, outputs['head'].shape
    ((2, 7, 7, 512), (2, 7, 7, 1000))
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    rngs: nnx.Rngs,
    **settings: Unpack[BcosSettings],
  ):
    if min(image_shape[:2]) < 32:
      raise ValueError(
        'VGG halves pictures five times and needs 32×32 pixels or more, got'
        f' {image_shape[0]}×{image_shape[1]}. Resize the pictures.'
      )
    self.ends = Ends(image_shape, num_classes, settings)
    layers = make_layers(settings, rngs)
    self.convs, self.norms = nnx.List(), nnx.List()
    inputs = self.ends.channels
    for width in (width for stage in WIDTHS for width in stage):
      self.convs.append(layers.conv(inputs, width, 3))
      self.norms.append(layers.norm(width))
      inputs = width
    self.fc1 = layers.conv(inputs, _HIDDEN, 7)
    self.fc2 = layers.conv(_HIDDEN, _HIDDEN, 1)
    self.head = layers.conv(_HIDDEN, num_classes, 1)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits (N, classes) of pictures (N, H, W, C)."""
    return self.intermediates(x)['logits']

  def intermediates(self, x: jax.Array) -> dict[str, jax.Array]:
    """Every layer's output by its name, in order.

    ``conv1_1``, ``norm1_1``, ``down1``, …, ``down5``, ``fc1``, ``fc2``,
    ``head``, ``pool``, ``logits``.
    """
    out = {}
    x = self.ends.encode(x)
    layers = iter(zip(self.convs, self.norms, strict=True))
    for i, widths in enumerate(WIDTHS, 1):
      for j in range(1, len(widths) + 1):
        conv, norm = next(layers)
        x = out[f'conv{i}_{j}'] = conv(x)
        x = out[f'norm{i}_{j}'] = norm(x)
      x = out[f'down{i}'] = nnx.avg_pool(x, (2, 2), strides=(2, 2))
    for name in ('fc1', 'fc2', 'head'):
      x = out[name] = getattr(self, name)(x)
    out['pool'] = jnp.mean(x, axis=(1, 2))
    out['logits'] = self.ends.finish(out['pool'])
    return out
