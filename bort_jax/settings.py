"""What no constraint and no optimizer with one can be given."""

from numbers import Real
from typing import Any

import optax

from bort_jax.correction import Amplitude, check_amplitude, check_mode
from bort_jax.validation import check_number, is_zero


def check_constraint(
  gamma: optax.ScalarOrSchedule, amplitude: Amplitude, mode: str
) -> None:
  """Refuses settings that no constraint can have."""
  check_number('gamma', gamma)
  check_amplitude(amplitude)
  check_mode(mode)


def check_optimizer(
  learning_rate: optax.ScalarOrSchedule,
  gamma: optax.ScalarOrSchedule,
  weight_decay: Any,
  amplitude: Amplitude,
  mode: str,
) -> None:
  """Refuses settings out of range, and a decay stronger than the constraint."""
  check_number('learning_rate', learning_rate)
  check_number('weight_decay', weight_decay)
  check_constraint(gamma, amplitude, mode)
  _check_decay(gamma, weight_decay, amplitude, mode)


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


def _check_decay(gamma, weight_decay, amplitude, mode: str) -> None:
  numbers = (gamma, weight_decay, amplitude)
  known = all(isinstance(number, Real) for number in numbers)
  if not known or is_zero(gamma) or is_zero(weight_decay):
    return
  strongest = gamma * amplitude if mode.startswith('l2') else gamma
  if weight_decay >= strongest:
    raise ValueError(
      f'weight_decay={weight_decay} is not below the pull of the constraint,'
      f' {strongest} (gamma={gamma}, amplitude={amplitude}, mode={mode!r}):'
      ' the weights would decay to zero. Lower weight_decay or raise gamma.'
    )
