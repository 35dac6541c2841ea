"""Checks of plain numbers, made before anything is traced."""

import math
import numbers
from typing import Any


def check_number(name: str, value: Any, *, positive: bool = False) -> None:
  """Refuses a number that is negative, infinite or not a number.

  Schedules, arrays and tracers pass: their values are not known here (under
  ``optax.inject_hyperparams`` every number is traced).

  Args:
    name: what the user calls the number, for the message.
    value: the number.
    positive: whether zero is refused too.

  Raises:
    ValueError: if the number is outside its range.

  Examples:
    >>> from bort_jax.validation import check_number
    >>> check_number('gamma', -1.0)
    Traceback (most recent call last):
      ...
    ValueError: gamma must be a finite number >= 0, got -1.0.
  """
  if not isinstance(value, numbers.Real | str):
    return
  number = math.nan if isinstance(value, str) else float(value)
  if not math.isfinite(number) or number < 0 or (positive and number == 0):
    bound = '> 0' if positive else '>= 0'
    raise ValueError(f'{name} must be a finite number {bound}, got {value!r}.')


def check_momentum(momentum: Any) -> None:
  """Refuses a momentum outside [0, 1)."""
  check_number('momentum', momentum)
  if isinstance(momentum, numbers.Real) and float(momentum) >= 1:
    raise ValueError(f'momentum must be below 1, got {momentum!r}.')


def is_zero(value: Any) -> bool:
  """Whether a value is a plain number, known now, and zero."""
  return isinstance(value, numbers.Real) and value == 0
