"""How orthogonal the kernels of a network are, cheaply enough to log."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bort_jax.matrices import MatrixView
from bort_jax.norms import greatest
from bort_jax.placement import on_matrices
from bort_jax.selection import map_matrices, path_name
from bort_jax.train.metrics import Spread


def measure_kernels(params: Any, amplitude: float) -> dict[str, Spread]:
  """The spread of every kernel's singular values, by its path.

  They are taken from the smaller Gram matrix, not from the kernel: a small part
  of the work for a large one, but values below about a thousandth of the
  largest are rounding. :func:`bort_jax.spectrum.singular_values` is exact.

  Args:
    params: the parameters of a network.
    amplitude: what W Wᵀ should be a multiple of.

  Returns:
    The spreads.
  """
  spreads = jax.device_get(_spreads(params, amplitude))
  return {path: Spread(*map(float, spread)) for path, spread in spreads.items()}


def largest_error(params: Any, amplitude: float) -> float:
  """The largest orthogonality error of all kernels."""
  spreads = measure_kernels(params, amplitude).values()
  return max(spread.orthogonality_error for spread in spreads)


@partial(jax.jit, static_argnums=1)
def _spreads(params: Any, amplitude: float) -> dict[str, jax.Array]:
  measure = lambda view, w: on_matrices(
    _spread, view, w, amplitude, per_matrix=True
  )
  spreads = map_matrices(measure, None, params, others=lambda _: None)
  return {
    path_name(path): spread
    for path, spread in jax.tree_util.tree_leaves_with_path(spreads)
  }


def _spread(view: MatrixView, w: jax.Array, amplitude: jax.Array) -> jax.Array:
  gram = view.gram(w, w)
  side = min(view.num_out, view.num_in)
  squares = jnp.linalg.eigvalsh(gram.reshape(*view.stack, side, side))
  values = jnp.sqrt(jnp.maximum(squares, 0))
  error = greatest(jnp.abs(gram / amplitude - view.identity(gram.dtype)))
  return jnp.stack([values.min(), jnp.median(values), greatest(values), error])
