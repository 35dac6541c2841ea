"""Soft orthogonality in the loss: the rivals of a constraint in the optimizer.

Both penalties take the smaller Gram matrix of each kernel, as Bort does.

References:
  Bansal, Chen and Wang, `Can We Gain More from Orthogonality Regularizations in
  Training Deep CNNs? <https://arxiv.org/abs/1810.09102>`_, 2018
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bort_jax.matrices import MatrixView
from bort_jax.selection import map_matrices

_POWER_STEPS = 4


class PenaltyState(NamedTuple):
  """Steps done, from which the start of power iteration is drawn."""

  count: jax.Array


def add_penalty(
  penalty: Callable[[Any, jax.Array], jax.Array], strength: float
) -> optax.GradientTransformation:
  """Adds a penalty's gradient, so that it is as if it stood in the loss."""

  def init_fn(params):
    del params
    return PenaltyState(jnp.zeros([], jnp.int32))

  def update_fn(updates, state, params=None):
    key = jax.random.fold_in(jax.random.key(0), state.count)
    grads = jax.grad(penalty)(params, key)
    updates = jax.tree.map(lambda u, g: u + strength * g, updates, grads)
    return updates, PenaltyState(state.count + 1)

  return optax.GradientTransformation(init_fn, update_fn)


def soft_orthogonality(params: Any, key: jax.Array) -> jax.Array:
  """SO: the sum over kernels of ‖W Wᵀ − I‖² (Frobenius).

  Its gradient is 4·C(W). With SGD, this penalty times λ is therefore the
  published BortS with γ = 4λ, step by step.
  """
  del key
  return _sum_over_kernels(
    lambda view, w: jnp.sum(jnp.square(_excess(view, w))), params
  )


def srip(params: Any, key: jax.Array) -> jax.Array:
  """SRIP: the sum over kernels of the squared spectral norm of W Wᵀ − I."""

  def squared_norm(view, w):
    side = min(view.num_out, view.num_in)
    excess = _excess(view, w).reshape(side, side)
    fixed = jax.lax.stop_gradient(excess)
    v = jax.random.normal(key, (side,))
    for _ in range(_POWER_STEPS):
      v = _unit(fixed @ v)  # symmetric: signs do not matter, squares are taken
    return jnp.square(v @ excess @ v)

  return _sum_over_kernels(squared_norm, params)


PENALTIES = {'so': soft_orthogonality, 'srip': srip}


def _excess(view: MatrixView, w: jax.Array) -> jax.Array:
  gram = view.gram(w, w)
  return gram - view.identity(gram.dtype)


def _unit(v: jax.Array) -> jax.Array:
  # an excess of zero leaves nothing to divide
  return v / jnp.maximum(jnp.linalg.norm(v), 1e-12)


def _sum_over_kernels(measure, params: Any) -> jax.Array:
  terms = map_matrices(measure, None, params, others=lambda _: None)
  return sum(jax.tree.leaves(terms), jnp.zeros([]))
