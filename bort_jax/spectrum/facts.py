"""What a parameter is, measured for the laws of :mod:`findings`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bort_jax.correction import (
  Amplitude,
  Mode,
  amplitude_argument,
  amplitude_per_matrix,
  matrix_correction,
)
from bort_jax.matrices import MatrixView
from bort_jax.placement import on_matrices
from bort_jax.spectrum.stability import safe_rate, value_range

_RESOLUTION = 0.04  # relative entry of C(W) that bfloat16 rounding leaves


class Setting(NamedTuple):
  """What is to be done to every parameter."""

  learning_rate: float
  gamma: float
  weight_decay: float
  momentum: float
  nesterov: bool
  adaptive: bool
  mode: Mode
  every: int

  @property
  def step(self) -> float:
    """Step size of one correction: h, times the steps it stands for."""
    return self.learning_rate * self.gamma * self.every


class Facts(NamedTuple):
  """What a parameter is, measured."""

  parameter: str
  view: MatrixView
  smallest: float  # of the values that the mode constrains
  largest: float
  amplitude: float
  safe_rate: float
  zeros: int  # matrices that are exactly zero
  moved: float  # least share of entries that one correction step changes


def measure(
  path: str,
  view: MatrixView,
  w: jax.Array,
  amplitude: Amplitude,
  setting: Setting,
) -> Facts:
  """Measures one parameter; waits for the device."""
  a = amplitude_argument(amplitude)
  dtype = jnp.result_type(w)

  @jax.jit  # one compilation for all that is measured
  def numbers_of(w):
    return on_matrices(
      lambda view, w, a: _numbers(view, w, a, dtype, setting),
      view,
      w,
      a,
      per_matrix=True,
    )

  numbers = numbers_of(w)
  smallest, largest, amplitude_used, zeros, moved = map(float, numbers)
  rate = safe_rate(
    jnp.float32(smallest),
    jnp.float32(largest),
    setting.gamma,
    amplitude_used,
    setting.momentum,
    setting.nesterov,
    setting.every,
  )
  return Facts(
    parameter=path,
    view=view,
    smallest=smallest,
    largest=largest,
    amplitude=amplitude_used,
    safe_rate=float(rate),
    zeros=int(zeros),
    moved=moved,
  )


def _numbers(view, w, a, dtype, setting: Setting):
  a = amplitude_per_matrix(view, w, a)
  return (
    *value_range(_constrained_values(view, w, setting.mode)),
    jnp.max(a),
    jnp.sum(view.largest_entry(w) == 0),
    _least_share_moved(view, w, a, dtype, setting),
  )


def _least_share_moved(view, w, a, dtype, setting: Setting):
  """The least share of entries, of a matrix off the constraint, that move.

  In the parameter's dtype, and in one step. A matrix is off the constraint if
  the correction is above the resolution of bfloat16 itself.
  """
  if jnp.finfo(dtype).bits >= 32 or setting.step == 0:
    return 1.0
  correction = matrix_correction(view, w, a, setting.mode)
  moved = (w - setting.step * correction).astype(dtype) != w.astype(dtype)
  share = jnp.mean(view.to_matrices(moved.astype(w.dtype)), axis=(-2, -1))
  scale = jnp.maximum(a * view.largest_entry(w), 1e-30)
  is_off = view.largest_entry(correction) / scale > _RESOLUTION
  return jnp.min(jnp.where(is_off, share, 1.0))


def _constrained_values(view: MatrixView, w, mode: Mode):
  """The singular values, row norms or column norms that a mode constrains."""
  if 'full' in mode:
    return jnp.linalg.svd(view.to_matrices(w), compute_uv=False)
  side = 'out' if mode.endswith('row') else 'in'
  return jnp.sqrt(view.squared_norms(w, side))
