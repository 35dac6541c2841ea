"""Preimages of residual and other nonlinear pieces, by iteration."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bort_jax import loops
from bort_jax.inversion.least_squares import lsmr, relative_norm

_GIVE_UP = 10  # steps after which a branch that does not contract is left


class Newton(NamedTuple):
  """How far Gauss–Newton may go."""

  steps: int
  linear_steps: int  # of LSMR, within each of them


class FixedPoint(NamedTuple):
  """Where x ← x + (y − s(x)) came to."""

  x: jax.Array
  steps: jax.Array  # () int
  contraction: jax.Array  # () greatest ratio of two steps that followed
  residual: jax.Array  # () relative


def fixed_point(
  function: Callable[[jax.Array], jax.Array],
  y: jax.Array,
  tolerance: float,
  max_steps: int,
) -> FixedPoint:
  """Solves s(x) = y for s = identity + branch, where the branch contracts.

  Args:
    function: s, of y's shape to y's shape.
    y: what came out; also where the iteration starts.
    tolerance: relative residual at which it stops.
    max_steps: most iterations; a branch whose steps still grow after a few is
      left earlier.

  Returns:
    The last iterate. With branch constant L < 1 its error after k steps is at
    most Lᵏ‖y − s(y)‖ / (1 − L).

  References:
    Behrmann et al., `Invertible Residual Networks
    <https://arxiv.org/abs/1811.00995>`_, 2019
  """

  def going_on(state):
    _, _, residual, last, steps, _ = state
    grows = (steps > _GIVE_UP) & (residual >= last)
    return (residual > tolerance) & (steps < max_steps) & ~grows

  def step(state):
    x, difference, residual, _, steps, worst = state
    x = x + difference
    new_difference = y - function(x)
    new = relative_norm(new_difference, y)
    rate = new / jnp.where(residual > 0, residual, 1)
    worst = jnp.maximum(worst, jnp.where(jnp.isfinite(rate), rate, jnp.inf))
    return x, new_difference, new, residual, steps + 1, worst

  difference = y - function(y)
  start = relative_norm(difference, y)
  inf, zero = jnp.full_like(start, jnp.inf), jnp.zeros_like(start)
  state = (y, difference, start, inf, jnp.int32(0), zero)
  x, _, residual, _, steps, rate = loops.while_loop(going_on, step, state)
  return FixedPoint(x, steps, rate, residual)


def gauss_newton(
  function: Callable[[jax.Array], jax.Array],
  y: jax.Array,
  start: jax.Array,
  known: jax.Array | None,
  tolerance: float,
  most: Newton,
) -> tuple[jax.Array, jax.Array]:
  """Minimizes ‖f(x) − y‖ by Powell's dogleg, its steps by LSMR.

  Args:
    function: f.
    y: what came out.
    start: where it starts.
    known: which numbers of y count; None for all.
    tolerance: relative, of the step and of the sum of squares.
    most: how many steps.

  Returns:
    x and the number of steps.
  """
  optimistix = _optimistix()
  wide = jax.dtypes.canonicalize_dtype(float)  # see linear_map.widened

  def miss(x, _):
    difference = (function(x.astype(start.dtype)) - y).astype(wide)
    return difference if known is None else jnp.where(known, difference, 0)

  solver = optimistix.Dogleg(
    rtol=tolerance,
    atol=tolerance,
    linear_solver=lsmr(_INNER * tolerance, most.linear_steps),
  )
  solution = optimistix.least_squares(
    loops.channels_last(miss),
    solver,
    start.astype(wide),
    max_steps=most.steps,
    throw=False,
  )
  value = solution.value.astype(start.dtype)
  return value, jnp.asarray(solution.stats['num_steps'], jnp.int32)


_INNER = 4  # linear problems solved roughly cost more steps than they save


def _optimistix():
  try:
    import optimistix
  except ImportError:
    raise ImportError(
      'Inverting this function needs lineax and optimistix: pip install'
      " 'bort-jax[explain]'."
    ) from None
  return optimistix
