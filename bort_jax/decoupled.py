"""Bort behind an optimizer that normalizes its gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bort_jax.correction import (
  Amplitude,
  Mode,
  amplitude_argument,
  matrix_correction,
)
from bort_jax.few_at_once import FewAtOnce
from bort_jax.placement import on_matrices
from bort_jax.selection import AxesLike, map_matrices, matrix_views
from bort_jax.settings import Mask, check_params, refuse_collapse
from bort_jax.turns import check_every, in_turn, take_turns
from bort_jax.validation import is_zero


class DecoupledState(NamedTuple):
  """State of the decoupled weight decay and correction."""

  count: jax.typing.ArrayLike  # shape=(), dtype=jnp.int32.
  decay: optax.OptState  # state of optax.add_decayed_weights.


def add_decoupled_bort(
  learning_rate: optax.ScalarOrSchedule,
  gamma: optax.ScalarOrSchedule,
  weight_decay: float | jax.Array,
  weight_decay_mask: Mask,
  amplitude: Amplitude,
  mode: Mode,
  axes: AxesLike,
  every: int | None,
) -> optax.GradientTransformationExtraArgs:
  """Adds λW + γ·C((1 − ηλ)W), so that scaling by η gives the published order.

  The decay is taken from optax.add_decayed_weights, whose mask says where. One
  that would collapse the weights is refused. The decay takes no turns.
  """
  check_every(every)
  decay = optax.add_decayed_weights(weight_decay, weight_decay_mask)

  def init_fn(params):
    if not is_zero(gamma):
      matrix_views(axes, params)  # refuses what does not fit, now
    return DecoupledState(jnp.zeros([], jnp.int32), decay.init(params))

  def update_fn(updates, state, params=None, **extra_args):
    del extra_args
    check_params(params)
    zeros = optax.tree.zeros_like(updates)
    decayed, decay_state = decay.update(zeros, state.decay, params)
    rate = _at(state.count, learning_rate)
    strength = _at(state.count, gamma) * (every or 1)

    def correct(view, update, decayed, w, kept, strength, a):
      correction = matrix_correction(view, w, a, mode, kept)
      return update + decayed + strength * correction

    few_at_once = FewAtOnce(matrix_views(axes, updates, required=False))

    def add_to_matrix(view, update, decayed, w, decay, is_turn):
      kept = 1 - rate * decay
      a = amplitude_argument(amplitude)
      corrected = lambda update, decayed, w: on_matrices(
        correct, view, update, decayed, w, kept, strength, a
      )
      work = lambda w: in_turn(is_turn, corrected, add, update, decayed, w)
      # branches are taken one after another as it is
      return few_at_once(work, view, w) if is_turn is True else work(w)

    def add(update, decayed, *_):
      return (update + decayed).astype(update.dtype)

    if is_zero(strength):
      updates = jax.tree.map(add, updates, decayed, params)
    else:
      decays = jax.tree.map(lambda _: 0.0, params)
      if not is_zero(weight_decay):
        decays = _decays(decay, state.decay, params)
      turns = take_turns(axes, updates, every, state.count)
      trees = decayed, params, decays, turns
      updates = map_matrices(add_to_matrix, axes, updates, *trees, others=add)
    count = optax.safe_increment(state.count)
    return updates, DecoupledState(count, decay_state)

  tx = optax.GradientTransformationExtraArgs(init_fn, update_fn)
  return refuse_collapse(
    tx, gamma, weight_decay, weight_decay_mask, amplitude, mode, axes
  )


def _decays(decay, state: optax.OptState, params: Any) -> Any:
  """λ of each parameter, zero where a mask says so: what becomes of ones.

  In single precision at least, for one less a small number is one in half.
  """
  wide = lambda w: jnp.promote_types(jnp.result_type(w), jnp.float32)
  ones = jax.tree.map(lambda w: jnp.ones(jnp.shape(w), wide(w)), params)
  decays, _ = decay.update(optax.tree.zeros_like(ones), state, ones)
  first = lambda x: jnp.real(x[(0,) * x.ndim]) if x.size else 0.0
  return jax.tree.map(first, decays)


def _at(count: jax.typing.ArrayLike, value: Any) -> Any:
  return value(count) if callable(value) else value
