"""What all B-cos networks share: settings, layers, first and last steps."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.bcos.conv import BcosConv, Padding
from bort_jax.nn.bcos.dense import BcosDense
from bort_jax.nn.bcos.encoding import AddInverse
from bort_jax.nn.bcos.logit_layer import LogitLayer
from bort_jax.nn.bcos.norm import Norm, NormKind
from bort_jax.nn.logit_scale import LogitScale
from bort_jax.nn.residual import Layers, he_normal_fan_out


def identity(x: jax.Array) -> jax.Array:
  """The activation of B-cos networks: their layers are not linear as it is."""
  return x


class Nothing(nnx.Module):
  """In the place of a norm where there is none."""

  def __call__(self, x: jax.Array) -> jax.Array:
    """The same array."""
    return x


def mean_pool(x: jax.Array) -> jax.Array:
  """The mean of 3×3 pixels, with stride 2 and zeros around: to halves."""
  around = ((1, 1), (1, 1))
  return nnx.avg_pool(
    x,
    (3, 3),
    strides=(2, 2),
    padding=around,  # pyright: ignore[reportArgumentType] its type is wrong
  )


class BcosSettings(TypedDict, total=False):
  """The options that every B-cos network takes.

  Attributes:
    b: the exponent B ≥ 1 of all layers; 2 by default.
    max_out: units of which the largest is an output; 1 by default.
    norm: kind of the norms, see :class:`Norm`, or None for no norms.
    norm_centered: whether norms subtract the mean.
    norm_bias: whether norms have a bias; it breaks completeness.
    logit_scale: whether a learned number multiplies what the logits are made
      of, see :class:`bort_jax.nn.LogitScale`.
    logit_temperature: T of :class:`LogitLayer`, 1 by default.
    logit_bias: b0 of :class:`LogitLayer`, −log(classes − 1) by default.
    encoded: whether ``image_shape`` counts the channels of coded pictures, see
      :func:`add_inverse`; by default that is so where their number is even. In
      both cases the network takes pictures coded or not.
    kernel_init: initializer of all kernels; the default is the network's.
    dtype: dtype of the computation; by default that of input and parameters.
      Norms are computed in float32 or wider.
    param_dtype: dtype of the parameters.
    axis_name: mapped axis over which batch statistics are averaged.
  """

  b: float
  max_out: int
  norm: NormKind | None
  norm_centered: bool
  norm_bias: bool
  logit_scale: bool
  logit_temperature: float
  logit_bias: float | None
  encoded: bool | None
  kernel_init: nnx.Initializer | None
  dtype: jax.typing.DTypeLike | None
  param_dtype: jax.typing.DTypeLike
  axis_name: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class BcosLayers(Layers):
  """Makes the layers of one B-cos network, for the blocks of plain ones too.

  Attributes:
    b: see :class:`BcosSettings`, as for the others.
    max_out: see there.
    norm_kind: ``norm`` there.
    norm_centered: see there.
    norm_bias: see there.
    norm_epsilon: ε of the norms.
    default_init: initializer of the kernels where ``kernel_init`` is None.
  """

  b: float
  max_out: int
  norm_kind: NormKind | None
  norm_centered: bool
  norm_bias: bool
  norm_epsilon: float = 1e-5
  default_init: nnx.Initializer = he_normal_fan_out

  def conv(
    self,
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    *,
    padding: Padding | None = None,
    groups: int = 1,
  ) -> BcosConv:
    """A B-cos convolution, padded by half its kernel if nothing is said."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    half = tuple((side - 1) // 2 for side in sides)
    return BcosConv(
      inputs,
      outputs,
      sides,
      stride,
      padding=half if padding is None else padding,
      feature_group_count=groups,
      **self._kernel_settings(),
    )

  def linear(self, inputs: int, outputs: int) -> BcosConv:
    """A B-cos layer of each pixel: the head comes before the mean."""
    return self.conv(inputs, outputs, 1)

  def dense(self, inputs: int, outputs: int) -> BcosDense:
    """A B-cos dense layer."""
    return BcosDense(inputs, outputs, **self._kernel_settings())

  def norm(
    self,
    features: int,
    *,
    ends_branch: bool = False,
    kind: NormKind | None = None,
  ) -> Any:
    """A norm; of another kind if told so; perhaps zero if it ends a branch."""
    if self.norm_kind is None:
      return Nothing()
    zero = ends_branch and self.zero_init_residual
    return Norm(
      features,
      kind or self.norm_kind,
      centered=self.norm_centered,
      use_bias=self.norm_bias,
      epsilon=self.norm_epsilon,
      scale_init=nnx.initializers.zeros_init() if zero else None,
      axis_name=self.axis_name,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      rngs=self.rngs,
    )

  def _kernel_settings(self) -> dict[str, Any]:
    return {
      'b': self.b,
      'max_out': self.max_out,
      'kernel_init': self.kernel_init or self.default_init,
      'dtype': self.dtype,
      'param_dtype': self.param_dtype,
      'rngs': self.rngs,
    }


def make_layers(
  settings: BcosSettings,
  rngs: nnx.Rngs,
  *,
  zero_init_residual: bool = False,
  norm: NormKind | None = 'batch',
  norm_centered: bool = False,
  **options: Any,
) -> BcosLayers:
  """The layers of a network, of its settings and its own defaults."""
  return BcosLayers(
    b=settings.get('b', 2.0),
    max_out=settings.get('max_out', 1),
    norm_kind=settings.get('norm', norm),
    norm_centered=settings.get('norm_centered', norm_centered),
    norm_bias=settings.get('norm_bias', False),
    kernel_init=settings.get('kernel_init'),
    zero_init_residual=zero_init_residual,
    dtype=settings.get('dtype'),
    param_dtype=settings.get('param_dtype', jnp.float32),
    axis_name=settings.get('axis_name'),
    rngs=rngs,
    activation=identity,
    pool=mean_pool,
    **options,
  )


class Ends(nnx.Module):
  """The first and the last step of a B-cos network.

  Args:
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    settings: the network's settings.
  """

  def __init__(
    self,
    image_shape: Sequence[int],
    num_classes: int,
    settings: BcosSettings,
  ):
    channels = image_shape[2]
    encoded = settings.get('encoded')
    if channels % 2 == 0 if encoded is None else encoded:
      if channels % 2:
        raise ValueError(
          'Coded pictures have twice the channels of pictures, an even number;'
          f' got {channels}. Leave encoded=False.'
        )
      channels //= 2
    self.channels = 2 * channels
    self.encode = AddInverse(channels)
    self.logits = LogitLayer(
      num_classes,
      temperature=settings.get('logit_temperature', 1.0),
      bias=settings.get('logit_bias'),
    )
    self.scale = (
      LogitScale(
        param_dtype=settings.get('param_dtype', jnp.float32), rngs=nnx.Rngs()
      )
      if settings.get('logit_scale', False)
      else None
    )

  def finish(self, x: jax.Array) -> jax.Array:
    """Logits (N, K) of outputs (N, K)."""
    return self.logits(x if self.scale is None else self.scale(x))
