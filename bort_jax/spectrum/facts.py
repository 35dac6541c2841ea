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
from bort_jax.spectrum.stability import safe_rate


class Setting(NamedTuple):
  """What is to be done to every parameter."""

  learning_rate: float
  gamma: float
  weight_decay: float
  momentum: float
  nesterov: bool
  adaptive: bool
  mode: Mode

  @property
  def step(self) -> float:
    """Step size h of the correction."""
    return self.learning_rate * self.gamma


class Facts(NamedTuple):
  """What a parameter is, measured."""

  parameter: str
  view: MatrixView
  largest: float  # of the values that the mode constrains
  amplitude: float
  safe_rate: float
  zeros: int  # matrices that are exactly zero
  moved: float  # share of entries that one correction step changes
  error: float  # largest relative entry of C(W)


def measure(
  path: str,
  view: MatrixView,
  w: jax.Array,
  amplitude: Amplitude,
  setting: Setting,
) -> Facts:
  """Measures one parameter; waits for the device."""
  a = amplitude_argument(amplitude)
  numbers = on_matrices(
    lambda view, w, a: _numbers(view, w, a, setting),
    view,
    w,
    a,
    per_matrix=True,
  )
  largest, amplitude_used, zeros, error = map(float, numbers)
  rate = safe_rate(
    jnp.float32(largest),
    setting.gamma,
    amplitude_used,
    setting.momentum,
    setting.nesterov,
  )
  return Facts(
    parameter=path,
    view=view,
    largest=largest,
    amplitude=amplitude_used,
    safe_rate=float(rate),
    zeros=int(zeros),
    moved=_share_moved(view, w, a, setting),
    error=error,
  )


def _numbers(view, w, a, setting: Setting):
  a = amplitude_per_matrix(view, w, a)
  entries = view.largest_entry(w)
  correction = view.largest_entry(matrix_correction(view, w, a, setting.mode))
  return (
    jnp.max(_constrained_values(view, w, setting.mode)),
    jnp.max(a),
    jnp.sum(entries == 0),
    jnp.max(correction / jnp.maximum(a * entries, 1e-30)),
  )


def _share_moved(view, w, a, setting: Setting) -> float:
  """The share of entries that one step changes, in the parameter's dtype."""
  if jnp.finfo(w.dtype).bits >= 32:
    return 1.0

  def step(view, w, a):
    return w - setting.step * matrix_correction(view, w, a, setting.mode)

  return float(jnp.mean(on_matrices(step, view, w, a) != w))


def _constrained_values(view: MatrixView, w, mode: Mode):
  """The singular values, row norms or column norms that a mode constrains."""
  if 'full' in mode:
    return jnp.linalg.svd(view.to_matrices(w), compute_uv=False)
  side = 'out' if mode.endswith('row') else 'in'
  return jnp.sqrt(view.squared_norms(w, side))
