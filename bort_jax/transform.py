"""Bort as an optax gradient transformation."""

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
from bort_jax.settings import check_constraint, check_params
from bort_jax.turns import check_every, in_turn, take_turns
from bort_jax.validation import is_zero


class BortState(NamedTuple):
  """State of :func:`bort` with a scheduled gamma, or with turns."""

  count: jax.typing.ArrayLike  # shape=(), dtype=jnp.int32.


def bort(
  gamma: optax.ScalarOrSchedule,
  *,
  amplitude: Amplitude = 1.0,
  mode: Mode = 'l2-full',
  axes: AxesLike = None,
  every: int | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Adds gamma·C(W) to the updates: pulls each weight matrix to W Wᴴ = aI.

  .. math::
    u \leftarrow u + \gamma\, (W W^H W - a W)

  Put it *before* the optimizer, whose learning rate then scales the constraint
  as it scales the gradient; behind it the correction would be unscaled and of
  the wrong sign, and the weights NaN within some steps. With ``optax.sgd`` this
  is the published BortS. For Adam, LAMB and Muon, which normalize what they are
  given, use the decoupled :func:`bort_adamw`, :func:`bort_lamb` and
  :func:`bort_muon`.

  Every singular value goes to √a, for a wide and for a tall matrix alike; on a
  tall one it is the columns that become orthogonal. With plain SGD the step
  h = learning_rate·gamma is stable while h·a < 1 and σ_max² < a + 2/h; see
  :func:`bort_jax.spectrum.check`. It is fastest at h·a = 1/2.

  Args:
    gamma: strength of the constraint, a number >= 0 or a schedule; 0 is off.
    amplitude: a, a number > 0, or ``'ada'`` for the published (mean row norm)²
      of each step.
    mode: one of the seven published modes, see
      :func:`bort_jax.correction.bort_correction`.
    axes: which parameters are matrices, and along which axes: a rule
      ``(path, leaf) -> MatrixAxes | None``, one :class:`MatrixAxes`, or a tree
      of them; ``optax.contrib.MuonDimensionNumbers`` serves too. By default
      parameters are chosen by name, see
      :func:`bort_jax.selection.default_rule`.
    every: each matrix is corrected at one step of this many, with every·gamma;
      the matrices take turns, so that every step costs about the same. None:
      all of them at every step, as published. It is every·h that must be
      stable then; with the momentum of ``bort_sgd`` far less is, see
      :func:`bort_jax.spectrum.check`, which knows. A run that has begun with
      None cannot go on with turns: the state differs.

  Returns:
    The corresponding :class:`optax.GradientTransformationExtraArgs`. Its update
    needs ``params``.

  Raises:
    ValueError: for a negative or non-finite number or an unknown mode; when it
      is initialized or applied, for axes that do not fit the parameters or
      select none of them.
    TypeError: if a selected parameter is not of a float or complex dtype.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from bort_jax import bort
    >>> params = {'kernel': jnp.array([[1.0, 0.2], [0.0, 2.0]])}
    >>> loss = lambda params: jnp.sum(params['kernel'] ** 2)
    >>> tx = optax.chain(bort(gamma=10.0), optax.sgd(0.01))
    >>> state = tx.init(params)
    >>> for _ in range(100):
    ...   grads = jax.grad(loss)(params)
    ...   updates, state = tx.update(grads, state, params)
    ...   params = optax.apply_updates(params, updates)
    >>> singular_values = jnp.linalg.svd(params['kernel'], compute_uv=False)
    >>> [round(float(s) ** 2, 3) for s in singular_values]  # 1 - 2 / gamma
    [0.8, 0.8]

  .. note::
    Under ``optax.inject_hyperparams``, name a callable ``axes`` or
    ``weight_decay_mask`` in ``static_args``: optax takes it for a schedule
    otherwise, and a mask then drops the decay without a word. Name ``every``
    there too.

  References:
    Zhang et al., `Bort: Towards Explainable Neural Networks with Bounded
    Orthogonal Constraint <https://arxiv.org/abs/2212.09062>`_, 2023
  """
  check_constraint(gamma, amplitude, mode)
  check_every(every)
  counts = callable(gamma) or every is not None

  def init_fn(params):
    if not is_zero(gamma):
      matrix_views(axes, params)  # refuses what does not fit, now
    if counts:
      return BortState(count=jnp.zeros([], jnp.int32))
    return optax.EmptyState()

  def update_fn(updates, state, params=None, **extra_args):
    del extra_args
    check_params(params)
    strength: Any = gamma
    new_state, count = state, 0
    if counts:
      count = state.count
      new_state = BortState(count=optax.safe_increment(count))
    if callable(gamma):
      strength = gamma(count)
    if is_zero(strength):
      return updates, new_state
    strength = strength * (every or 1)

    def correct(view, update, w, strength, a):
      return update + strength * matrix_correction(view, w, a, mode)

    few_at_once = FewAtOnce(matrix_views(axes, updates, required=False))

    def add_to_matrix(view, update, w, is_turn):
      a = amplitude_argument(amplitude)
      add = lambda u, w: on_matrices(correct, view, u, w, strength, a)
      leave = lambda u, w: u
      work = lambda w: in_turn(is_turn, add, leave, update, w)
      # branches are taken one after another as it is
      return few_at_once(work, view, w) if is_turn is True else work(w)

    turns = take_turns(axes, updates, every, count)
    return map_matrices(add_to_matrix, axes, updates, params, turns), new_state

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
