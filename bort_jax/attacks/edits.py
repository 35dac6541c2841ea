"""Edits of latent codes: which there are, and what they need."""

from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax import validation
from bort_jax.attacks.checks import check_size, check_steps
from bort_jax.attacks.errors import AttackError
from bort_jax.validation import is_integer, is_known

Edit: TypeAlias = Literal['direction', 'units']


def check_hashable(apply_fn: Any) -> None:
  """Refuses what cannot be found again among what is compiled."""
  advice = (
    'Give a function (params, x) -> outputs, and what it holds as params.'
  )
  validation.check_hashable('apply_fn', apply_fn, advice, AttackError)


def check_edit(
  edit: Any, num_units: Any, steps: Any, greatest: Any, n: int
) -> None:
  """Refuses settings that are no way to edit the codes of n pictures."""
  check_steps(steps)
  if edit not in get_args(Edit):
    raise AttackError(
      f'edit must be one of {", ".join(get_args(Edit))}, got {edit!r}.'
    )
  if not is_integer(num_units) or int(num_units) < 1:
    raise AttackError(
      f'num_units must be an integer, at least 1, got {num_units!r}.'
    )
  if greatest is None:
    return
  check_size('greatest', greatest, n)
  if is_known(greatest) and not np.all(np.asarray(greatest) > 0):
    raise AttackError(f'greatest must be > 0, got {greatest!r}.')


def checked_prototypes(
  prototypes: Any, shape: tuple[int, ...], target: jax.Array
) -> jax.Array:
  """A code per class, finite for those sought; refuses others."""
  if prototypes is None:
    raise AttackError(
      "edit='units' moves towards prototypes: give those of"
      ' attacks.class_prototypes(apply_fn, params, x, labels, …).'
    )
  prototypes = jnp.asarray(prototypes)
  if prototypes.shape != shape:
    raise AttackError(
      f'prototypes must have shape {shape}, a code per class, got'
      f' {prototypes.shape}.'
    )
  if is_known(prototypes) and is_known(target):
    _check_finite(np.asarray(prototypes), np.asarray(target))
  return prototypes


def _check_finite(prototypes: np.ndarray, target: np.ndarray) -> None:
  rest = tuple(range(1, prototypes.ndim))
  finite = np.asarray(np.all(np.isfinite(prototypes), axis=rest))
  missing = {str(label) for label in target.tolist() if not finite[label]}
  if missing:
    raise AttackError(
      f'prototypes are not finite for the targets {", ".join(sorted(missing))}:'
      ' a class without pictures has none.'
    )
