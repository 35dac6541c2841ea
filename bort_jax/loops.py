"""Loops whose convolutions are as fast as outside of them.

XLA's compiler for CPUs brings a convolution's axes into the order of its fast
kernels only where the program begins, not within a loop or a branch: there a
transposed convolution, as in every gradient, is 5 to 100 times slower. The
loops here are those of :mod:`jax.lax`, with the axes in order beforehand.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend import core


def scan(body: Callable, init: Any, xs: Any = None, **options: Any) -> Any:
  """:func:`jax.lax.scan`."""
  return lax.scan(in_order(body), init, xs, **options)


def map_(function: Callable, xs: Any, **options: Any) -> Any:
  """:func:`jax.lax.map`."""
  return lax.map(in_order(function), xs, **options)


def while_loop(going_on: Callable, body: Callable, init: Any) -> Any:
  """:func:`jax.lax.while_loop`."""
  return lax.while_loop(in_order(going_on), in_order(body), init)


def fori_loop(lower: int, upper: int, body: Callable, init: Any) -> Any:
  """:func:`jax.lax.fori_loop`."""
  return lax.fori_loop(lower, upper, in_order(body), init)


def cond(pred: Any, yes: Callable, no: Callable, *operands: Any) -> Any:
  """:func:`jax.lax.cond`."""
  return lax.cond(pred, in_order(yes), in_order(no), *operands)


def in_order(function: Callable) -> Callable:
  """The same function, for the inside of a loop or a branch.

  Args:
    function: of arrays in trees, to such.

  Returns:
    The function with each convolution's axes in the order of XLA's kernels for
    CPUs; where JAX runs on other devices, the function as it is. Derivatives
    taken of it afterwards are not in order again.

  Examples:
    >>> import jax
    >>> from bort_jax.loops import in_order
    >>> double = in_order(lambda x: 2 * x)
    >>> float(jax.jit(double)(1.5))
    3.0
  """
  if jax.default_backend() != 'cpu':
    return function

  def ordered(*args):
    closed, out = jax.make_jaxpr(function, return_shape=True)(*args)
    if not _has_one_out_of_order(closed.jaxpr):
      return function(*args)
    outs = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(out), outs)

  return ordered


def _has_one_out_of_order(jaxpr: core.Jaxpr) -> bool:
  return any(
    _is_out_of_order(eqn)
    or any(map(_has_one_out_of_order, core.jaxprs_in_params(eqn.params)))
    for eqn in jaxpr.eqns
  )


def _is_out_of_order(eqn: core.JaxprEqn) -> bool:
  if eqn.primitive is not lax.conv_general_dilated_p:
    return False
  given = eqn.params['dimension_numbers']
  return given != _order(len(given.lhs_spec)) and not _is_depthwise(eqn)


def _evaluate(
  jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any]
) -> list[Any]:
  names = [*jaxpr.constvars, *jaxpr.invars]
  env = dict(zip(names, [*consts, *args], strict=True))
  for eqn in jaxpr.eqns:
    outs = _apply(eqn, [_read(env, atom) for atom in eqn.invars])
    env.update(zip(eqn.outvars, outs, strict=True))
  return [_read(env, atom) for atom in jaxpr.outvars]


def _read(env: Mapping[core.Var, Any], atom: core.Var | core.Literal) -> Any:
  if isinstance(atom, core.Literal):  # halves are lost where it is bound as is
    aval: Any = atom.aval
    return np.asarray(atom.val, aval.dtype)
  return env[atom]


def _apply(eqn: core.JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
  if _is_out_of_order(eqn):
    return [_with_axes_in_order(*values, **eqn.params)]
  if any(map(_has_one_out_of_order, core.jaxprs_in_params(eqn.params))):
    params = {name: _ordered(value) for name, value in eqn.params.items()}
    eqn = eqn.replace(params=params)
  outs = eqn.primitive.bind(
    *values, **eqn.primitive.get_bind_params(eqn.params)
  )
  return outs if eqn.primitive.multiple_results else [outs]


def _ordered(value: Any) -> Any:
  """An operation's parameter; if it is a program, that program in order."""
  if type(value) is tuple:
    return tuple(map(_ordered, value))
  if isinstance(value, core.ClosedJaxpr):
    run = lambda *args: _evaluate(value.jaxpr, value.consts, args)
    return jax.make_jaxpr(run)(*value.in_avals)
  if isinstance(value, core.Jaxpr) and not value.constvars:
    closed = _ordered(core.ClosedJaxpr(value, ()))
    return value if closed.consts else closed.jaxpr
  return value


def _is_depthwise(eqn: core.JaxprEqn) -> bool:
  """Those are fast as they are, and slow in the order of the others."""
  channels = eqn.params['dimension_numbers'].rhs_spec[1]
  kernel: Any = eqn.invars[1]
  one = kernel.aval.shape[channels] == 1
  return one and eqn.params['feature_group_count'] > 1


def _with_axes_in_order(
  x: jax.Array,
  kernel: jax.Array,
  *,
  dimension_numbers: lax.ConvDimensionNumbers,
  **options: Any,
) -> jax.Array:
  (batch, channels, *pixels), (outs, ins, *window), out = dimension_numbers
  x = lax.transpose(x, (batch, *pixels, channels))
  kernel = lax.transpose(kernel, (*window, ins, outs))
  y = lax.conv_general_dilated_p.bind(
    x, kernel, dimension_numbers=_order(x.ndim), **options
  )
  place = (out[0], *out[2:], out[1])
  return lax.transpose(y, tuple(place.index(axis) for axis in range(y.ndim)))


def _order(n: int) -> lax.ConvDimensionNumbers:
  """Batch, positions, channels; of kernels positions, inputs, outputs."""
  last = (0, n - 1, *range(1, n - 1))
  return lax.ConvDimensionNumbers(last, (n - 1, n - 2, *range(n - 2)), last)
