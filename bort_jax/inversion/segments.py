"""A program cut at its bottlenecks, each piece named for what it is."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend import core

from bort_jax.inversion.errors import InversionError
from bort_jax.inversion.operations import (
  aval_of,
  is_affine,
  is_choice,
  is_elementwise,
  is_float,
  is_known,
  source_of,
)
from bort_jax.inversion.program import (
  Program,
  apply,
  evaluate,
  read,
  variables,
)

Kind: TypeAlias = Literal[
  'affine', 'elementwise', 'pooling', 'residual', 'nonlinear'
]
Constants: TypeAlias = Mapping[core.Var, Any]


@dataclasses.dataclass(frozen=True)
class Piece:
  """Operations with one array in and one array out."""

  kind: Kind
  eqns: tuple[core.JaxprEqn, ...]
  invar: core.Var
  outvar: core.Var
  parts: tuple['Piece', ...] = ()  # the layers of which an affine one is made

  @property
  def operations(self) -> tuple[str, ...]:
    """The names of its operations, in order."""
    return tuple(eqn.primitive.name for eqn in self.eqns)

  @property
  def source(self) -> str:
    """Where in the user's source it ends."""
    return source_of(self.eqns[-1])

  @property
  def like(self) -> jax.ShapeDtypeStruct:
    """Shape and dtype of what goes in."""
    return _struct(self.invar)

  @property
  def out_like(self) -> jax.ShapeDtypeStruct:
    """Shape and dtype of what comes out."""
    return _struct(self.outvar)

  @property
  def rounding(self) -> float:
    """The relative rounding of the coarsest floats that it computes with."""
    made = [v for eqn in self.eqns for v in eqn.outvars if is_float(v)]
    return max(float(jnp.finfo(aval_of(v).dtype).eps) for v in made)

  def __call__(self, constants: Constants, value: jax.Array) -> jax.Array:
    """What comes out."""
    env = evaluate(self.eqns, {**constants, self.invar: value})
    return env[self.outvar]

  def switched(
    self, constants: Constants, value: jax.Array, recorded: Constants
  ) -> jax.Array:
    """What comes out when every maximum stays where it was recorded."""
    env = {**constants, self.invar: value}
    for eqn in self.eqns:
      values = [read(env, atom) for atom in eqn.invars]
      if is_switch(eqn, self.eqns):
        (now,), (then,) = values, [read(recorded, a) for a in eqn.invars]
        _, follow = jax.linearize(lambda a, eqn=eqn: apply(eqn, [a])[0], then)
        outs = [follow(now)]
      else:
        outs = apply(eqn, values)
      env.update(zip(eqn.outvars, outs, strict=True))
    return env[self.outvar]

  @property
  def switches(self) -> tuple[core.JaxprEqn, ...]:
    """Its maxima."""
    return tuple(eqn for eqn in self.eqns if is_switch(eqn, self.eqns))


def is_switch(eqn: core.JaxprEqn, among: Sequence[core.JaxprEqn]) -> bool:
  """Whether it picks numbers, but not just to shift the range of a softmax."""
  return is_choice(eqn) and not _only_shifts(eqn.outvars[0], among)


def _only_shifts(var: core.Var, among: Sequence[core.JaxprEqn]) -> bool:
  users = [eqn for eqn in among if var in variables(eqn)]
  shape_only = ('broadcast_in_dim', 'reshape', 'max')
  return bool(users) and all(
    user.primitive.name == 'stop_gradient'
    or (
      user.primitive.name in shape_only and _only_shifts(user.outvars[0], among)
    )
    for user in users
  )


def cut(program: Program, custom: frozenset[str] = frozenset()) -> list[Piece]:
  """The pieces between a program's bottlenecks, in order.

  A bottleneck is where exactly one value that depends on x is needed later.

  Args:
    program: the program.
    custom: names of operations that the user has given rules for; they stay by
      themselves.

  Returns:
    The pieces; neighbours that are affine are one, with its layers as parts.

  Raises:
    InversionError: for an operation that nothing is known of.
  """
  pieces: list[Piece] = []
  for eqns, invar, outvar in _between_bottlenecks(program):
    kind = _kind(eqns, invar, outvar, program, custom)
    pieces.append(Piece(kind, eqns, invar, outvar))
  return _merged(pieces)


def _between_bottlenecks(program: Program):
  last_use: dict[core.Var, int] = {}
  for i, eqn in enumerate(program.eqns):
    last_use.update((v, i) for v in variables(eqn) if v in program.dependent)
  last_use[program.outvar] = len(program.eqns)
  alive, start, invar = {program.invar}, 0, program.invar
  for i, eqn in enumerate(program.eqns):
    alive.update(v for v in eqn.outvars if v in last_use)
    alive = {v for v in alive if last_use[v] > i}
    if len(alive) == 1 and is_float(next(iter(alive))):
      (outvar,) = alive
      if outvar is not invar:
        yield program.eqns[start : i + 1], invar, outvar
        start, invar = i + 1, outvar


def _kind(
  eqns: tuple[core.JaxprEqn, ...],
  invar: core.Var,
  outvar: core.Var,
  program: Program,
  custom: frozenset[str],
) -> Kind:
  if len(eqns) == 1 and eqns[0].primitive.name in custom:
    return 'nonlinear'
  for eqn in eqns:
    if not is_known(eqn):
      raise InversionError(
        f'No rule runs the operation {eqn.primitive.name!r} backwards'
        f' ({source_of(eqn)}). Give one: rules={{{eqn.primitive.name!r}: rule}}'
        ' with rule(y, like, *constants, **options) -> x, where the operation'
        ' stands alone between two bottlenecks.'
      )
  if all(is_affine(eqn, program.dependent) for eqn in eqns):
    return 'affine'
  shapes = {aval_of(v).shape for eqn in eqns for v in eqn.outvars}
  if shapes == {aval_of(invar).shape} and all(map(is_elementwise, eqns)):
    return 'elementwise'
  if any(is_switch(eqn, eqns) for eqn in eqns) and all(
    is_switch(eqn, eqns) or is_affine(eqn, program.dependent) for eqn in eqns
  ):
    return 'pooling'
  if _adds_its_input(eqns, invar, outvar):
    return 'residual'
  return 'nonlinear'


def _adds_its_input(eqns, invar: core.Var, outvar: core.Var) -> bool:
  """Whether the result is a sum one term of which is what goes in."""
  makers = {eqn.outvars[0]: eqn for eqn in eqns}
  sums, terms = [outvar], []
  while sums:
    eqn = makers.get(sums.pop())
    if eqn is not None and eqn.primitive.name in ('add', 'add_any'):
      sums += variables(eqn)
      terms += variables(eqn)
  same_shape = aval_of(invar).shape == aval_of(outvar).shape
  return same_shape and any(term is invar for term in terms)


def _merged(pieces: list[Piece]) -> list[Piece]:
  merged: list[Piece] = []
  for piece in pieces:
    if piece.kind != 'affine':
      merged.append(piece)
    elif merged and merged[-1].kind == 'affine':
      merged[-1] = _joined(merged[-1], piece)
    else:
      merged.append(dataclasses.replace(piece, parts=(piece,)))
  return merged


def _joined(first: Piece, second: Piece) -> Piece:
  return Piece(
    'affine',
    first.eqns + second.eqns,
    first.invar,
    second.outvar,
    (*first.parts, second),
  )


def _struct(var: core.Var) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(aval_of(var).shape, aval_of(var).dtype)
