"""Trained ordinary networks as B-cos networks, to be fine-tuned."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.bcos.conv import BcosConv
from bort_jax.nn.bcos.dense import BcosDense
from bort_jax.nn.bcos.encoding import AddInverse
from bort_jax.nn.bcos.logit_layer import LogitLayer
from bort_jax.nn.bcos.norm import Norm
from bort_jax.nn.resnet import ResidualNetwork
from bort_jax.nn.simple_cnn import SimpleCNN
from bort_jax.nn.vgg import VGG16

# The convolution that sees the picture, in the networks that can be converted.
_FIRST: dict[type[nnx.Module], Callable[[Any], nnx.Conv]] = {
  ResidualNetwork: lambda model: model.stem.conv,
  VGG16: lambda model: model.stages[0][0].conv,
  SimpleCNN: lambda model: model.conv1,
}


class Bcosified(nnx.Module):
  """A network of which the layers are B-cos layers; see :func:`bcosify`.

  Attributes:
    encode: puts −x behind x.
    network: the converted network.
    logits: the last layer.
  """

  def __init__(self, encode: AddInverse, network: Any, logits: LogitLayer):
    self.encode = encode
    self.network = network
    self.logits = logits

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits (N, classes) of pictures (N, H, W, C)."""
    return self.intermediates(x)['logits']

  def intermediates(self, x: jax.Array) -> dict[str, jax.Array]:
    """The network's outputs by their names."""
    x = self.encode(x)
    if isinstance(self.network, ResidualNetwork):
      return self._of_each_pixel(x)
    out = self.network.intermediates(x)
    out['logits'] = self.logits(out['logits'])
    return out

  def _of_each_pixel(self, x: jax.Array) -> dict[str, jax.Array]:
    """The head before the mean over space, as in B-cos networks."""
    out, x = self.network.features(x)
    out['head'] = self.network.head(x)
    out['pool'] = jnp.mean(out['head'], axis=(1, 2))
    scale = self.network.scale
    out['logits'] = self.logits(
      out['pool'] if scale is None else scale(out['pool'])
    )
    return out


def bcosify(
  model: nnx.Module,
  *,
  b: float = 2.0,
  keep_bias: bool = True,
  logit_bias: float = 0.0,
  logit_temperature: float = 1.0,
) -> Bcosified:
  """Turns a trained network into a B-cos network with the same weights.

  Convolutions and dense layers become B-cos layers with free weights, batch
  norms become uncentred (what they subtracted goes to their bias), and the
  first convolution sees the picture x and −x, with half its weights and their
  negatives: pictures of mean 0 are assumed, as trained networks take them. In
  residual networks the head comes before the mean over space. ReLUs and maxima
  stay: explanations hold what they choose.

  With b = 1, ``keep_bias`` and the other defaults, in evaluation mode, it is
  the same function. From there, or from b = 2 at once as published, it is
  fine-tuned; published are Adam at 1e-4 with a cosine schedule, adaptive
  clipping, :func:`uniform_off_bce`, no biases and ``logit_bias`` of
  −log(classes − 1).

  Args:
    model: a :class:`bort_jax.nn.ResNet`, ``CifarResNet``, ``VGG16`` or
      ``SimpleCNN``. It is not changed.
    b: the exponent B ≥ 1.
    keep_bias: whether biases are kept. They are the ``constant`` part of
      explanations.
    logit_bias: b0 of the last layer.
    logit_temperature: T of the last layer.

  Returns:
    The B-cos network, in the mode of ``model`` (training or evaluation).

  Raises:
    TypeError: if the network is of another class.
    ValueError: if b < 1.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax import nn
    >>> model = nn.SimpleCNN((16, 16, 3), 10, rngs=nnx.Rngs(0))
    >>> x = jnp.ones((1, 16, 16, 3))
    >>> same = nn.bcos.bcosify(model, b=1)
    >>> jnp.allclose(same(x), model(x), atol=1e-5).item()
    True

  References:
    Arya, Rao, Böhle, Schiele, `B-cosification: Transforming Deep Neural
    Networks to be Inherently Interpretable <https://arxiv.org/abs/2411.00715>`_,
    2024
  """
  get_first = _first_of(model)
  network: Any = nnx.clone(model)
  first = get_first(network)
  channels = first.in_features
  kernel = first.kernel[...] / 2
  first.kernel = nnx.Param(jnp.concatenate([kernel, -kernel], axis=-2))
  first.in_features = 2 * channels
  _convert(network, lambda layer: _counterpart(layer, b, keep_bias))
  if isinstance(network, ResidualNetwork):
    network.head = _of_pixels(network.head)
  return Bcosified(
    AddInverse(channels, total=0.0),
    network,
    LogitLayer(1, temperature=logit_temperature, bias=logit_bias),
  )


