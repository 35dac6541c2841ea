"""Checks of plain numbers, made before anything is traced."""

import math
import numbers
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def check_number(
  name: str, value: Any, *, positive: bool = False, schedule: bool = False
) -> None:
  """Refuses a number that is negative, infinite or not a number.

  Tracers pass: their values are not known here (under
  ``optax.inject_hyperparams`` every number is traced).

  Args:
    name: what the user calls the number, for the message.
    value: the number, or an array of one.
    positive: whether zero is refused too.
    schedule: whether a function of the step passes too.

  Raises:
    ValueError: if the number is outside its range.

  Examples:
    >>> from bort_jax.validation import check_number
    >>> check_number('gamma', -1.0)
    Traceback (most recent call last):
      ...
    ValueError: gamma must be a finite number >= 0, got -1.0.
  """
  if not is_known(value) or (schedule and callable(value)):
    return
  number = _as_float(value)
  if not math.isfinite(number) or number < 0 or (positive and number == 0):
    bound = '> 0' if positive else '>= 0'
    raise ValueError(f'{name} must be a finite number {bound}, got {value!r}.')


def check_momentum(momentum: Any) -> None:
  """Refuses a momentum outside [0, 1)."""
  check_number('momentum', momentum)
  if is_known(momentum) and _as_float(momentum) >= 1:
    raise ValueError(f'momentum must be below 1, got {momentum!r}.')


def check_steps(name: str, value: Any) -> None:
  """Refuses a number of iterations that is not an integer of at least 1."""
  if is_known(value) and (not is_integer(value) or operator.index(value) < 1):
    raise ValueError(f'{name} must be an integer, at least 1, got {value!r}.')


def checked_classes(
  name: str,
  value: Any,
  count: int,
  num_classes: int,
  error: type[ValueError],
) -> jax.Array:
  """A class for each picture; refuses what is none.

  Args:
    name: what the user calls them, for the message.
    value: integers (count,), or one for all. Their range is checked where they
      are known.
    count: number of pictures.
    num_classes: of the network.
    error: what is raised.

  Returns:
    (count,) int.

  Raises:
    ValueError: of the given kind, for anything that does not fit.

  Examples:
    >>> from bort_jax.validation import checked_classes
    >>> checked_classes('target', 3, 2, 10, ValueError).tolist()
    [3, 3]
  """
  if value is None:
    raise error(
      f'{name} is missing: give a class for each picture, integers of shape'
      f' ({count},), such as jnp.argmax(apply_fn(params, x), -1).'
    )
  known = all(map(is_known, jax.tree.leaves(value)))
  classes = np.asarray(value) if known else jnp.asarray(value)
  is_integral = jnp.issubdtype(classes.dtype, jnp.integer)
  if not is_integral or classes.shape not in ((), (count,)):
    raise error(
      f'{name} must be integers of shape ({count},), a class for each picture,'
      f' or one for all, got {classes.dtype} of shape {classes.shape}.'
    )
  if isinstance(classes, np.ndarray):
    wrong = classes[(classes < 0) | (classes >= num_classes)]
    if wrong.size:
      raise error(
        f'{name} {wrong.flat[0]} does not exist: there are {num_classes}'
        f' classes, 0 … {num_classes - 1}.'
      )
  # a short type has no room for every class; what is on a device stays there
  return jnp.broadcast_to(jnp.asarray(value).astype(int), (count,))


def checked_pictures(x: Any, error: type[ValueError]) -> jax.Array:
  """Float pictures (N, H, W, C); refuses others."""
  x = jnp.asarray(x)
  if x.ndim != 4:
    raise error(f'x must be pictures (N, H, W, C), got shape {x.shape}.')
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise error(
      f'x must be floats, got {x.dtype}: convert pictures to 0 … 1 first.'
    )
  return x


def check_logits(
  logits: Any, count: int, advice: str, error: type[ValueError]
) -> None:
  """Refuses what a network returns, as shapes, if it is no logits (N, K)."""
  is_array = isinstance(logits, jax.ShapeDtypeStruct)
  if (
    not is_array
    or len(logits.shape) != 2
    or logits.shape[0] != count
    or not jnp.issubdtype(logits.dtype, jnp.floating)
  ):
    got = f'{logits.dtype}{list(logits.shape)}' if is_array else repr(logits)
    raise error(
      f'apply_fn(params, x) must return float logits (N, K) with N = {count},'
      f' got {got}. {advice}'
    )


def within_memory(
  message: str, error: type[ValueError], function: Callable, *args: Any
) -> Any:
  """What a function returns, computed; a message of ours if memory ends."""
  try:
    return jax.block_until_ready(function(*args))
  except (jax.errors.JaxRuntimeError, MemoryError) as cause:
    exhausted = 'RESOURCE_EXHAUSTED' in str(cause)
    if not exhausted and not isinstance(cause, MemoryError):
      raise
    raise error(message) from cause


def nan_where_missing(
  values: jax.Array, classes: jax.Array, num_classes: int
) -> jax.Array:
  """Values (n, ...), but NaN for classes (n,) that do not exist.

  Under jit :func:`checked_classes` does not know them.
  """
  exists = (classes >= 0) & (classes < num_classes)
  exists = exists.reshape(-1, *[1] * (values.ndim - 1))
  return jnp.where(exists, values, jnp.nan)


def check_hashable(
  name: str, function: Any, advice: str, error: type[ValueError]
) -> None:
  """Refuses a function for which nothing that is compiled is found again."""
  try:
    hash(function)
  except TypeError:
    raise error(
      f'{name} is of type {type(function).__name__}, which has no hash, so what'
      f' is compiled for it could not be found again. {advice}'
    ) from None


def is_integer(value: Any) -> bool:
  """Whether a value is an integer of any kind, and not a boolean."""
  return hasattr(value, '__index__') and not isinstance(value, bool | np.bool_)


def is_known(value: Any) -> bool:
  """Whether a value can be read now: no tracer, nothing on other hosts."""
  if isinstance(value, Tracer):
    return False
  return not isinstance(value, jax.Array) or value.is_fully_addressable


def is_zero(value: Any) -> bool:
  """Whether a value is a plain number, known now, and zero."""
  return isinstance(value, numbers.Real) and value == 0


def _as_float(value: Any) -> float:
  """The number, and NaN for what is no real number."""
  is_array = isinstance(value, np.ndarray | jax.Array)
  is_real = isinstance(value, numbers.Real) or (
    is_array and value.size == 1 and not jnp.iscomplexobj(value)
  )
  if not is_real:
    return math.nan
  return float(value.reshape(()) if is_array else value)
