"""The least-squares preimage of an affine map, the smallest of all."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from bort_jax import loops
from bort_jax.inversion.linear_map import AffineMap, widened


def least_squares(
  affine: AffineMap,
  y: jax.Array,
  tolerance: float,
  max_steps: int,
  guess: jax.Array | None = None,
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
    guess: a v that is returned as it is if it solves to tolerance. Derivatives
      are those of the least-squares preimage in any case.

  Returns:
    v and the number of iterations.

  References:
    Fong and Saunders, `LSMR: An iterative algorithm for sparse least-squares
    problems <https://arxiv.org/abs/1006.0758>`_, 2011
  """
  lineax = _lineax()
  wide = widened(affine)
  operator = lineax.FunctionLinearOperator(wide.apply, wide.like)
  options = {}
  if guess is not None:
    guess = guess.astype(wide.like.dtype)
    options['guess'] = jax.lax.stop_gradient(guess)
  solution = lineax.linear_solve(
    operator,
    y.astype(wide.offset.dtype) - wide.offset,
    lsmr(tolerance, max_steps),
    options=options,
    throw=False,
  )
  value = solution.value.astype(affine.like.dtype)
  return value, solution.stats['num_steps']


def lsmr(tolerance: float, max_steps: int) -> Any:
  """The linear solver, for lineax and optimistix."""
  return _forgiving_lsmr()(
    rtol=tolerance, atol=tolerance, max_steps=max_steps, conlim=float('inf')
  )


@functools.cache
def _forgiving_lsmr() -> type:
  lineax = _lineax()

  class ForgivingLSMR(lineax.LSMR):
    """Tries a guess first, and is content with what its steps reach.

    What calls it (an optimizer, a derivative) would stop where it does not
    converge to the last digit; how far it came, the residuals tell.
    """

    def compute(self, state, vector, options):
      def solve():
        value, _, stats = super(ForgivingLSMR, self).compute(state, vector, {})
        return value, jnp.asarray(stats['num_steps'], jnp.int32)

      solve = loops.channels_last(solve)
      guess = options.get('guess')
      if guess is None:
        value, steps = solve()
      else:
        miss = relative_norm(state.mv(guess) - vector, vector)
        keep = lambda: (guess, jnp.int32(0))
        value, steps = jax.lax.cond(miss <= self.rtol, keep, solve)
      return value, lineax.RESULTS.successful, {'num_steps': steps}

  return ForgivingLSMR


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