def _first_of(model: nnx.Module) -> Callable[[Any], nnx.Conv]:
  for family, get in _FIRST.items():
    if isinstance(model, family) and not hasattr(model, 'ends'):
      return get
  known = ', '.join(family.__name__ for family in _FIRST)
  raise TypeError(
    f'bcosify takes an ordinary {known}, got a {type(model).__name__}.'
  )


def _convert(module: Any, convert: Callable[[Any], Any]) -> None:
  """Replaces the layers inside a module."""
  for name, child in list(nnx.iter_children(module)):
    if not isinstance(child, nnx.Module | nnx.List):
      continue
    new = convert(child)
    if new is None:
      _convert(child, convert)
    elif isinstance(name, int):
      module[name] = new
    else:
      setattr(module, str(name), new)


def _counterpart(layer: Any, b: float, keep_bias: bool) -> Any:
  """The B-cos form of a layer; None if it has none."""
  if isinstance(layer, nnx.BatchNorm):
    return _uncentred(layer, keep_bias)
  if not isinstance(layer, nnx.Conv | nnx.Linear):
    return None
  bias = None if layer.bias is None or not keep_bias else layer.bias[...]
  options: dict[str, Any] = {
    'b': b,
    'normalize': False,
    'use_bias': bias is not None,
    'dtype': layer.dtype,
    'param_dtype': layer.param_dtype,
    'kernel_init': nnx.initializers.zeros_init(),
    'rngs': nnx.Rngs(0),
  }
  if isinstance(layer, nnx.Linear):
    new = BcosDense(layer.in_features, layer.out_features, **options)
  else:
    new = BcosConv(
      layer.in_features,
      layer.out_features,
      layer.kernel_size,
      layer.strides or 1,
      padding=layer.padding,  # pyright: ignore[reportArgumentType] it is wider
      kernel_dilation=layer.kernel_dilation or 1,
      feature_group_count=layer.feature_group_count,
      **options,
    )
  new.kernel[...] = layer.kernel[...]
  if new.bias is not None:
    new.bias[...] = bias
  return new


def _uncentred(layer: Any, keep_bias: bool) -> Norm:
  """A norm that gives the same in evaluation: the mean goes to the bias."""
  new = Norm(
    layer.num_features,
    'batch',
    use_bias=keep_bias,
    use_scale=layer.scale is not None,
    momentum=layer.momentum,
    epsilon=layer.epsilon,
    axis_name=layer.axis_name,
    dtype=layer.dtype,
    param_dtype=layer.param_dtype,
    rngs=nnx.Rngs(0),
  )
  new.use_running_average = layer.use_running_average
  mean, var = layer.mean[...], layer.var[...]
  scale = jnp.ones_like(var) if layer.scale is None else layer.scale[...]
  if new.scale is not None:
    new.scale[...] = scale
  if new.var is not None:
    new.var[...] = var
  if new.bias is not None:
    bias = jnp.zeros_like(var) if layer.bias is None else layer.bias[...]
    new.bias[...] = bias - scale * mean * jax.lax.rsqrt(var + layer.epsilon)
  return new


def _of_pixels(layer: BcosDense) -> BcosConv:
  """A dense layer as a 1×1 convolution."""
  kernel, bias = layer.kernel[...], layer.bias
  inputs, outputs = kernel.shape
  new = BcosConv(
    inputs,
    outputs,
    (1, 1),
    b=layer.b,
    normalize=layer.normalize,
    use_bias=bias is not None,
    kernel_init=nnx.initializers.zeros_init(),
    dtype=layer.dtype,
    param_dtype=kernel.dtype,
    rngs=nnx.Rngs(0),
  )
  new.kernel[...] = kernel[None, None]
  if new.bias is not None and bias is not None:
    new.bias[...] = bias[...]
  return new
