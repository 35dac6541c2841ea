"""The published backward pass of SimpleCNN: pictures from the last features.

Each layer is undone by the published rule: subtract the bias, divide every
output channel by the squared norm of its weight, apply the transpose, and
average where patches overlap. Leaky ReLU is inverted; ReLU passes through.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bort_jax.nn import SimpleCNN

_LAYERS = SimpleCNN.layers[:-1]
_ACTIVATED = {'conv1': 'act1', 'conv2': 'act2', 'conv3': 'act3'}
_EPSILON = 1e-8  # the published guard against a zero weight


class ReconstructionError(NamedTuple):
  """How far reconstructions are from their pictures, one number each."""

  raw: jax.Array  # (N,) norm of the difference over the norm of the picture
  scale_fitted: jax.Array  # (N,) the same after the best scale of each


def reconstruct(model: SimpleCNN, x: jax.Array) -> jax.Array:
  """Pictures run forward to the last feature map, and back.

  Args:
    model: the network.
    x: pictures (N, H, W, C).

  Returns:
    The reconstructions, of ``x``'s shape; 0 where no layer saw the pixel.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn import SimpleCNN
    >>> from bort_jax.train.reconstruction import reconstruct
    >>> model = SimpleCNN((8, 8, 1), 10, rngs=nnx.Rngs(0))
    >>> reconstruct(model, jnp.ones((2, 8, 8, 1))).shape
    (2, 8, 8, 1)

  References:
    Zhang et al., `Bort: Towards Explainable Neural Networks with Bounded
    Orthogonal Constraint <https://arxiv.org/abs/2212.09062>`_, 2023
  """
  outputs = model.intermediates(x)
  after = {name: outputs[_ACTIVATED.get(name, name)] for name in _LAYERS}
  inputs = dict(zip(_LAYERS, [x, *after.values()], strict=False))
  y = outputs['act3']
  for name in reversed(_LAYERS):
    if name in _ACTIVATED:
      y = _undo_leaky_relu(y, model.negative_slope)
    y = _undo_conv(model, name, y, inputs[name].shape)
  return y


def reconstruction_error(
  x: jax.Array, reconstruction: jax.Array
) -> ReconstructionError:
  """The relative error of each reconstruction, as it is and scale-fitted.

  Args:
    x: pictures (N, ...).
    reconstruction: their reconstructions, of the same shape.

  Returns:
    Both errors: 0 is perfect; 1 is what a black picture gets. The fitted one
    hides a wrong amplitude and never exceeds 1.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.train.reconstruction import reconstruction_error
    >>> error = reconstruction_error(jnp.ones((1, 4)), 3 * jnp.ones((1, 4)))
    >>> error.raw.tolist(), error.scale_fitted.tolist()
    ([2.0], [0.0])
  """
  x, r = (a.reshape(len(a), -1) for a in (x, reconstruction))
  norm = jnp.linalg.norm(x, axis=1)
  energy = jnp.sum(r * r, axis=1)
  scale = jnp.sum(x * r, axis=1) / jnp.where(energy > 0, energy, 1)
  error = lambda r: jnp.linalg.norm(r - x, axis=1) / norm
  return ReconstructionError(error(r), error(scale[:, None] * r))


def _undo_leaky_relu(y: jax.Array, slope: float) -> jax.Array:
  return jnp.where(y < 0, y / slope, y) if slope else y


def _undo_conv(
  model: SimpleCNN, name: str, y: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
  """The published inverse of a convolution whose input had a shape."""
  conv = getattr(model, name)
  stride, padding = (2, 0) if name.startswith('down') else (1, 1)
  kernel = conv.kernel[...]
  ones = jnp.ones_like(kernel[..., :1, :1])
  channel = (1, *shape[1:3], 1)
  norms = jnp.sum(kernel**2, axis=(0, 1, 2), keepdims=True) + _EPSILON
  y = (y - jnp.reshape(conv.bias[...], norms.shape)) / norms
  patches = _transpose_conv(kernel, stride, padding, y, shape)
  every = jnp.ones_like(y[:1, ..., :1])
  counts = _transpose_conv(ones, stride, padding, every, channel)
  return patches / jnp.maximum(counts, 1)


def _transpose_conv(
  kernel: jax.Array, stride: int, padding: int, y: jax.Array, shape
) -> jax.Array:
  """The transpose of a convolution, to inputs of a shape."""

  def forward(x):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      window_strides=(stride, stride),
      padding=((padding, padding), (padding, padding)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=jax.lax.Precision.HIGHEST,
    )

  transpose = jax.linear_transpose(
    forward, jax.ShapeDtypeStruct(shape, kernel.dtype)
  )
  return transpose(y)[0]
