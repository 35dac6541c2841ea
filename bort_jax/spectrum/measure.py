"""What a tree of weight matrices is: its singular values and its error."""

from typing import Any

import jax
import jax.numpy as jnp

from bort_jax.correction import (
  Amplitude,
  amplitude_argument,
  amplitude_per_matrix,
  check_amplitude,
)
from bort_jax.matrices import MatrixView
from bort_jax.norms import greatest
from bort_jax.placement import on_matrices
from bort_jax.selection import AxesLike, map_matrices


def singular_values(params: Any, *, axes: AxesLike = None) -> Any:
  """The singular values of every weight matrix.

  Args:
    params: a tree of parameters.
    axes: which parameters are matrices, see :func:`bort_jax.bort`.

  Returns:
    A tree like ``params`` with, for a parameter that is a stack of m×n
    matrices, an array of shape ``(*stack, min(m, n))``, descending, in float32
    or wider; None for the parameters that are no matrices.

  Raises:
    TypeError, ValueError: for axes that do not fit, see :func:`bort_jax.bort`.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import spectrum
    >>> params = {
    ...   'kernel': jnp.diag(jnp.array([1.0, 3.0])),
    ...   'bias': jnp.ones(2),
    ... }
    >>> spectrum.singular_values(params)
    {'bias': None, 'kernel': Array([3., 1.], dtype=float32)}
  """

  def measure(view, w):
    return on_matrices(_singular_values, view, w, per_matrix=True)

  return map_matrices(
    measure, axes, params, others=lambda _: None, required=True
  )


def orthogonality_error(
  params: Any, *, amplitude: Amplitude = 1.0, axes: AxesLike = None
) -> Any:
  """How far every weight matrix is from W Wᴴ = aI.

  Args:
    params: a tree of parameters.
    amplitude: a, a number > 0 or ``'ada'``.
    axes: which parameters are matrices, see :func:`bort_jax.bort`.

  Returns:
    A tree like ``params`` of scalars: the largest entry of abs(G/a − I), with G
    the smaller of W Wᴴ and Wᴴ W, over all matrices of the parameter; float32 or
    wider. None for the parameters that are no matrices.

  Raises:
    TypeError, ValueError: for axes that do not fit, see :func:`bort_jax.bort`.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import spectrum
    >>> spectrum.orthogonality_error({'kernel': 2.0 * jnp.eye(3)})
    {'kernel': Array(3., dtype=float32)}
  """
  check_amplitude(amplitude)

  def measure(view, w):
    a = amplitude_argument(amplitude)
    return on_matrices(_orthogonality_error, view, w, a, per_matrix=True)

  return map_matrices(
    measure, axes, params, others=lambda _: None, required=True
  )


def _singular_values(view: MatrixView, w: jax.Array) -> jax.Array:
  return jnp.linalg.svd(view.to_matrices(w), compute_uv=False)


def _orthogonality_error(
  view: MatrixView, w: jax.Array, amplitude: jax.Array | None
) -> jax.Array:
  a = view.per_gram(amplitude_per_matrix(view, w, amplitude))
  off = jnp.abs(view.gram(w, w) / a - view.identity(a.dtype))
  return greatest(off)
