"""What is wrong with a choice of step, constraint and weight decay."""

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

import jax

from bort_jax.correction import Amplitude, Mode, check_amplitude, check_mode
from bort_jax.selection import AxesLike, matrix_views, path_name
from bort_jax.spectrum.facts import Facts, Setting, measure
from bort_jax.spectrum.stability import stable_kappa
from bort_jax.turns import check_every
from bort_jax.validation import check_momentum, check_number

Kind: TypeAlias = Literal[
  'diverges',
  'sign_flip',
  'decay_shift',
  'decay_collapse',
  'zero',
  'not_finite',
  'frozen',
  'ada_tall',
  'l1_chatter',
]

_VISIBLE_CHATTER = 1e-2  # relative error that l1 modes may leave unreported
_FROZEN_SHARE = 0.05  # of entries that a step must move
_ROUNDING = 1e-6  # of a limit computed in float32


class Finding(NamedTuple):
  """One thing that will not go as intended, for one parameter."""

  parameter: str  # its path
  kind: Kind
  value: float  # the quantity found; the message names it
  limit: float  # what that quantity should be, or stay below
  message: str  # in words, with the remedy

  def __str__(self) -> str:
    return f'{self.parameter}: {self.message}'


def check(
  params: Any,
  learning_rate: float,
  gamma: float,
  amplitude: Amplitude = 1.0,
  weight_decay: float = 0.0,
  momentum: float = 0.0,
  axes: AxesLike = None,
  *,
  nesterov: bool = False,
  mode: Mode = 'l2-full',
  every: int | None = None,
) -> tuple[Finding, ...]:
  """Says what will go wrong with these settings on these parameters.

  The laws are those of the correction alone, without a gradient: of
  ``bort_sgd``, and with ``momentum=0`` of the decoupled optimizers, but for the
  weight decay of :func:`bort_jax.bort_lamb`, which has another law. Kinds:

  * ``diverges``: the correction does not converge: the largest singular value
    (row or column norm, in those modes) is beyond √(a + 2/h),
    h = learning_rate·gamma (times ``every``, here and below), or h·a >= 1,
    where it cycles; with momentum it is not safe by :func:`largest_safe_step`.
    ``value`` is the learning rate.
  * ``sign_flip``: it is beyond √(a + 1/h): the first step turns that direction
    round; ``value`` is the singular value.
  * ``decay_shift``: weight decay moves the target to σ² = a − decay/gamma, by
    more than 1 %; ``value`` is the target, ``limit`` is a.
  * ``decay_collapse``: weight decay >= gamma·a: the weights decay to zero.
  * ``zero``: a matrix is exactly zero and the correction of it too; ``value``
    counts such matrices.
  * ``not_finite``: the weights hold NaN or infinity; nothing else is said.
  * ``frozen``: in a 16-bit dtype, a step moves fewer than 5 % of the entries
    of some matrix that is not yet orthogonal; ``value`` is their least share.
  * ``ada_tall``: ``amplitude='ada'`` lets a tall matrix decay to zero in mode
    ``l2-full``; ``value`` is outputs/inputs.
  * ``l1_chatter``: an l1 step leaves a relative error of about 2h forever; with
    h·side >= 2 (the side of the Gram matrix) it collapses or diverges.

  Args:
    params: a tree of concrete parameters (it reads them: not under jit).
    learning_rate: η, a number >= 0; of a schedule, the largest value.
    gamma: γ, a number >= 0; with 0 there is nothing to find.
    amplitude: a, a number > 0 or ``'ada'``.
    weight_decay: λ, a number >= 0.
    momentum: μ, in [0, 1).
    axes: which parameters are matrices, see :func:`bort_jax.bort`.
    nesterov: whether the momentum is Nesterov's.
    mode: one of the seven modes.
    every: steps between two corrections of a matrix, see :func:`bort_jax.bort`.

  Returns:
    The findings, parameter by parameter; empty if all is well. ``str(finding)``
    is a sentence for a person.

  Raises:
    TypeError, ValueError: for axes that do not fit, see :func:`bort_jax.bort`,
      or numbers outside their range.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import spectrum
    >>> params = {'dense': {'kernel': 5.0 * jnp.eye(3)}}
    >>> for finding in spectrum.check(params, learning_rate=0.1, gamma=1.0):
    ...   print(finding)
    dense/kernel: learning_rate 0.1 diverges: the largest value 5 is outside \
the basin of attraction. Stay below 0.0833, or start from spectrum.polish.
    dense/kernel: the largest value 5 is beyond 3.32 and changes its sign in \
the first step. Lower learning_rate, or start from spectrum.polish.
  """
  for name, number in (
    ('learning_rate', learning_rate),
    ('gamma', gamma),
    ('weight_decay', weight_decay),
  ):
    check_number(name, number)
  check_momentum(momentum)
  check_amplitude(amplitude)
  check_mode(mode)
  check_every(every)
  if gamma == 0:
    return ()
  setting = Setting(
    float(learning_rate),
    float(gamma),
    float(weight_decay),
    float(momentum),
    nesterov,
    isinstance(amplitude, str),
    mode,
    every or 1,
  )
  views = matrix_views(axes, params)
  return tuple(
    finding
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    if (view := views.get(path_name(path))) is not None and leaf.size
    for finding in _findings(
      setting, measure(path_name(path), view, leaf, amplitude, setting)
    )
  )


