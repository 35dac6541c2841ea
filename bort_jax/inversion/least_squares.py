"""The least-squares preimage of an affine map, the smallest of all."""

import jax
import jax.numpy as jnp

from bort_jax.inversion.linear_map import AffineMap, widened


def least_squares(
  affine: AffineMap, y: jax.Array, tolerance: float, max_steps: int
) -> tuple[jax.Array, jax.Array]:
  """The v of least norm among those that minimize ‖A v + b − y‖.

  By LSMR, which is conjugate residuals on the normal equations and uses A and
  its transpose as functions. It starts from zero and so stays in the row space
  of A: what A loses, comes back as zero.

  Args:
    affine: the map.
    y: what came out, of the shape of b.
    tolerance: relative, of residual and normal equations.
    max_steps: most iterations.

  Returns:
    v and the number of iterations.

  References:
    Fong and Saunders, `LSMR: An iterative algorithm for sparse least-squares
    problems <https://arxiv.org/abs/1006.0758>`_, 2011
  """
  lineax = _lineax()
  wide = widened(affine)
  operator = lineax.FunctionLinearOperator(wide.apply, wide.like)
  solver = lineax.LSMR(
    rtol=tolerance, atol=tolerance, max_steps=max_steps, conlim=_NO_LIMIT
  )
  solution = lineax.linear_solve(
    operator, y.astype(wide.offset.dtype) - wide.offset, solver, throw=False
  )
  value = solution.value.astype(affine.like.dtype)
  return value, jnp.asarray(solution.stats['num_steps'], jnp.int32)


_NO_LIMIT = float('inf')


def _lineax():
  try:
    import lineax
  except ImportError:
    raise ImportError(
      'Least-squares inversion needs lineax and optimistix: pip install'
      " 'bort-jax[explain]'."
    ) from None
  return lineax


def relative_norm(difference: jax.Array, reference: jax.Array) -> jax.Array:
  """‖difference‖ / ‖reference‖ of arrays; 0 / 0 is 0."""
  norm = lambda a: jnp.sqrt(jnp.sum(jnp.square(a)))
  scale = norm(reference)
  return norm(difference) / jnp.where(scale > 0, scale, 1)
