"""Where a layer's activations speak for a class."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.attribution.batches import in_blocks, run
from bort_jax.attribution.checks import ApplyFn, checked
from bort_jax.attribution.errors import AttributionError
from bort_jax.attribution.guided import plain, with_rectifiers
from bort_jax.inversion.layers import Layer, rest, until
from bort_jax.validation import nan_where_missing


def grad_cam(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  *,
  layer: Layer,
  output: str = 'logits',
  relu: bool = True,
  chunk: int | None = None,
) -> jax.Array:
  """A layer's channels, each weighted by its mean gradient, added up.

  relu(Σₖ wₖ Aₖ) with wₖ the mean over the map of ∂ logit / ∂ Aₖ, brought to the
  size of the picture by bilinear interpolation between the centres of cells.

  What follows the layer is read as its operations, and the gradient is theirs:
  ``stop_gradient`` and derivatives of one's own (``jax.custom_jvp``,
  ``custom_vjp``) have no effect there. Of a network that rounds and passes
  derivatives straight through, the map is zero: see :func:`gradient` for one
  that goes by them.

  Args:
    apply_fn: a function that returns a mapping of outputs by their names, as
      ``nn.functional(model, 'intermediates')`` gives, if the layer is named;
      else also one that returns logits.
    params: its parameters.
    x: pictures (N, H, W, C).
    target: (N,) int, 0 … K − 1, or one for all.
    layer: the name of an output (N, h, w, channels), or the number of a
      segment, see :func:`bort_jax.inversion.until`.
    output: the name of the logits; not used where the function returns them
      alone.
    relu: whether what speaks against the class is set to zero, as published.
    chunk: how many pictures go through the network at once; by default N.

  Returns:
    (N, H, W, 1), in the type of x; ≥ 0 with ``relu``.

  Raises:
    AttributionError: for what does not fit, if there is no such layer, it is no
      map, or the logits depend on x past it; and where memory does not suffice.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import attribution
    >>> def apply_fn(params, x):
    ...   maps = 2 * x
    ...   return {'maps': maps, 'logits': maps.sum((1, 2)) @ params}
    >>> x = jnp.array([1.0, 3.0]).reshape(1, 1, 2, 1)
    >>> attribution.grad_cam(
    ...   apply_fn, jnp.ones((1, 1)), x, jnp.array([0]), layer='maps'
    ... ).ravel()
    Array([2., 6.], dtype=float32)

  References:
    Selvaraju et al., `Grad-CAM <https://arxiv.org/abs/1610.02391>`_, 2016,
    equations 1 and 2
  """
  x, target = checked(apply_fn, params, x, target, chunk, output)
  setting = layer, output, relu, chunk
  return run(_cam, apply_fn, setting, _mean_weights, params, x, target)


def grad_cam_plus_plus(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  *,
  layer: Layer,
  output: str = 'logits',
  relu: bool = True,
  chunk: int | None = None,
) -> jax.Array:
  """Grad-CAM with weights of positive gradients, each place by itself.

  wₖ = Σᵢⱼ αₖᵢⱼ relu(gₖᵢⱼ), αₖᵢⱼ = gₖᵢⱼ² / (2 gₖᵢⱼ² + Σₐᵦ Aₖₐᵦ gₖᵢⱼ³) with g the
  derivative of the logit S. This is the closed form for the score exp(S): its
  second and third derivatives are exp(S) g² and exp(S) g³ where the network is
  linear between kinks, so exp(S) cancels in α. In w it is one positive factor
  for the whole map of a picture, and is left out: it only overflows.

  Args:
    apply_fn: see :func:`grad_cam`, like all that follows.
    params: see there.
    x: see there.
    target: see there.
    layer: see there.
    output: see there.
    relu: see there.
    chunk: see there.

  Returns:
    (N, H, W, 1), in the type of x; ≥ 0 with ``relu``.

  Raises:
    AttributionError: as there.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import attribution
    >>> def apply_fn(params, x):
    ...   maps = 2 * x
    ...   return {'maps': maps, 'logits': maps.sum((1, 2)) @ params}
    >>> x = jnp.array([1.0, 3.0]).reshape(1, 1, 2, 1)
    >>> maps = attribution.grad_cam_plus_plus(
    ...   apply_fn, jnp.ones((1, 1)), x, jnp.array([0]), layer='maps'
    ... )
    >>> [round(float(v), 4) for v in maps.ravel()]
    [0.4, 1.2]

  References:
    Chattopadhyay et al., `Grad-CAM++ <https://arxiv.org/abs/1710.11063>`_,
    2017, equations 10 and 19
  """
  x, target = checked(apply_fn, params, x, target, chunk, output)
  setting = layer, output, relu, chunk
  return run(_cam, apply_fn, setting, _positive_weights, params, x, target)


def _mean_weights(z: jax.Array, slope: jax.Array) -> jax.Array:
  del z
  return jnp.mean(slope, axis=(1, 2), keepdims=True)


def _positive_weights(z: jax.Array, slope: jax.Array) -> jax.Array:
  total = jnp.sum(z, axis=(1, 2), keepdims=True)
  below = 2 + total * slope  # the share without g², which may underflow
  share = jnp.where(below == 0, 0, 1 / jnp.where(below == 0, 1, below))
  positive = share * jnp.maximum(slope, 0)
  return jnp.sum(positive, axis=(1, 2), keepdims=True)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _cam(apply_fn, setting, weights, params, x, target):
  layer, output, relu, chunk = setting

  def of_block(x, target):
    z = until(apply_fn, layer)(params, x)
    _check_map(z, layer)
    head = rest(apply_fn, params, x, layer, output)
    ruled_head = with_rectifiers(lambda _, z: head(z), (), z, plain)
    logits, back = jax.vjp(ruled_head, z)
    chosen = jax.nn.one_hot(target, logits.shape[1], dtype=logits.dtype)
    slope = nan_where_missing(back(chosen)[0], target, logits.shape[1])
    seen = jnp.sum(weights(z, slope) * z, axis=-1, keepdims=True)
    seen = jnp.maximum(seen, 0) if relu else seen
    size = (len(x), *x.shape[1:3], 1)
    return jax.image.resize(seen, size, 'bilinear').astype(x.dtype)

  return in_blocks(of_block, chunk, x, target)


def _check_map(z: jax.Array, layer: Layer) -> None:
  if z.ndim != 4:
    raise AttributionError(
      f'Grad-CAM needs a layer with output (N, h, w, channels); that of'
      f' {layer!r} has shape {z.shape}.'
    )
