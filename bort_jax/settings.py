"""What no constraint and no optimizer with one can be given."""

from collections.abc import Callable
from numbers import Real
from typing import Any, TypeAlias

import jax
import optax

from bort_jax.correction import Amplitude, check_amplitude, check_mode
from bort_jax.selection import AxesLike, matrix_views
from bort_jax.validation import check_number, is_zero

Mask: TypeAlias = Any | Callable[[optax.Params], Any] | None


def check_constraint(
  gamma: optax.ScalarOrSchedule, amplitude: Amplitude, mode: str
) -> None:
  """Refuses settings that no constraint can have."""
  check_number('gamma', gamma, schedule=True)
  check_amplitude(amplitude)
  check_mode(mode)


def check_optimizer(
  learning_rate: optax.ScalarOrSchedule,
  gamma: optax.ScalarOrSchedule,
  weight_decay: Any,
  amplitude: Amplitude,
  mode: str,
) -> None:
  """Refuses settings that no optimizer with a constraint can have."""
  check_number('learning_rate', learning_rate, schedule=True)
  check_number('weight_decay', weight_decay, schedule=True)
  check_constraint(gamma, amplitude, mode)


def check_params(params: optax.Params | None) -> None:
  """Refuses an update without parameters."""
  if params is None:
    raise ValueError(
      'params is None, but the constraint is a function of the parameters;'
      ' call update(updates, state, params).'
    )


def require_params() -> optax.GradientTransformationExtraArgs:
  """A link with :func:`check_params`, for before links that say less."""

  def init_fn(params):
    del params
    return optax.EmptyState()

  def update_fn(updates, state, params=None, **extra_args):
    del extra_args
    check_params(params)
    return updates, state

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def refuse_collapse(
  tx: optax.GradientTransformationExtraArgs,
  gamma: Any,
  weight_decay: Any,
  mask: Mask,
  amplitude: Any,
  mode: str,
  axes: AxesLike,
) -> optax.GradientTransformationExtraArgs:
  """``tx``, refusing a weight decay that the constraint does not hold against.

  At once where everything decays, and where a mask says what does, when the
  parameters are known.
  """
  numbers = (gamma, weight_decay, amplitude)
  known = all(isinstance(number, Real) for number in numbers)
  if not known or is_zero(gamma) or is_zero(weight_decay):
    return tx
  strongest = gamma * amplitude if mode.startswith('l2') else gamma
  if weight_decay < strongest:
    return tx
  error = ValueError(
    f'weight_decay={weight_decay} is not below the pull of the constraint,'
    f' {strongest} (gamma={gamma}, amplitude={amplitude}, mode={mode!r}):'
    ' the weights would decay to zero. Lower weight_decay or raise gamma.'
  )
  if mask is None:
    raise error

  def init_fn(params):
    keep = lambda decays, x: x if decays else optax.MaskedNode()
    where = mask(params) if callable(mask) else mask
    if matrix_views(axes, jax.tree.map(keep, where, params), required=False):
      raise error
    return tx.init(params)

  return optax.GradientTransformationExtraArgs(init_fn, tx.update)
