"""What the operations of a network are, as JAX writes them down."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from bort_jax.nn.bcos.names import NAMES

_CHOICES = (
  'max',
  'min',
  'abs',
  'clamp',
  'reduce_max',
  'reduce_min',
  'reduce_window_max',
  'reduce_window_min',
)
_COMPARISONS = ('lt', 'le', 'gt', 'ge', 'eq', 'ne', 'select_n')
_SCALINGS = ('mul', 'broadcast_in_dim', 'convert_element_type', 'jit')


def bind(eqn: core.JaxprEqn, *values: Any) -> Sequence[Any]:
  """The results of one operation."""
  options = eqn.primitive.get_bind_params(eqn.params)
  outs = eqn.primitive.bind(*values, **options)
  return outs if eqn.primitive.multiple_results else [outs]


def chooses(eqn: core.JaxprEqn) -> bool:
  """Whether an operation is linear by pieces, and not linear."""
  if eqn.primitive.name != 'custom_jvp_call':
    return eqn.primitive.name in _CHOICES
  names = set(_names_in(next(programs_in(eqn))[0]))
  known = names <= {*_CHOICES, *_COMPARISONS, *_SCALINGS}
  return known and not names.isdisjoint((*_CHOICES, 'select_n'))


def _names_in(jaxpr: core.Jaxpr) -> Iterator[str]:
  for eqn in jaxpr.eqns:
    yield eqn.primitive.name
    for inner, _ in programs_in(eqn):
      yield from _names_in(inner)


def is_float(aval: Any) -> bool:
  """Whether an array has numbers that can change by little."""
  return jnp.issubdtype(aval.dtype, jnp.inexact)


def literal(atom: Any) -> np.ndarray:
  """A number in the program; halves are lost where it is bound as it is."""
  return np.asarray(atom.val, atom.aval.dtype)


def programs_in(
  eqn: core.JaxprEqn,
) -> Iterator[tuple[core.Jaxpr, Sequence[Any]]]:
  """The programs inside an operation, with what they close over."""
  for value in jax.tree.leaves(
    list(eqn.params.values()),
    is_leaf=lambda v: isinstance(v, core.Jaxpr | core.ClosedJaxpr),
  ):
    if isinstance(value, core.ClosedJaxpr):
      yield value.jaxpr, value.consts
    elif isinstance(value, core.Jaxpr):
      yield value, ()


def names_something(jaxpr: core.Jaxpr) -> bool:
  """Whether a program, or one inside it, names a number."""
  return any(
    (eqn.primitive.name == 'name' and eqn.params['name'] in NAMES)
    or any(names_something(inner) for inner, _ in programs_in(eqn))
    for eqn in jaxpr.eqns
  )
