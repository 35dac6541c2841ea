"""A function as a list of operations, nested calls inlined."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from bort_jax.inversion.errors import InversionError
from bort_jax.inversion.inlining import Inliner
from bort_jax.inversion.operations import aval_of


@dataclasses.dataclass(frozen=True)
class Program:
  """What ``apply_fn(params, x)`` does, in order, without what has no effect."""

  constant_eqns: tuple[core.JaxprEqn, ...]  # those that do not depend on x
  eqns: tuple[core.JaxprEqn, ...]  # those that do
  params: tuple[core.Var, ...]
  captured: Mapping[core.Var, Any]  # arrays that the function closes over
  invar: core.Var
  outvar: core.Var
  dependent: frozenset[core.Var]
  has_own_derivatives: bool  # jax.custom_jvp or custom_vjp, which are not kept
  exponents: Mapping[core.Var, float]  # B, of outputs of B-cos layers

  def constants(self, params: Any) -> dict[core.Var, Any]:
    """The values of everything that does not depend on x."""
    leaves = jax.tree.leaves(params)
    given = dict(zip(self.params, leaves, strict=True))
    return evaluate(self.constant_eqns, {**self.captured, **given})

  def __call__(
    self, constants: Mapping[core.Var, Any], value: jax.Array
  ) -> jax.Array:
    """What comes out, of what goes in and the constants."""
    env = evaluate(self.eqns, {**constants, self.invar: value})
    return env[self.outvar]

  @functools.cached_property
  def literals(self) -> dict[core.Var, Any]:
    """The constants that no parameter enters, computed while tracing."""
    known: dict[core.Var, Any] = {}
    with jax.ensure_compile_time_eval():
      for eqn in self.constant_eqns:
        if known.keys() >= set(variables(eqn)):
          known = evaluate([eqn], known)
    return known


def trace(
  apply_fn: Callable[[Any, jax.Array], Any],
  params: Any,
  like: jax.ShapeDtypeStruct,
) -> Program:
  """Reads a function's operations.

  Args:
    apply_fn: the function of parameters and input.
    params: its parameters, arrays or their shapes.
    like: shape and dtype of x.

  Returns:
    The program.

  Raises:
    InversionError: if the function does not return one array of floats, or it
      does not depend on x.
  """
  flat, given, outvars, out = _flattened(apply_fn, params, like)
  leaves = jax.tree.leaves(out)
  if len(leaves) != 1 or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
    raise InversionError(
      'apply_fn must return one array of floats, but returns'
      f' {jax.tree.map(lambda a: f"{a.dtype}{list(a.shape)}", out)}. Choose one'
      " of several outputs with inversion.until(apply_fn, 'NAME')."
    )
  if isinstance(outvars[0], core.Literal) or outvars[0] not in flat.dependent:
    raise InversionError(
      'apply_fn does not depend on x, so nothing of x can be recovered. Its'
      ' arguments must be (params, x), in this order.'
    )
  return _program(flat, given, given[-1], outvars[0])


def trace_after(
  apply_fn: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]],
  params: Any,
  like: jax.ShapeDtypeStruct,
) -> Program | None:
  """Reads what a function makes of the first of its two outputs.

  Args:
    apply_fn: a function with outputs (code, out), of which out is made of code.
    params: its parameters.
    like: shape and dtype of x.

  Returns:
    The program from code to out; None if out does not depend on code, or on x
    past it.
  """
  flat, given, (code, outvar), _ = _flattened(apply_fn, params, like)
  program = _program(flat, given, code, outvar)
  made = {code, *(v for eqn in program.eqns for v in eqn.outvars)}
  used = {v for eqn in program.eqns for v in variables(eqn)} | {outvar}
  if code not in used or (used & program.dependent) - made:
    return None
  return program


def _flattened(apply_fn, params, like):
  """All operations, the variables of parameters and x, and the outputs."""
  closed, out = jax.make_jaxpr(apply_fn, return_shape=True)(params, like)
  flat = Inliner()
  given = [flat.fresh(v.aval) for v in closed.jaxpr.invars]
  flat.dependent.add(given[-1])
  outvars = flat.inline(closed.jaxpr, closed.consts, given)
  return flat, given, outvars, out


def _program(flat: Inliner, given, invar, outvar) -> Program:
  used = _used(flat.eqns, invar, outvar)
  depends = lambda eqn: any(v in flat.dependent for v in eqn.outvars)
  return Program(
    tuple(eqn for eqn in used if not depends(eqn)),
    tuple(eqn for eqn in used if depends(eqn)),
    tuple(given[:-1]),
    flat.captured,
    invar,
    outvar,
    frozenset(flat.dependent),
    flat.has_own_derivatives,
    flat.exponents,
  )


def evaluate(
  eqns: Sequence[core.JaxprEqn], env: Mapping[core.Var, Any]
) -> dict[core.Var, Any]:
  """All values after some operations.

  Args:
    eqns: the operations.
    env: the values that they start from.

  Returns:
    Those values and the new ones.
  """
  env = dict(env)
  for eqn in eqns:
    outs = apply(eqn, [read(env, atom) for atom in eqn.invars])
    env.update(zip(eqn.outvars, outs, strict=True))
  return env


def apply(eqn: core.JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
  """The results of one operation."""
  options = eqn.primitive.get_bind_params(eqn.params)
  outs = eqn.primitive.bind(*values, **options)
  return outs if eqn.primitive.multiple_results else [outs]


def read(env: Mapping[core.Var, Any], atom: core.Var | core.Literal) -> Any:
  """The value of a variable or of a number in the program."""
  if isinstance(atom, core.Literal):  # halves are lost where it is bound as is
    return np.asarray(atom.val, aval_of(atom).dtype)
  return env[atom]


def variables(eqn: core.JaxprEqn) -> list[core.Var]:
  """The operands of an operation that are not numbers in the program."""
  return [a for a in eqn.invars if not isinstance(a, core.Literal)]


def _used(eqns: Sequence, invar: core.Var, outvar: core.Var) -> list:
  """The operations from one value to another, in order."""
  needed, kept = {outvar} - {invar}, []
  for eqn in reversed(eqns):
    if any(var in needed for var in eqn.outvars):
      needed.update(set(variables(eqn)) - {invar})
      kept.append(eqn)
  return kept[::-1]
