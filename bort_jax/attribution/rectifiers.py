"""Which operations of a program are ReLU or leaky ReLU."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from bort_jax.inversion.program import Program, read, variables

_SIDES = {'gt': (0, 1), 'ge': (0, 1), 'lt': (1, 0), 'le': (1, 0)}
_GUARDED = frozenset(('div', 'log', 'pow', 'rsqrt', 'sqrt'))
_PASSING = frozenset(
  ('add', 'broadcast_in_dim', 'convert_element_type', 'mul', 'reshape')
)


class Gate(NamedTuple):
  """What the derivative of a rectifier does to a derivative."""

  is_open: jax.Array  # bool, where the operand is positive
  slope: jax.Array | None  # what is passed on elsewhere; None for nothing

  def through(self, change: jax.Array) -> jax.Array:
    """What passes, chosen and not multiplied: see ``Rectifier.gate``."""
    closed = 0 if self.slope is None else change * self.slope
    return jnp.where(self.is_open, change, closed)


class Rectifier(NamedTuple):
  """v ↦ v where v > 0, slope · v elsewhere."""

  operand: core.Var
  slope: Any  # a variable or number of the program; None for zero

  def gate(self, env: Mapping[core.Var, Any]) -> Gate:
    """Open where the operand is positive, not at 0.

    It is no array of ones and zeros, which XLA for CPUs would write out and
    multiply by in its convolutions: a third slower than a choice.
    """
    value = env[self.operand]
    if self.slope is None:
      return Gate(value > 0, None)
    slope = jnp.asarray(read(env, self.slope), value.dtype)
    return Gate(value > 0, jnp.broadcast_to(slope, value.shape))


def rectifiers(program: Program) -> dict[core.Var, Rectifier]:
  """The ReLUs and leaky ReLUs of a program, by the variables they return.

  As they are traced: ``max(v, 0)``, of ``jax.nn.relu`` in any framework, and a
  choice between v and 0 or a constant times v by the sign of v. What keeps a
  variance from being negative, or is part of a softplus, is none.
  """
  makers = {v: eqn for eqn in program.eqns for v in eqn.outvars}
  found = {}
  for eqn in program.eqns:
    if eqn.primitive.name == 'max':
      one = _maximum(eqn, program)
    elif eqn.primitive.name == 'select_n' and len(eqn.invars) == 3:
      one = _choice(eqn, program, makers)
    else:
      continue
    if one is not None:
      found[eqn.outvars[0]] = one
  return found


def _maximum(eqn: core.JaxprEqn, program: Program) -> Rectifier | None:
  for v, bound in (eqn.invars, eqn.invars[::-1]):
    if _depends(v, program) and _is_zero(bound, program):
      out = eqn.outvars[0]
      if _is_guard(out, program) or _in_softplus(v, program):
        return None
      return Rectifier(v, None)
  return None


def _choice(
  eqn: core.JaxprEqn, program: Program, makers: Mapping[core.Var, Any]
) -> Rectifier | None:
  if not _depends(eqn.invars[0], program):
    return None
  test = makers[eqn.invars[0]]
  if test.primitive.name not in _SIDES:
    return None
  if not _is_zero(test.invars[1], program):
    return None
  v, (negative, positive) = test.invars[0], _SIDES[test.primitive.name]
  below, above = (eqn.invars[1 + side] for side in (negative, positive))
  if above is not v or not _depends(v, program):
    return None
  if _is_zero(below, program):
    return Rectifier(v, None)
  scaled = makers.get(below) if _depends(below, program) else None
  if scaled is None or scaled.primitive.name != 'mul':
    return None
  for a, factor in (scaled.invars, scaled.invars[::-1]):
    if a is v and not _depends(factor, program):
      return Rectifier(v, factor)
  return None


def _is_guard(var: core.Var, program: Program) -> bool:
  """Whether roots, logarithms and quotients are all that is made of it."""
  users = _users(var, program)
  return bool(users) and all(
    user.primitive.name in _GUARDED
    or (user.primitive.name in _PASSING and _is_guard(user.outvars[0], program))
    for user in users
  )


def _in_softplus(var: core.Var, program: Program) -> bool:
  """Whether logaddexp(v, 0) takes the difference of the two as well."""
  return any(
    user.primitive.name == 'sub' and _is_zero(user.invars[1], program)
    for user in _users(var, program)
  )


def _users(var: core.Var, program: Program) -> Sequence[core.JaxprEqn]:
  return [eqn for eqn in program.eqns if var in variables(eqn)]


def _depends(atom, program: Program) -> TypeGuard[core.Var]:
  return not isinstance(atom, core.Literal) and atom in program.dependent


def _is_zero(atom, program: Program) -> bool:
  if isinstance(atom, core.Literal):
    return bool(np.all(np.asarray(atom.val) == 0))
  value = program.literals.get(atom)
  return value is not None and bool(np.all(np.asarray(value) == 0))