def _findings(setting: Setting, facts: Facts) -> Iterator[Finding]:
  def found(kind: Kind, value: float, limit: float, message: str) -> Finding:
    return Finding(facts.parameter, kind, value, limit, message)

  if not math.isfinite(facts.largest):
    yield found(
      'not_finite',
      facts.largest,
      math.inf,
      'the weights are not finite. Start again, or restore a checkpoint.',
    )
    return
  if setting.mode.startswith('l2'):
    yield from _step_findings(setting, facts, found)
  else:
    yield from _l1_findings(setting, facts, found)
  yield from _decay_findings(setting, facts, found)
  if facts.zeros:
    yield found(
      'zero',
      facts.zeros,
      0,
      f'{facts.zeros} of {math.prod(facts.view.stack)} matrices are exactly'
      ' zero, where the correction is zero too. Initialize them otherwise, or'
      ' leave them out with axes.',
    )
  if facts.moved < _FROZEN_SHARE:
    yield found(
      'frozen',
      facts.moved,
      _FROZEN_SHARE,
      f'a correction step moves only {facts.moved:.1%} of the entries: it is'
      ' below the resolution of the dtype. Keep the parameters in float32,'
      ' or raise learning_rate·gamma.',
    )
  view = facts.view
  if setting.adaptive and setting.mode == 'l2-full' and not view.is_wide:
    yield found(
      'ada_tall',
      view.num_out / view.num_in,
      1.0,
      f"amplitude='ada' lets this tall matrix ({view.num_out} outputs,"
      f' {view.num_in} inputs) decay to zero. Give it a number.',
    )


def _step_findings(setting, facts, found) -> Iterator[Finding]:
  rate, largest = setting.learning_rate, facts.largest
  if rate >= facts.safe_rate:
    yield found(
      'diverges',
      rate,
      facts.safe_rate,
      f'learning_rate {rate:g} {_why_unsafe(setting, facts)}',
    )
  if setting.step > 0:
    flip = math.sqrt(facts.amplitude + 1 / setting.step)
    if largest > flip:
      yield found(
        'sign_flip',
        largest,
        flip,
        f'the largest value {largest:.3g} is beyond {flip:.3g} and changes its'
        ' sign in the first step. Lower learning_rate, or start from'
        ' spectrum.polish.',
      )


def _why_unsafe(setting, facts) -> str:
  remedy = f'Stay below {facts.safe_rate:.3g}'
  kappa = setting.step * facts.amplitude
  limit = stable_kappa(setting.momentum, setting.nesterov, setting.every)
  if kappa >= limit * (1 - _ROUNDING):
    return f'does not converge: the fixed point itself is unstable. {remedy}.'
  remedy += ', or start from spectrum.polish.'
  if setting.momentum == 0:
    return (
      f'diverges: the largest value {facts.largest:.3g} is outside the basin of'
      f' attraction. {remedy}'
    )
  return (
    f'with momentum {setting.momentum:g} need not converge from values between'
    f' {facts.smallest:.3g} and {facts.largest:.3g}. {remedy}'
  )


def _l1_findings(setting, facts, found) -> Iterator[Finding]:
  view = facts.view
  side = {'l1-fullrow': view.num_out, 'l1-fullcol': view.num_in}.get(
    setting.mode, 1
  )
  reach, chatter = setting.step * side, 2 * setting.step
  if reach >= 2:
    end = 'collapses or diverges'
  elif chatter > _VISIBLE_CHATTER:
    end = f'chatters at a relative error of about {chatter:.2g} forever'
  else:
    return
  yield found(
    'l1_chatter',
    reach,
    2.0,
    f'a step of {setting.mode} with learning_rate·gamma = {setting.step:g} and'
    f' side {side} {end}. Lower it, or use an l2 mode.',
  )


def _decay_findings(setting, facts, found) -> Iterator[Finding]:
  """The shifted target. In l1 modes there is none: only the pull counts."""
  a, shift = facts.amplitude, setting.weight_decay / setting.gamma
  is_l2 = setting.mode.startswith('l2')
  if shift >= (a if is_l2 else 1.0):
    yield found(
      'decay_collapse',
      setting.weight_decay,
      setting.gamma * (a if is_l2 else 1.0),
      f'weight_decay {setting.weight_decay:g} is not below the pull of the'
      ' constraint: the weights decay to zero. Lower it, or raise gamma.',
    )
  elif is_l2 and shift > 0.01 * a:
    yield found(
      'decay_shift',
      a - shift,
      a,
      f'weight_decay {setting.weight_decay:g} moves the target of the squared'
      f' values from {a:g} to a - weight_decay/gamma = {a - shift:.3g}. Set it'
      ' to zero for this parameter, or raise gamma.',
    )
