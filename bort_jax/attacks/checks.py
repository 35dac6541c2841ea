"""Checks of what an attack is given, before anything is computed."""

import functools
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from bort_jax.attacks.errors import AttackError
from bort_jax.attacks.moves import Bounds, Norm
from bort_jax.validation import is_integer, is_known


def checked_pictures(x: Any, bounds: Bounds) -> tuple[jax.Array, Bounds]:
  """Float pictures (N, H, W, C) within bounds of their type; refuses others."""
  x = jnp.asarray(x)
  check_shape('x', x)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise AttackError(
      f'x must be floats, got {x.dtype}: convert pictures to 0 … 1 first.'
    )
  check_bounds(bounds)
  low, high = (jnp.asarray(bound, x.dtype) for bound in bounds)
  if all(map(is_known, (x, *bounds))):
    check_range(x, *bounds)
  return x, (low, high)


@jax.ensure_compile_time_eval()  # what is known is read under jit too
def check_range(x: jax.Array, low: Any, high: Any) -> None:
  """Refuses known pictures outside low … high, rounded to their type."""
  low, high = (jnp.asarray(bound, x.dtype) for bound in (low, high))
  if not jnp.all((x >= low) & (x <= high)):
    raise AttackError(
      f'x must be {low} … {high}, got {jnp.min(x)} … {jnp.max(x)}. Pass the'
      ' range of your pictures as bounds.'
    )


def check_shape(name: str, pictures: jax.Array) -> None:
  """Refuses what is not (N, H, W, C)."""
  if pictures.ndim != 4:
    raise AttackError(
      f'{name} must be pictures (N, H, W, C), got shape {pictures.shape}.'
    )


def check_bounds(bounds: Any) -> None:
  """Refuses what are not two numbers, the lesser first."""
  try:
    low, high = bounds
  except (TypeError, ValueError):
    raise AttackError(
      f'bounds must be two numbers, least and greatest, got {bounds!r}.'
    ) from None
  if np.shape(low) or np.shape(high):
    raise AttackError(f'bounds must be two plain numbers, got {bounds!r}.')
  if is_known(low) and is_known(high) and not float(low) < float(high):
    raise AttackError(
      f'bounds must be least and greatest pixel, in this order, got {bounds!r}.'
    )


def check_size(name: str, value: Any, n: int) -> None:
  """Refuses what is no finite number ≥ 0, and no array (N,) of them."""
  if np.shape(value) not in ((), (n,)):
    raise AttackError(
      f'{name} must be a number, or an array of shape ({n},), one per picture,'
      f' got shape {np.shape(value)}.'
    )
  if not is_known(value):
    return
  numbers = np.asarray(value, np.float64)
  if not np.all(np.isfinite(numbers) & (numbers >= 0)):
    raise AttackError(f'{name} must be finite and >= 0, got {value!r}.')


def check_number(name: str, value: Any) -> None:
  """Refuses what is no finite number ≥ 0."""
  if np.shape(value):
    raise AttackError(
      f'{name} must be a number, got an array of shape {np.shape(value)}.'
    )
  check_size(name, value, 1)


def check_settings(norm: str, steps: Any) -> None:
  """Refuses norms that are not known and numbers of steps below 1."""
  if norm not in get_args(Norm):
    raise AttackError(
      f'norm must be one of {", ".join(get_args(Norm))}, got {norm!r}.'
    )
  check_steps(steps)


def check_steps(steps: Any) -> None:
  """Refuses what is no integer ≥ 1 that is known at compilation."""
  if isinstance(steps, Tracer) or not is_integer(steps) or int(steps) < 1:
    raise AttackError(
      'steps must be an integer, at least 1, that is known when the attack is'
      f' compiled (static_argnames), got {steps!r}.'
    )


def number_of_classes(
  apply_fn: Callable[[Any, jax.Array], jax.Array], params: Any, x: jax.Array
) -> int:
  """K of a network's logits (N, K), refused if they are of another shape."""
  logits = _logits.eval_shape(apply_fn, params, x)
  is_array = isinstance(logits, jax.ShapeDtypeStruct)
  n = x.shape[0]
  if (
    not is_array
    or len(logits.shape) != 2
    or logits.shape[0] != n
    or logits.shape[1] < 2
    or not jnp.issubdtype(logits.dtype, jnp.floating)
  ):
    got = f'{logits.dtype}{list(logits.shape)}' if is_array else repr(logits)
    raise AttackError(
      f'apply_fn(params, x) must return float logits (N, K) with N = {n} and K'
      f' ≥ 2, got {got}. Wrap it in a function that returns the logits alone.'
    )
  return logits.shape[1]


# Under jit its trace is kept: another call of the same network is not traced.
@functools.partial(jax.jit, static_argnums=0)
def _logits(apply_fn, params, x):
  return apply_fn(params, x)
