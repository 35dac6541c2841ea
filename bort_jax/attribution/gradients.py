"""Gradients of a class's logit, plain and smoothed."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.attribution.batches import at_once, in_blocks, run, summed
from bort_jax.attribution.checks import (
  ApplyFn,
  check_count,
  check_finite,
  checked,
)
from bort_jax.attribution.errors import AttributionError
from bort_jax.products import as_products
from bort_jax.validation import check_number, nan_where_missing


def gradient(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  *,
  chunk: int | None = None,
) -> jax.Array:
  """The gradient of the logit of a class: signed, no absolute value taken.

  Args:
    apply_fn: ``apply_fn(params, x)`` returns logits (N, K), each of a picture
      alone (no batch statistics). Give the same function at every call: what is
      compiled for it is kept, with the arrays that it closes over.
    params: its parameters.
    x: pictures (N, H, W, C), floats of any range.
    target: (N,) int, 0 … K − 1: the classes to explain. For several classes of
      each picture, ``jax.vmap`` over this argument. Others are refused or,
      where they are not known, under ``jax.jit``, give NaN.
    chunk: how many pictures go through the network at once; by default N.

  Returns:
    (N, H, W, C) ∂ logit / ∂ x, in the type of x.

  Raises:
    AttributionError: for what does not fit, and where memory does not suffice.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from bort_jax import attribution
    >>> apply_fn = lambda params, x: x.reshape(len(x), -1) @ params
    >>> params = jnp.array([[1.0, -2.0], [3.0, 4.0]])
    >>> x = jnp.ones((1, 1, 2, 1))
    >>> attribution.gradient(apply_fn, params, x, jnp.array([1])).ravel()
    Array([-2.,  4.], dtype=float32)
    >>> of_class = lambda k: attribution.gradient(
    ...   apply_fn, params, x, jnp.full(1, k)
    ... )
    >>> jax.vmap(of_class)(jnp.arange(2)).shape
    (2, 1, 1, 2, 1)

  References:
    Simonyan et al., `Deep Inside Convolutional Networks
    <https://arxiv.org/abs/1312.6034>`_, 2013
  """
  x, target = checked(apply_fn, params, x, target, chunk)
  return run(_gradient, apply_fn, chunk, params, x, target)


def gradient_times_input(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  *,
  chunk: int | None = None,
) -> jax.Array:
  """The gradient of a class's logit, times the picture.

  Of a network that is linear between kinks and has no added constants (no
  biases), it sums to the logit.

  Args:
    apply_fn: see :func:`gradient`, like all that follows.
    params: see there.
    x: see there.
    target: see there.
    chunk: see there.

  Returns:
    (N, H, W, C) x · ∂ logit / ∂ x.

  Raises:
    AttributionError: as there.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import attribution
    >>> apply_fn = lambda params, x: x.reshape(len(x), -1) @ params
    >>> params = jnp.array([[1.0, -2.0], [3.0, 4.0]])
    >>> x = jnp.array([2.0, 0.5]).reshape(1, 1, 2, 1)
    >>> attribution.gradient_times_input(
    ...   apply_fn, params, x, jnp.array([1])
    ... ).ravel()
    Array([-4.,  2.], dtype=float32)

  References:
    Shrikumar et al., `Not Just a Black Box
    <https://arxiv.org/abs/1605.01713>`_, 2016
  """
  x, target = checked(apply_fn, params, x, target, chunk)
  return run(_times_input, apply_fn, chunk, params, x, target)


def smooth_grad(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  *,
  key: jax.Array | None = None,
  samples: int = 32,
  stdev: ArrayLike = 0.15,
  noise: ArrayLike | None = None,
  chunk: int | None = None,
) -> jax.Array:
  """The mean gradient over pictures with normal noise.

  Args:
    apply_fn: see :func:`gradient`.
    params: its parameters.
    x: pictures (N, H, W, C).
    target: (N,) int classes.
    key: a random key. Each picture has its own noise, which depends on its
      place in the batch but not on ``chunk``.
    samples: how many noisy pictures of each, ≥ 1, known at compilation.
    stdev: standard deviation of the noise ≥ 0, as a share of each picture's
      range, greatest less least number: 0.1 … 0.2 in the paper.
    noise: (samples, N, H, W, C) to add as it is, instead of ``key``,
      ``samples`` and ``stdev``.
    chunk: how many pictures go through the network at once; by default N.

  Returns:
    (N, H, W, C), the mean of the signed gradients.

  Raises:
    AttributionError: as :func:`gradient`, and if not exactly one of key and
      noise is given.
    ValueError: for a stdev that is negative or not finite.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from bort_jax import attribution
    >>> apply_fn = lambda params, x: params * jnp.square(x).sum((1, 2))
    >>> x = jnp.ones((1, 1, 2, 1)).at[0, 0, 1].set(2.0)
    >>> noise = jnp.array([-0.5, 1.0]).reshape(2, 1, 1, 1, 1)
    >>> attribution.smooth_grad(
    ...   apply_fn,
    ...   1.0,
    ...   x,
    ...   jnp.array([0]),
    ...   noise=jnp.tile(noise, (1, 1, 1, 2, 1)),
    ... ).ravel()
    Array([2.5, 4.5], dtype=float32)

  References:
    Smilkov et al., `SmoothGrad: removing noise by adding noise
    <https://arxiv.org/abs/1706.03825>`_, 2017
  """
  x, target = checked(apply_fn, params, x, target, chunk)
  if (key is None) == (noise is None):
    raise AttributionError(
      'Give either key, to draw noise, or noise, arrays to add.'
    )
  if noise is not None:
    noise = _checked_noise(noise, x)
    setting = len(noise), chunk
    return run(_smooth_given, apply_fn, setting, params, x, target, noise)
  check_count('samples', samples)
  check_number('stdev', stdev)
  setting = samples, chunk
  return run(_smooth_drawn, apply_fn, setting, params, x, target, key, stdev)


def _checked_noise(noise: ArrayLike, x: jax.Array) -> jax.Array:
  noise = jnp.asarray(noise, x.dtype)
  if noise.ndim != 5 or noise.shape[1:] != x.shape or not len(noise):
    raise AttributionError(
      f'noise must have shape (samples, {", ".join(map(str, x.shape))}), got'
      f' {noise.shape}.'
    )
  check_finite({'noise': noise})
  return noise


def class_gradient(
  apply_fn: ApplyFn, params: Any, x: jax.Array, target: jax.Array
) -> jax.Array:
  """The gradient of each picture's logit of its class."""
  logits, pull = jax.vjp(as_products(lambda x: apply_fn(params, x)), x)
  classes = logits.shape[1]
  (slope,) = pull(jax.nn.one_hot(target, classes, dtype=logits.dtype))
  return nan_where_missing(slope, target, classes)


