"""Adversarial pictures from the gradient of one network."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.attacks import checks
from bort_jax.attacks.errors import AttackError
from bort_jax.attacks.moves import (
  Bounds,
  Norm,
  moved,
  per_picture,
  rounded_down,
  start_in_ball,
  steepest,
  wide,
  within_ball,
  within_bounds,
)
from bort_jax.attacks.result import Attack, result_of
from bort_jax.validation import checked_classes

ApplyFn = Callable[[Any, jax.Array], jax.Array]
_PIXELS = (0.0, 1.0)
_REACH = 2.5  # all steps together, in ε: enough to cross the ball and turn


def fgsm(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  epsilon: ArrayLike,
  *,
  targeted: bool = False,
  bounds: Bounds = _PIXELS,
) -> Attack:
  """One step of ε along the sign of the gradient of the cross-entropy.

  Limits hold exactly: |x* − x| ≤ ε and low ≤ x* ≤ high for the numbers that are
  returned, not up to rounding.

  Args:
    apply_fn: ``apply_fn(params, x)`` returns logits (N, K), K ≥ 2, each of a
      picture alone (no batch statistics).
    params: its parameters.
    x: pictures (N, H, W, C), floats within the bounds.
    target: (N,) int, 0 … K − 1: the classes to leave, or to reach.
    epsilon: greatest change of a pixel, ≥ 0: a number, or (N,) one per picture.
    targeted: whether the target is to be reached.
    bounds: least and greatest pixel, rounded to the type of x.

  Returns:
    The adversarial pictures and what the network makes of them.

  Raises:
    AttackError: for pictures, a network or a setting that cannot be attacked.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import attacks
    >>> apply_fn = lambda params, x: x.reshape(len(x), -1) @ params
    >>> params = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> x = jnp.array([0.625, 0.5]).reshape(1, 1, 2, 1)
    >>> attack = attacks.fgsm(apply_fn, params, x, jnp.array([0]), 0.125)
    >>> attack.x.ravel()
    Array([0.5  , 0.625], dtype=float32)
    >>> attack.after, attack.success
    (Array([1], dtype=int32), Array([ True], dtype=bool))

  References:
    Goodfellow et al., `Explaining and Harnessing Adversarial Examples
    <https://arxiv.org/abs/1412.6572>`_, 2014
  """
  plan = _Plan('linf', 1, targeted)
  return _checked_pgd(
    plan, apply_fn, params, x, target, epsilon, epsilon, None, bounds
  )


def pgd(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  epsilon: ArrayLike,
  *,
  key: jax.Array | None = None,
  norm: Norm = 'linf',
  steps: int = 10,
  step_size: ArrayLike | None = None,
  targeted: bool = False,
  bounds: Bounds = _PIXELS,
) -> Attack:
  """Projected gradient steps on the cross-entropy, within a ball around x.

  The steps are those of the cross-entropy, whose gradient they rescale; it is
  computed so that it does not vanish where the network is sure. Of the steps
  the last is returned.

  Args:
    apply_fn: ``apply_fn(params, x)`` returns logits (N, K), K ≥ 2, each of a
      picture alone (no batch statistics).
    params: its parameters.
    x: pictures (N, H, W, C), floats within the bounds.
    target: (N,) int, 0 … K − 1: the classes to leave, or to reach.
    epsilon: radius of the ball, ≥ 0: a number, or (N,) one per picture.
    key: a random key, to start anywhere in the ball; by default at x.
    norm: ``'linf'``, the greatest change of a pixel, holds exactly; ``'l2'``
      stays below ε by the rounding of the sum of squares. Pixels are rounded
      towards x, by which bfloat16 loses part of a small ε.
    steps: how many, ≥ 1, known at compilation.
    step_size: length of a step in the norm, ≥ 0, a number or (N,); by default
      2.5·ε / steps.
    targeted: whether the target is to be reached.
    bounds: least and greatest pixel, rounded to the type of x.

  Returns:
    The adversarial pictures and what the network makes of them.

  Raises:
    AttackError: for pictures, a network or a setting that cannot be attacked.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from bort_jax import attacks
    >>> apply_fn = lambda params, x: x.reshape(len(x), -1) @ params
    >>> params = jnp.array([[3.0, 0.0], [-4.0, 0.0]])
    >>> x = jnp.full((1, 1, 2, 1), 0.5)
    >>> target = jnp.array([1])
    >>> key = jax.random.key(0)
    >>> attack = attacks.pgd(
    ...   apply_fn, params, x, target, 0.25, key=key, norm='l2', step_size=0.5
    ... )
    >>> bool(jnp.allclose(attack.x.ravel(), jnp.array([0.65, 0.3]), atol=1e-4))
    True

  References:
    Madry et al., `Towards Deep Learning Models Resistant to Adversarial Attacks
    <https://arxiv.org/abs/1706.06083>`_, 2017
  """
  plan = _Plan(norm, steps, targeted)
  return _checked_pgd(
    plan, apply_fn, params, x, target, epsilon, step_size, key, bounds
  )


def least_likely(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  epsilon: ArrayLike,
  *,
  key: jax.Array | None = None,
  norm: Norm = 'linf',
  steps: int = 10,
  step_size: ArrayLike | None = None,
  bounds: Bounds = _PIXELS,
) -> Attack:
  """Steps towards the class that the network holds least likely.

  Args:
    apply_fn: see :func:`pgd`.
    params: its parameters.
    x: pictures (N, H, W, C), floats within the bounds.
    epsilon: see :func:`pgd`, like all that follows.
    key: see there.
    norm: see there.
    steps: see there.
    step_size: see there.
    bounds: see there.

  Returns:
    The adversarial pictures; their ``target`` is the least likely class.

  Raises:
    AttackError: for pictures, a network or a setting that cannot be attacked.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import attacks
    >>> apply_fn = lambda params, x: x.reshape(len(x), -1) @ params
    >>> x = jnp.array([0.5, 0.4, 0.3]).reshape(1, 1, 3, 1)
    >>> attack = attacks.least_likely(apply_fn, jnp.eye(3), x, 0.2)
    >>> attack.target, attack.success
    (Array([2], dtype=int32), Array([ True], dtype=bool))

  References:
    Kurakin et al., `Adversarial Examples in the Physical World
    <https://arxiv.org/abs/1607.02533>`_, 2016
  """
  plan = _Plan(norm, steps, True)
  return _checked_pgd(
    plan, apply_fn, params, x, None, epsilon, step_size, key, bounds
  )


class _Plan(NamedTuple):
  norm: Norm
  steps: int
  targeted: bool


def _checked_pgd(
  plan: _Plan, apply_fn, params, x, target, epsilon, step_size, key, bounds
) -> Attack:
  checks.check_settings(plan.norm, plan.steps)
  x, bounds = checks.checked_pictures(x, bounds)
  n, dtype = x.shape[0], wide(x.dtype)
  classes = checks.number_of_classes(apply_fn, params, x)
  if target is not None:
    target = checked_classes('target', target, n, classes, AttackError)
  checks.check_size('epsilon', epsilon, n)
  radius = rounded_down(epsilon, dtype, n)
  if step_size is None:
    step = radius * (_REACH / plan.steps)
  else:
    checks.check_size('step_size', step_size, n)
    step = rounded_down(step_size, dtype, n)
  return _pgd(plan, apply_fn, params, x, target, radius, step, key, bounds)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _pgd(
  plan: _Plan, apply_fn, params, x, target, radius, step, key, bounds
) -> Attack:
  before = apply_fn(params, x)
  if target is None:
    target = jnp.argmin(before, axis=-1)
  uphill = per_picture(-step if plan.targeted else step)

  def climb(_, change):
    picture = moved(x, change, bounds)
    gradient = jax.grad(loss)(picture).astype(change.dtype)
    return within(change + uphill * steepest(gradient, plan.norm))

  def loss(picture):
    return jnp.sum(_odds_against(apply_fn(params, picture), target))

  def within(change):
    return within_bounds(x, within_ball(change, plan.norm, radius), bounds)

  change = jnp.zeros(x.shape, radius.dtype)
  if key is not None:
    change = within(start_in_ball(key, plan.norm, radius, x.shape))
  if plan.steps == 1:  # gradients of convolutions are slow in loops on CPUs
    change = climb(0, change)
  else:
    change = jax.lax.fori_loop(0, plan.steps, climb, change)
  adversarial = moved(x, change, bounds)
  after = apply_fn(params, adversarial)
  return result_of(x, adversarial, before, after, target, plan.targeted)


def _odds_against(logits: jax.Array, target: jax.Array) -> jax.Array:
  """(N,) log((1 − p) / p) of the target's probability p.

  Its gradient is that of the cross-entropy over 1 − p: of the same direction,
  but not zero where p rounds to one.
  """
  logits = logits.astype(wide(logits.dtype))
  is_target = jax.nn.one_hot(target, logits.shape[1], dtype=bool)
  others = jnp.where(is_target, -jnp.inf, logits)
  own = jnp.sum(jnp.where(is_target, logits, 0), axis=1)
  return jax.nn.logsumexp(others, axis=1) - own
