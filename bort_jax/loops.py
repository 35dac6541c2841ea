"""Loops whose convolutions are as fast as outside of them.

XLA's compiler for CPUs brings a convolution's axes into the order of its fast
kernels only where the program begins, not within a loop or a branch: there a
transposed convolution, as in every gradient, is 5 to 100 times slower
(``experiments/benchmarks/loops.py``). The loops here are those of
:mod:`jax.lax`, with the axes in order beforehand. Use them under
:func:`jax.jit`, else they are compiled at every call.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.extend import core

from bort_jax.rewriting import Replacement, rewritten


def scan(body: Callable, init: Any, xs: Any = None, **options: Any) -> Any:
  """:func:`jax.lax.scan`."""
  return lax.scan(channels_last(body), init, xs, **options)


def map_(function: Callable, xs: Any, **options: Any) -> Any:
  """:func:`jax.lax.map`."""
  return lax.map(channels_last(function), xs, **options)


def while_loop(going_on: Callable, body: Callable, init: Any) -> Any:
  """:func:`jax.lax.while_loop`."""
  return lax.while_loop(channels_last(going_on), channels_last(body), init)


def fori_loop(lower: int, upper: int, body: Callable, init: Any) -> Any:
  """:func:`jax.lax.fori_loop`."""
  return lax.fori_loop(lower, upper, channels_last(body), init)


def cond(pred: Any, yes: Callable, no: Callable, *operands: Any) -> Any:
  """:func:`jax.lax.cond`."""
  return lax.cond(pred, channels_last(yes), channels_last(no), *operands)


def channels_last(function: Callable) -> Callable:
  """The same function, for the inside of a loop or a branch.

  Args:
    function: of positional arguments, trees of arrays, to such.

  Returns:
    The function with the axes of each convolution, its derivatives included, in
    the order of XLA's kernels for CPUs; where JAX runs on other devices, the
    function as it is. Depthwise convolutions, which are fast as they are, those
    with an output sharding and what is mapped over devices inside the function
    stay too. Derivatives taken of it afterwards are not in order again.

  Examples:
    >>> import jax
    >>> from bort_jax.loops import channels_last
    >>> double = channels_last(lambda x: 2 * x)
    >>> float(jax.jit(double)(1.5))
    3.0
  """
  if jax.default_backend() != 'cpu':
    return function
  return rewritten(function, _in_order)


def _in_order(eqn: core.JaxprEqn) -> Replacement | None:
  if not _is_out_of_order(eqn):
    return None
  return functools.partial(_with_channels_last, **eqn.params)


def _is_out_of_order(eqn: core.JaxprEqn) -> bool:
  if eqn.primitive is not lax.conv_general_dilated_p:
    return False
  given = eqn.params['dimension_numbers']
  return not (
    given == fast_order(len(given.lhs_spec))
    or eqn.params.get('out_sharding') is not None
    or _is_depthwise(eqn)
  )


def _is_depthwise(eqn: core.JaxprEqn) -> bool:
  channels = eqn.params['dimension_numbers'].rhs_spec[1]
  kernel: Any = eqn.invars[1]
  one = kernel.aval.shape[channels] == 1
  return one and eqn.params['feature_group_count'] > 1


def _with_channels_last(
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
    x, kernel, dimension_numbers=fast_order(x.ndim), **options
  )
  place = (out[0], *out[2:], out[1])
  return lax.transpose(y, tuple(place.index(axis) for axis in range(y.ndim)))


def fast_order(n: int) -> lax.ConvDimensionNumbers:
  """Batch, positions, channels; of kernels positions, inputs, outputs.

  Args:
    n: number of axes of what is convolved.

  Returns:
    The only order for which XLA has fast kernels on CPUs.

  Examples:
    >>> from bort_jax.loops import fast_order
    >>> fast_order(4).lhs_spec
    (0, 3, 1, 2)
  """
  last = (0, n - 1, *range(1, n - 1))
  return lax.ConvDimensionNumbers(last, (n - 1, n - 2, *range(n - 2)), last)
