"""Functions with some of their operations done in another way."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.extend import core, source_info_util

# An operation's result from its operands.
Replacement: TypeAlias = Callable[..., jax.Array]
Rule: TypeAlias = Callable[[core.JaxprEqn], Replacement | None]

# What maps over devices has axes and meshes of its own, which are not here.
_LEFT_ALONE = ('shard_map', 'xla_pmap')


def rewritten(function: Callable, rule: Rule) -> Callable:
  """The same function, with other ways to its results.

  Args:
    function: of positional arguments, trees of arrays, to such.
    rule: tells for an operation of one result what is to be done in its place,
      or None. It is asked for all, those in nested programs too, but for what
      is mapped over devices inside the function.

  Returns:
    The function, which is traced at each call: use it under :func:`jax.jit`.
    Operations keep their names and places in the source.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.rewriting import rewritten
    >>> def twice(eqn):
    ...   return (lambda x: x + x) if eqn.primitive.name == 'sin' else None
    >>> float(rewritten(jnp.sin, twice)(3.0))
    6.0
  """

  def run(*args):
    closed, out = jax.make_jaxpr(function, return_shape=True)(*args)
    outs = _evaluate(rule, closed.jaxpr, closed.consts, jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(out), outs)

  return run


def _evaluate(
  rule: Rule, jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any]
) -> list[Any]:
  names = [*jaxpr.constvars, *jaxpr.invars]
  env = dict(zip(names, [*consts, *args], strict=True))
  for eqn in jaxpr.eqns:
    values = [_read(env, atom) for atom in eqn.invars]
    outs = _apply_as_written(rule, eqn, values)
    env.update(zip(eqn.outvars, outs, strict=True))
  return [_read(env, atom) for atom in jaxpr.outvars]


def _read(env: Mapping[core.Var, Any], atom: core.Var | core.Literal) -> Any:
  if not isinstance(atom, core.Literal):
    return env[atom]
  aval: Any = atom.aval
  # a plain number would widen halves
  return atom.val if aval.weak_type else np.asarray(atom.val, aval.dtype)


def _apply_as_written(
  rule: Rule, eqn: core.JaxprEqn, values: Sequence[Any]
) -> Sequence[Any]:
  """The results of one operation, under its name and place in the source."""
  info = eqn.source_info
  name_stack = source_info_util.current_name_stack() + info.name_stack
  with (
    source_info_util.user_context(info.traceback, name_stack=name_stack),
    eqn.ctx.manager,
  ):
    return _apply(rule, eqn, values)


def _apply(
  rule: Rule, eqn: core.JaxprEqn, values: Sequence[Any]
) -> Sequence[Any]:
  replacement = rule(eqn)
  if replacement is not None:
    return [replacement(*values)]
  if _has_one(rule, eqn):
    params = {name: _inside(rule, value) for name, value in eqn.params.items()}
    eqn = eqn.replace(params=params)
  outs = eqn.primitive.bind(
    *values, **eqn.primitive.get_bind_params(eqn.params)
  )
  return outs if eqn.primitive.multiple_results else [outs]


def _has_one(rule: Rule, eqn: core.JaxprEqn) -> bool:
  """Whether something is to be replaced in the programs of an operation."""
  if eqn.primitive.name in _LEFT_ALONE:
    return False
  return any(
    rule(inner) is not None or _has_one(rule, inner)
    for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_program)
    if _is_program(value)
    for inner in value.eqns
  )


def _is_program(value: Any) -> bool:
  return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def _inside(rule: Rule, value: Any) -> Any:
  """An operation's parameter; if it is a program, that program rewritten."""
  if isinstance(value, tuple):
    items = [_inside(rule, item) for item in value]
    return type(value)(*items) if hasattr(value, '_fields') else tuple(items)
  if isinstance(value, core.ClosedJaxpr):
    run = lambda *args: _evaluate(rule, value.jaxpr, value.consts, args)
    return jax.make_jaxpr(run)(*value.in_avals)
  if isinstance(value, core.Jaxpr) and not value.constvars:
    closed = _inside(rule, core.ClosedJaxpr(value, ()))
    return value if closed.consts else closed.jaxpr
  return value
