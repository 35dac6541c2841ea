"""The norms of B-cos networks: of the variance alone, or centred too."""

import math
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.nn.bcos.names import dynamic
from bort_jax.nn.bcos.transform import wide

NormKind: TypeAlias = Literal[
  'batch', 'all', 'group', 'instance', 'layer', 'position'
]
_KINDS = ('batch', 'all', 'group', 'instance', 'layer', 'position')


class Norm(nnx.Module):
  r"""Divides by a standard deviation, and subtracts the mean if ``centered``.

  .. math:: \gamma \, (x - [\mu]) / \sqrt{\sigma^2 + \epsilon} \; (+ \beta)

  The variance is always that around the mean, also where the mean is not
  subtracted. It is dynamic (see :func:`dynamic`); the mean is linear in x.

  ========== ============================== ===================
  kind       mean and variance over         running statistics
  ========== ============================== ===================
  batch      everything but channels        one for each channel
  all        everything                     one
  group      space and channels of a group  none
  instance   space                          none
  layer      space and channels             none
  position   channels, at each place        none
  ========== ============================== ===================

  Without bias every kind keeps a B-cos network linear in its input, but
  ``batch`` and ``all`` centred, whose running mean is a constant. The default,
  uncentred and without bias, is what localizes best in the published
  comparison. Transformers take ``'position'``, centred: LayerNorm.

  A new norm is in training mode, where ``batch`` and ``all`` use the statistics
  of the batch and update the running ones; ``model.eval()`` makes them use the
  running ones. As published, the running variance is that over n − 1 if
  centred and over n if not, and a running mean is kept only if centred.

  Args:
    features: channels, the last axis of x.
    kind: see above.
    groups: groups of ``'group'``, a divisor of ``features``.
    centered: whether the mean is subtracted.
    use_bias: whether β is added.
    use_scale: whether γ multiplies.
    momentum: share that running statistics keep at each step.
    epsilon: ε.
    scale_init: initializer of γ; by default ones.
    axis_name: mapped axis over which ``batch`` and ``all`` average statistics.
    dtype: dtype of the result; by default that of input and parameters.
      Statistics are float32 or wider.
    param_dtype: dtype of the parameters and running statistics.
    rngs: random keys of the initialization.

  Raises:
    ValueError: if the kind is unknown, or groups do not divide the channels.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.nn.bcos import Norm
    >>> norm = Norm(2, 'position', rngs=nnx.Rngs(0))
    >>> jnp.allclose(norm(jnp.array([[2.0, 6.0]])), jnp.array([[1.0, 3.0]]))
    Array(True, dtype=bool)
  """

  def __init__(
    self,
    features: int,
    kind: NormKind = 'batch',
    *,
    groups: int = 2,
    centered: bool = False,
    use_bias: bool = False,
    use_scale: bool = True,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    scale_init: nnx.Initializer | None = None,
    axis_name: str | None = None,
    dtype: jax.typing.DTypeLike | None = None,
    param_dtype: jax.typing.DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
  ):
    if kind not in _KINDS:
      raise ValueError(
        f'kind must be one of {", ".join(_KINDS)}, got {kind!r}.'
      )
    self.groups = {'instance': features, 'layer': 1}.get(kind, groups)
    if kind == 'group' and features % groups:
      raise ValueError(f'groups must divide {features} channels, got {groups}.')
    self.kind, self.centered = kind, centered
    self.momentum, self.epsilon = momentum, epsilon
    self.axis_name, self.dtype = axis_name, dtype
    self.use_running_average: bool = False
    size = 1 if kind == 'all' else features
    draw = lambda init: nnx.Param(init(rngs.params(), (size,), param_dtype))
    ones = nnx.initializers.ones_init()
    self.scale = draw(scale_init or ones) if use_scale else None
    self.bias = draw(nnx.initializers.zeros_init()) if use_bias else None
    running = kind in ('batch', 'all')
    keep = lambda make: nnx.BatchStat(make(size, param_dtype))
    self.var = keep(jnp.ones) if running else None
    self.mean = keep(jnp.zeros) if running and centered else None

  def __call__(self, x: jax.Array) -> jax.Array:
    """(N, ..., channels) to the same shape."""
    parameters = [p[...] for p in (self.scale, self.bias) if p is not None]
    dtype = self.dtype or jnp.result_type(x, *parameters)
    wide_x = wide(x)
    if self.var is None:
      mean, var = self._of_samples(wide_x)
    elif self.use_running_average:
      mean = 0.0 if self.mean is None else wide(self.mean[...])
      var = wide(self.var[...])
    else:
      mean, var = self._of_batch(wide_x)
    spread = lambda value: jnp.broadcast_to(value, x.shape)
    y = wide_x - spread(mean) if self.centered else wide_x
    y = y * spread(dynamic(jax.lax.rsqrt(var + self.epsilon)))
    if self.scale is not None:
      y = y * spread(wide(self.scale[...]))
    if self.bias is not None:
      y = y + spread(wide(self.bias[...]))
    return y.astype(dtype)

  def _of_samples(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of each sample, of shapes that broadcast to x."""
    if self.kind == 'position':
      return _moments(x, -1)
    grouped = x.reshape(*x.shape[:-1], self.groups, -1)
    space = tuple(range(1, x.ndim - 1))
    moments = _moments(grouped, (*space, -1))
    size = x.shape[-1] // self.groups
    channels = lambda m: jnp.repeat(m[..., 0], size, axis=-1)
    mean, var = map(channels, moments)
    return mean, var

  def _of_batch(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of the batch; the running ones are updated."""
    axes = tuple(range(x.ndim if self.kind == 'all' else x.ndim - 1))
    mean, var = _moments(x, axes, self.axis_name)
    flat = lambda m: m.reshape(-1)
    mean, var = flat(mean), flat(var)
    count = math.prod(x.shape[axis] for axis in axes)
    if self.axis_name is not None:
      count *= jax.lax.psum(1, self.axis_name)
    # Torch's rule: the centred ones keep the variance over n − 1.
    unbiased = count / max(count - 1, 1) if self.centered else 1.0
    self._remember(self.var, var * unbiased)
    self._remember(self.mean, mean)
    return mean, var

  def _remember(self, running: nnx.BatchStat | None, new: jax.Array) -> None:
    if running is not None:
      old = running[...]
      mixed = self.momentum * wide(old) + (1 - self.momentum) * new
      running[...] = jax.lax.stop_gradient(mixed).astype(old.dtype)


def _moments(x, axes, axis_name=None) -> tuple[jax.Array, jax.Array]:
  over_devices = lambda m: (
    m if axis_name is None else jax.lax.pmean(m, axis_name)
  )
  mean = over_devices(jnp.mean(x, axis=axes, keepdims=True))
  square = (x - jnp.broadcast_to(mean, x.shape)) ** 2
  return mean, over_devices(jnp.mean(square, axis=axes, keepdims=True))
