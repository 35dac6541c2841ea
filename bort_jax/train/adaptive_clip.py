"""Gradients clipped by the size of the weights that they move."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from bort_jax.matrices import MatrixView
from bort_jax.placement import on_matrices
from bort_jax.selection import map_matrices

_SMALLEST = 1e-3  # norm of weights: what is zero could never grow
_TINY = 1e-6


def adaptive_clip(limit: float) -> optax.GradientTransformation:
  """Adaptive gradient clipping, unit by unit.

  A unit is a row of a weight matrix, whatever the rank of the parameter; any
  other parameter is one unit. (:func:`optax.adaptive_grad_clip` takes other
  axes together in parameters of rank 3, as one-dimensional convolutions have.)

  Args:
    limit: largest norm of a unit's gradient over that of its weights, > 0.

  Returns:
    The transformation; its update needs the parameters.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.train.adaptive_clip import adaptive_clip
    >>> params, grads = {'bias': jnp.ones(4)}, {'bias': jnp.full(4, 9.0)}
    >>> tx = adaptive_clip(0.5)
    >>> updates, _ = tx.update(grads, tx.init(params), params)
    >>> updates['bias'].tolist()
    [0.5, 0.5, 0.5, 0.5]

  References:
    Brock et al., `High-Performance Large-Scale Image Recognition Without
    Normalization <https://arxiv.org/abs/2102.06171>`_, 2021, section 4.1
  """

  def update(updates, state, params=None):
    if params is None:
      raise ValueError('Adaptive clipping needs params, the third argument.')
    of_matrix = lambda view, w, g: on_matrices(_rows_clipped, view, g, w, limit)
    of_other = lambda w, g: _clipped(g, _norm(g), _norm(w), limit)
    clipped = map_matrices(of_matrix, None, params, updates, others=of_other)
    return clipped, state

  return optax.GradientTransformation(optax.init_empty_state, update)


def _rows_clipped(
  view: MatrixView, g: jax.Array, w: jax.Array, limit: jax.Array
) -> jax.Array:
  norm, of_weights = (jnp.sqrt(view.squared_norms(x, 'out')) for x in (g, w))
  return _clipped(g, norm, of_weights, limit)


def _clipped(g: jax.Array, norm: Any, of_weights: Any, limit: Any) -> jax.Array:
  largest = limit * jnp.maximum(of_weights, _SMALLEST)
  scale = jnp.where(norm > largest, largest / jnp.maximum(norm, _TINY), 1)
  return (g * scale).astype(g.dtype)


def _norm(x: jax.Array) -> jax.Array:
  wide = jnp.promote_types(x.dtype, jnp.float32)
  return jnp.sqrt(jnp.sum(jnp.square(jnp.abs(x.astype(wide)))))
