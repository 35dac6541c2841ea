"""A program run forwards with other derivatives for some operations."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend import core

from bort_jax.inversion.program import Program, apply, read, trace

# Of an operation, the values of all variables before it, and what it returns:
# the same numbers, with other derivatives.
Rule: TypeAlias = Callable[
  [core.JaxprEqn, Mapping[core.Var, Any], jax.Array], jax.Array
]


def ruled(
  function: Callable[[Any, jax.Array], jax.Array],
  params: Any,
  x: jax.Array,
  plan: Callable[[Program], Mapping[core.Var, Rule]],
) -> Callable[[jax.Array], jax.Array]:
  """A function of x with rules in place of some derivatives.

  Args:
    function: of parameters and x.
    params: its parameters.
    x: for shape and dtype.
    plan: gives, for a program, the rules of operations by what they return.

  Returns:
    The function of x.
  """
  like = jax.ShapeDtypeStruct(x.shape, x.dtype)
  program = trace(function, params, like)
  rules, constants = plan(program), program.constants(params)

  def call(x: jax.Array) -> jax.Array:
    env: dict[core.Var, Any] = {**constants, program.invar: x}
    for eqn in program.eqns:
      outs = apply(eqn, [read(env, atom) for atom in eqn.invars])
      rule = rules.get(eqn.outvars[0])
      if rule is not None:
        outs = [rule(eqn, env, outs[0])]
      env.update(zip(eqn.outvars, outs, strict=True))
    return env[program.outvar]

  return call


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def replaced(
  pull: Callable[[jax.Array, Any], Any],
  out: jax.Array,
  operands: Any,
  kept: Any,
) -> jax.Array:
  """A value with derivatives of one's own.

  Args:
    pull: of a derivative by the value and ``kept``, returns those by the
      operands.
    out: the value; its own derivatives are cut.
    operands: what it is made of.
    kept: what ``pull`` needs.

  Returns:
    The value.
  """
  del pull, operands, kept
  return out


def _forward(pull, out, operands, kept):
  del pull, operands
  return out, kept


def _backward(pull, kept, change):
  return None, pull(change, kept), None


replaced.defvjp(_forward, _backward)


def with_slope(
  out: jax.Array, operand: jax.Array, slope: jax.Array
) -> jax.Array:
  """A value whose derivative by the operand, number by number, is given."""
  return replaced(_scaled, jax.lax.stop_gradient(out), operand, slope)


def _scaled(change: jax.Array, slope: jax.Array) -> jax.Array:
  # no 0 · ∞ where a value is not used
  return jnp.where(change == 0, 0, change * slope)
