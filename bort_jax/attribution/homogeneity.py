"""Whether a network scales with its input: f(t x) = t f(x) for t > 0."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from bort_jax.inversion.operations import (
  SWITCHES,
  aval_of,
  is_affine,
  is_float,
)
from bort_jax.inversion.program import Program

_COMPARISONS = frozenset(('eq', 'ge', 'gt', 'le', 'lt', 'ne'))
_DIRECTIONS = frozenset(('argmax', 'argmin', 'is_finite', 'sign'))
_CHOICES = SWITCHES | {
  'abs',
  'clamp',
  'max',
  'min',
  'select_n',
  'stop_gradient',
}
_PRODUCTS = frozenset(('conv_general_dilated', 'dot_general', 'mul'))
_POWERS = {'square': 2.0, 'sqrt': 0.5, 'rsqrt': -0.5}


def constants_to_be_zero(program: Program) -> tuple[core.Var, ...] | None:
  """What must be zero for a program to scale with its input.

  Each value gets a degree d, v(t x) = tᵈ v(x): linear operations keep it,
  products add it, comparisons with zero have degree 0. Constants that are added
  or compared with must not change when they are scaled: be zero (or infinite,
  as those that pad the windows of a maximum). Derivatives have degree d − 1,
  but those of one's own (``jax.custom_jvp``) may have any: with them a program
  is not taken to scale.

  Args:
    program: the program.

  Returns:
    The constants, such as biases, on whose values it depends; None if it does
    not scale, whatever they are.
  """
  if program.has_own_derivatives:
    return None
  degrees: dict[core.Var, float] = {program.invar: 1.0}
  needed: list[core.Var] = []
  for eqn in program.eqns:
    of = [_degree_of(atom, degrees) for atom in eqn.invars]
    degree = _degree(eqn, of, program)
    if degree is None:
      return None
    for atom in _compared(eqn, of) if degree or _any(of) else ():
      known = _value(atom, program)
      if known is None:
        needed.append(atom)
      elif not np.all(_unchanged(known)):
        return None
    degrees.update((v, degree) for v in eqn.outvars)
  return tuple(dict.fromkeys(needed)) if degrees[program.outvar] == 1 else None


def all_unchanged(
  needed: Sequence[core.Var], constants: Mapping[core.Var, Any]
) -> jax.Array:
  """Whether the constants that must be zero (or infinite) are."""
  is_so = jnp.array(True)
  for var in needed:
    is_so &= jnp.all(_unchanged(jnp.asarray(constants[var])))
  return is_so


def _degree_of(atom, degrees: Mapping[core.Var, float]) -> float | None:
  return None if isinstance(atom, core.Literal) else degrees.get(atom)


def _any(of: Sequence[float | None]) -> bool:
  """Whether an operand changes at all when x is scaled."""
  return any(of)


def _degree(
  eqn: core.JaxprEqn, of: Sequence[float | None], program: Program
) -> float | None:
  """The degree of a result; None if it has none."""
  name = eqn.primitive.name
  if not _any(of):
    return 0.0
  if name in _PRODUCTS and None not in of:
    return sum(d for d in of if d is not None)
  if name == 'div':
    return (of[0] or 0.0) - (of[1] or 0.0)
  values = of[1:] if name == 'select_n' and not of[0] else of
  given = {d for d in values if d is not None}
  if len(given) != 1:
    return None
  (degree,) = given
  if name in _COMPARISONS or name in _DIRECTIONS:
    return 0.0
  if name in _POWERS:
    return degree * _POWERS[name]
  if name == 'integer_pow':
    return degree * eqn.params['y']
  if name == 'gather' and not _unchanged(eqn.params['fill_value'] or 0):
    return None
  keeps = name in _CHOICES or is_affine(eqn, program.dependent)
  return degree if keeps and all(map(is_float, eqn.outvars)) else None


def _compared(eqn: core.JaxprEqn, of: Sequence[float | None]) -> list:
  """The constants that a value is added to, compared with, or chosen from."""
  if eqn.primitive.name in _PRODUCTS or eqn.primitive.name == 'div':
    return []
  return [
    atom
    for atom, degree in zip(eqn.invars, of, strict=True)
    if degree is None and jnp.issubdtype(aval_of(atom).dtype, jnp.floating)
  ]


def _value(atom, program: Program) -> Any:
  """The numbers of a constant that no parameter enters."""
  if isinstance(atom, core.Literal):
    return np.asarray(atom.val)
  known = program.literals.get(atom)
  return None if known is None else np.asarray(known)


def _unchanged(value: Any) -> Any:
  return (value == 0) | (abs(value) == float('inf'))
