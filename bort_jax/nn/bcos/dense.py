"""The B-cos dense layer."""

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.claims import aligned
from bort_jax.nn.bcos.transform import (
  align,
  check_layer,
  max_out,
  unit_rows,
  wide,
)

# Added to the norm of the inputs, as published (not under the root as in
# convolutions).
_EPSILON = 1e-12


class BcosDense(nnx.Module):
  r"""A dense layer scaled by how well weights and input are aligned.

  :math:`|\cos(x, w)|^{B-1} \; w \cdot x`, see :class:`BcosConv`, of which the
  arguments are the same.

  Args:
    in_features: input features.
    out_features: output features.
    b: the exponent B ≥ 1.
    max_out: units of which the largest is an output.
    scale: the output is divided by it.
    normalize: whether the weights of a unit are scaled to norm 1.
    use_bias: whether a bias is added to the linear output.
    kernel_init: initializer of the kernel, (inputs, outputs · max_out); by
      default LeCun's normal one.
    dtype: dtype of the computation; by default that of input and parameters.
    param_dtype: dtype of the parameters.
    rngs: random keys of the initialization.

  Raises:
    ValueError: if b < 1, ``max_out`` < 1 or the scale is not > 0.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.bcos import BcosDense
    >>> layer = BcosDense(3, 5, max_out=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((4, 3))).shape, layer.kernel.shape
    ((4, 5), (3, 10))
  """

  def __init__(
    self,
    in_features: int,
    out_features: int,
    *,
    b: float = 2.0,
    max_out: int = 1,
    scale: float = 1.0,
    normalize: bool = True,
    use_bias: bool = False,
    kernel_init: nnx.Initializer | None = None,
    dtype: jax.typing.DTypeLike | None = None,
    param_dtype: jax.typing.DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
  ):
    check_layer(b, max_out, scale)
    self.in_features = in_features
    self.b, self.max_out, self.scale = b, max_out, scale
    self.normalize = normalize
    self.dtype = dtype
    units = out_features * max_out
    shape = (in_features, units)
    init = kernel_init or nnx.initializers.lecun_normal()
    self.kernel = nnx.Param(init(rngs.params(), shape, param_dtype))
    self.bias = nnx.Param(jnp.zeros(units, param_dtype)) if use_bias else None

  def __call__(self, x: jax.Array) -> jax.Array:
    """(..., inputs) to (..., outputs).

    Raises:
      ValueError: if there are other inputs.
    """
    if x.shape[-1] != self.in_features:
      raise ValueError(
        f'BcosDense needs (..., {self.in_features}), got {x.shape}.'
      )
    kernel = self.kernel[...]
    dtype = self.dtype or jnp.result_type(x, kernel)
    x = x.astype(dtype)
    kernel = unit_rows(kernel) if self.normalize else kernel
    y = x @ kernel.astype(dtype)
    if self.bias is not None:
      y += jnp.broadcast_to(self.bias[...].astype(dtype), y.shape)
    y = max_out(y, self.max_out)
    if self.b != 1:
      norm = jnp.broadcast_to(_norm(x), y.shape)
      y = align(y, norm, self.b)
    if self.bias is None:
      y = aligned(y, self.b)
    return y if self.scale == 1 else y / self.scale


def _norm(x: jax.Array) -> jax.Array:
  """The norm over the last axis, with a gradient of zero at zero."""
  square = jnp.sum(wide(x) ** 2, axis=-1, keepdims=True)
  there = square > 0
  root = jnp.sqrt(jnp.where(there, square, 1))
  return jnp.where(there, root, 0) + _EPSILON
