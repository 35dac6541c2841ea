"""Elementwise operations as functions of numbers, in wider floats."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from bort_jax.inversion.operations import aval_of, is_float
from bort_jax.inversion.program import Program, read, variables
from bort_jax.inversion.segments import Constants, Piece


def working_dtype(piece: Piece) -> Any:
  """The widest floats of a piece, single precision at least."""
  made = [v for eqn in piece.eqns for v in eqn.outvars if is_float(v)]
  floats = (aval_of(v).dtype for v in (piece.invar, *made))
  return jnp.result_type(jnp.float32, *floats)


def widened(
  piece: Piece, constants: Constants, value: jax.Array, dtype: Any
) -> jax.Array:
  """What comes out of a piece that computes with other floats than it says.

  Half precision turns smooth functions into stairs, on which nothing is
  strictly monotone.

  Args:
    piece: elementwise operations.
    constants: the values that do not depend on x.
    value: what goes in.
    dtype: that of all floats.

  Returns:
    What comes out, in these floats if it is floats.
  """
  env = {**constants, piece.invar: value}
  for eqn in piece.eqns:
    values = [_as_floats(read(env, atom), dtype) for atom in eqn.invars]
    outs = _bind(eqn, values, dtype)
    env.update(zip(eqn.outvars, outs, strict=True))
  return _as_floats(env[piece.outvar], dtype)


def _bind(eqn: core.JaxprEqn, values: list, dtype: Any):
  if eqn.primitive.name == 'reduce_precision':
    return values
  options = eqn.primitive.get_bind_params(eqn.params)
  if jnp.issubdtype(options.get('new_dtype', bool), jnp.floating):
    options = {**options, 'new_dtype': jnp.dtype(dtype)}
  outs = eqn.primitive.bind(*values, **options)
  return outs if eqn.primitive.multiple_results else [outs]


def _as_floats(value: Any, dtype: Any) -> Any:
  floats = jnp.issubdtype(value.dtype, jnp.floating)
  return value.astype(dtype) if floats else value


class Scalar:
  """A piece without parameters, as a function of NumPy arrays in float64."""

  def __init__(self, piece: Piece, numbers: Mapping[core.Var, np.ndarray]):
    self._piece, self._numbers = piece, numbers
    self.has_derivative = is_float(piece.outvar)

  def __call__(self, points: np.ndarray) -> np.ndarray:
    """Its values."""
    return self._evaluated(self._value, points)

  def derivative(self, points: np.ndarray) -> np.ndarray:
    """Its derivatives; at kinks, what JAX gives."""
    return self._evaluated(
      lambda v: jax.jvp(self._value, (v,), (jnp.ones_like(v),))[1], points
    )

  def _evaluated(self, function: Callable, points: np.ndarray) -> np.ndarray:
    """Always of a full block of points: each operation is compiled once."""
    padded = np.zeros(-(-points.size // BLOCK) * BLOCK)
    padded[: points.size] = points.ravel()
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
      out = np.asarray(function(jnp.asarray(padded)), np.float64)
    return out[: points.size].reshape(points.shape)

  def _value(self, points: jax.Array) -> jax.Array:
    full = lambda var: points.shape if aval_of(var).shape else ()
    constants = {
      var: jnp.broadcast_to(jnp.asarray(number), full(var))
      for var, number in self._numbers.items()
    }
    return widened(self._piece, constants, points, points.dtype)


BLOCK = 2**14


def scalar_function(piece: Piece, program: Program) -> Scalar | None:
  """An elementwise piece as a function of numbers, if it has no parameters.

  Args:
    piece: elementwise operations.
    program: the program they are cut from.

  Returns:
    The function; None if it depends on parameters, or differs from one number
    to the next.
  """
  made = {v for eqn in piece.eqns for v in eqn.outvars} | {piece.invar}
  numbers = {}
  for var in {v for eqn in piece.eqns for v in variables(eqn)} - made:
    values = np.ravel(program.literals.get(var, ()))
    if not values.size or (values != values[0]).any():
      return None
    numbers[var] = values[0]
  return Scalar(piece, numbers)
