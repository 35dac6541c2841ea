"""Explanations as pictures in colour."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# As published: of ratios, and of the opacity where a pixel speaks against.
_EPSILON = 1e-12


@functools.partial(jax.jit, static_argnames=('smooth', 'percentile'))
def explanation_picture(
  weights: jax.Array,
  encoded: jax.Array,
  *,
  smooth: int = 15,
  percentile: float = 99.5,
) -> jax.Array:
  """Draws linear maps: the colours that they ask for, opaque where they matter.

  The colour of a pixel is that which its weights speak for: of each pair of
  weights, of a channel and of its inverse, the positive share of the first.
  Its opacity is the norm of its weights, (almost) 0 where the pixel speaks
  against the class, averaged over a window with zeros outside the picture, in
  units of a percentile of the picture and cut at 1. Weights of zero give a
  picture that is transparent everywhere.

  Args:
    weights: W, (N, H, W, 2·C), with C of 1 or 3.
    encoded: the coded input, of the same shape.
    smooth: side of the window, odd or even; 0 or 1 for none. Published are 15
      for ImageNet and 1 or 5 for small pictures.
    percentile: in 0 … 100.

  Returns:
    (N, H, W, 4): red, green, blue and opacity, in 0 … 1.

  Raises:
    ValueError: if shapes or settings do not fit.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.nn.bcos import add_inverse, explanation_picture
    >>> red = add_inverse(jnp.zeros((1, 4, 4, 3)).at[..., 0].set(1))
    >>> picture = explanation_picture(red, red, smooth=1)
    >>> [round(float(x), 4) for x in picture[0, 0, 0]]
    [1.0, 0.0, 0.0, 1.0]

  References:
    Böhle, Fritz, Schiele, `B-cos Networks: Alignment is All We Need for
    Interpretability <https://arxiv.org/abs/2205.10268>`_, 2022, section 5.3
  """
  channels, odd = divmod(weights.shape[-1], 2)
  if weights.shape != encoded.shape or weights.ndim != 4:
    raise ValueError(
      'weights and encoded must both be (N, H, W, 2·C), got'
      f' {weights.shape} and {encoded.shape}.'
    )
  if odd or channels not in (1, 3):
    raise ValueError(
      'weights must have 2 or 6 channels, those of pictures and their'
      f' inverses, got {weights.shape[-1]}.'
    )
  if not isinstance(smooth, int) or smooth < 0:
    raise ValueError(f'smooth must be an integer >= 0, got {smooth!r}.')
  if not 0 <= percentile <= 100:
    raise ValueError(f'percentile must be in 0 … 100, got {percentile!r}.')
  dtype = jnp.promote_types(weights.dtype, jnp.float32)
  weights, encoded = weights.astype(dtype), encoded.astype(dtype)
  opacity = _opacity(weights, encoded, smooth, percentile)
  return jnp.concatenate([_colour(weights), opacity], axis=-1)


def _colour(weights: jax.Array) -> jax.Array:
  largest = jnp.max(jnp.abs(weights), axis=-1, keepdims=True) + _EPSILON
  votes = jnp.maximum(weights / largest, 0)
  first, second = jnp.split(votes, 2, axis=-1)
  share = first / (first + second + _EPSILON)
  return jnp.broadcast_to(share, (*share.shape[:-1], 3))


def _opacity(
  weights: jax.Array, encoded: jax.Array, smooth: int, percentile: float
) -> jax.Array:
  contribution = jnp.sum(weights * encoded, axis=-1, keepdims=True)
  strength = jnp.sqrt(jnp.sum(weights**2, axis=-1, keepdims=True))
  strength = jnp.where(contribution < 0, _EPSILON, strength)
  if smooth > 1:
    before = (smooth - 1) // 2
    around = (before, smooth - 1 - before)
    total = jax.lax.reduce_window(
      strength,
      np.zeros((), strength.dtype),
      jax.lax.add,
      (1, smooth, smooth, 1),
      (1, 1, 1, 1),
      ((0, 0), around, around, (0, 0)),
    )
    strength = total / smooth**2
  top = jnp.quantile(strength, percentile / 100, axis=(1, 2, 3), keepdims=True)
  top = jnp.broadcast_to(top, strength.shape)
  ratio = strength / jnp.where(top > 0, top, 1)
  return jnp.clip(ratio, 0, 1)
