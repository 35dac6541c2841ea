"""The operations of nested programs, collected in one list."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from bort_jax.claims import exponent_in
from bort_jax.inversion.operations import (
  IDENTITIES,
  UNKNOWN,
  is_of_jax,
  source_of,
)

# Calls that only wrap other operations; where they keep them.
_CALLS = {
  'jit': 'jaxpr',
  'closed_call': 'call_jaxpr',  # up to JAX 0.11
  'custom_jvp_call': 'call_jaxpr',
  'custom_vjp_call': 'call_jaxpr',
  'remat2': 'jaxpr',
}


class Inliner:
  """Collects the operations of nested programs, under new variables."""

  def __init__(self):
    self.eqns: list[core.JaxprEqn] = []
    self.captured: dict[core.Var, Any] = {}
    self.dependent: set[core.Var] = set()
    self.has_own_derivatives = False
    self.exponents: dict[core.Var, float] = {}

  def fresh(self, aval) -> core.Var:
    """A new variable of this shape and dtype."""
    return core.Var(aval)

  def inline(
    self, jaxpr, consts: Sequence[Any], args: Sequence, caller=None
  ) -> list:
    """Appends a program's operations; returns where its results are."""
    names = dict(zip(jaxpr.invars, args, strict=True))
    for var, value in zip(jaxpr.constvars, consts, strict=True):
      names[var] = self.fresh(var.aval)
      self.captured[names[var]] = value
    lookup = lambda a: a if isinstance(a, core.Literal) else names[a]
    for eqn in jaxpr.eqns:
      if caller is not None and source_of(eqn) == UNKNOWN:
        eqn = eqn.replace(source_info=caller.source_info)
      outs = self._append(eqn, [lookup(atom) for atom in eqn.invars])
      names.update(zip(eqn.outvars, outs, strict=True))
    return [lookup(atom) for atom in jaxpr.outvars]

  def _append(self, eqn, args: list) -> list:
    depends = any(self._depends(atom) for atom in args)
    name = eqn.primitive.name
    if name in _CALLS:
      jaxpr, consts = _opened(eqn.params[_CALLS[name]])
      own = name.startswith('custom') and not is_of_jax(jaxpr)
      self.has_own_derivatives |= own and depends
      return self.inline(jaxpr, consts, args, eqn)
    if name in IDENTITIES:
      b = exponent_in(eqn.params.get('name', ''))
      if b is not None and not isinstance(args[0], core.Literal):
        known = self.exponents.setdefault(args[0], b)
        self.exponents[args[0]] = b if known == b else math.nan
      return args
    if name == 'scan' and depends:
      return self._unroll(eqn, args)
    if name == 'stop_gradient' and not self._is_shift(args[0]):
      return args  # it changes derivatives, not the function
    outs = [self.fresh(var.aval) for var in eqn.outvars]
    self.eqns.append(eqn.replace(invars=args, outvars=outs))
    if depends:
      self.dependent.update(outs)
    return outs

  def _unroll(self, eqn, args: list) -> list:
    """A scan, such as one over layers, as its steps one after another."""
    body, length = _opened(eqn.params['jaxpr']), eqn.params['length']
    num_consts, num_carry = _scan_sizes(eqn.params)
    consts, carry = args[:num_consts], args[num_consts:][:num_carry]
    sequences = args[num_consts + num_carry :]
    order = range(length)
    steps = {}
    for i in reversed(order) if eqn.params['reverse'] else order:
      now = [self._call(lambda a, i=i: a[i], atom) for atom in sequences]
      inputs = [*consts, *carry, *now]
      outs = self.inline(*body, inputs, eqn)
      carry, steps[i] = outs[:num_carry], outs[num_carry:]
    stacked = zip(*(steps[i] for i in order), strict=True)
    return [*carry, *(self._call(_stack, *column) for column in stacked)]

  def _call(self, function: Callable, *atoms) -> core.Var:
    closed = jax.make_jaxpr(function)(
      *(jax.ShapeDtypeStruct(a.aval.shape, a.aval.dtype) for a in atoms)
    )
    return self.inline(closed.jaxpr, closed.consts, atoms)[0]

  def _is_shift(self, atom) -> bool:
    """Whether it is a maximum, as softmax subtracts for its range alone."""
    if isinstance(atom, core.Literal):
      return False
    made_by = next((e for e in self.eqns[::-1] if atom in e.outvars), None)
    if made_by is None:
      return False
    if made_by.primitive.name in ('broadcast_in_dim', 'reshape', 'max'):
      return any(self._is_shift(a) for a in made_by.invars)
    return made_by.primitive.name == 'reduce_max'

  def _depends(self, atom) -> bool:
    return not isinstance(atom, core.Literal) and atom in self.dependent


def _scan_sizes(options: Mapping[str, Any]) -> tuple[int, int]:
  """How many operands of a scan are constants, and how many are carried."""
  if 'ft_in' in options:  # from JAX 0.12 on
    consts, carry, _ = options['ft_in'].unpack()
    return len(list(consts)), len(list(carry))
  return options['num_consts'], options['num_carry']


def _stack(*arrays):
  # not jnp.stack: its operation is one more that rules would have to know
  return jnp.concatenate([jnp.expand_dims(a, 0) for a in arrays])


def _opened(jaxpr) -> tuple[Any, Sequence[Any]]:
  """A program and its constants, whether it comes with them or not."""
  if isinstance(jaxpr, core.ClosedJaxpr):
    return jaxpr.jaxpr, jaxpr.consts
  return jaxpr, ()