def gradients_at(
  apply_fn: ApplyFn, params: Any, points: jax.Array, target: jax.Array
) -> jax.Array:
  """The same at several points (m, n, H, W, C) for each of n pictures."""
  flat = points.reshape(-1, *points.shape[2:])
  targets = jnp.tile(target, len(points))
  return class_gradient(apply_fn, params, flat, targets).reshape(points.shape)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradient(apply_fn, chunk, params, x, target):
  function = functools.partial(class_gradient, apply_fn, params)
  return in_blocks(function, chunk, x, target)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _times_input(apply_fn, chunk, params, x, target):
  return x * _gradient(apply_fn, chunk, params, x, target)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _smooth_drawn(apply_fn, setting, params, x, target, key, stdev):
  scale = stdev * jnp.ptp(x, axis=(1, 2, 3), keepdims=True)
  one = lambda key, i: jax.random.normal(
    jax.random.fold_in(key, i), x.shape[1:], x.dtype
  )

  def noise(index, scale, keys):
    drawn = jax.vmap(lambda i: jax.vmap(lambda key: one(key, i))(keys))(index)
    return scale[None].astype(x.dtype) * drawn

  given = scale, jax.random.split(key, len(x))
  return _smoothed(apply_fn, setting, params, x, target, noise, given)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _smooth_given(apply_fn, setting, params, x, target, noise):
  pick = lambda index, noise: noise.swapaxes(0, 1)[index]
  given = (noise.swapaxes(0, 1),)
  return _smoothed(apply_fn, setting, params, x, target, pick, given)


def _smoothed(apply_fn, setting, params, x, target, noise, given):
  """The mean gradient with ``noise(index, *given)``, given for each picture."""
  samples, chunk = setting

  def of_block(x, target, *given):
    term = lambda index: gradients_at(
      apply_fn, params, x[None] + noise(index, *given), target
    )
    total = summed(term, samples, at_once(chunk, len(x), samples))
    return (total / samples).astype(x.dtype)

  return in_blocks(of_block, chunk, x, target, *given)
