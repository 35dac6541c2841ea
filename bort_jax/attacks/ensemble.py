"""Adversarial pictures against several networks at once."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from bort_jax import loops
from bort_jax.attacks import checks
from bort_jax.attacks.errors import AttackError
from bort_jax.attacks.moves import Bounds, wide
from bort_jax.attacks.result import Attack, result_of
from bort_jax.validation import checked_classes


def ensemble(
  apply_fns: Sequence[Callable[[Any, jax.Array], jax.Array]],
  params_list: Sequence[Any],
  x: ArrayLike,
  target: ArrayLike | None = None,
  *,
  distance_weight: ArrayLike = 0.1,
  learning_rate: ArrayLike = 0.01,
  steps: int = 100,
  bounds: Bounds = (0.0, 1.0),
) -> Attack:
  """Seeks pictures near x that several networks see as the target.

  Published (abstracts and notes; there is no code): adversarial pictures by
  optimization over an ensemble, as those of one network depend on it. Our
  reading of it, after Liu et al.: Adam, from x, on
  λ‖x* − x‖² + (1/M) Σ cross-entropy(networkᵢ(x*), target), clipped to the
  bounds at every step; the target is the class of least mean log-probability on
  x; λ, learning rate and steps are ours. Of the steps the last is returned.

  Args:
    apply_fns: M functions ``apply_fn(params, x)`` that return logits (N, K) of
      the same K ≥ 2, each of a picture alone (no batch statistics).
    params_list: their M parameters.
    x: pictures (N, H, W, C), floats within the bounds.
    target: (N,) int, 0 … K − 1: the classes to reach; by default the least
      likely.
    distance_weight: λ ≥ 0, a number, or (N,) one per picture. The distance is
      the sum of squares over all pixels.
    learning_rate: of Adam, ≥ 0: about the change of a pixel in one step.
    steps: how many, ≥ 1, known at compilation.
    bounds: least and greatest pixel, rounded to the type of x; they hold
      exactly.

  Returns:
    The adversarial pictures; ``before``, ``after`` and ``success`` are (M, N).

  Raises:
    AttackError: for pictures, networks or a setting that cannot be attacked.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import attacks
    >>> apply_fn = lambda params, x: x.reshape(len(x), -1) @ params
    >>> networks = [8 * jnp.eye(2), jnp.array([[8.0, 0.0], [4.0, 8.0]])]
    >>> x = jnp.array([0.6, 0.5]).reshape(1, 1, 2, 1)
    >>> attack = attacks.ensemble([apply_fn] * 2, networks, x)
    >>> attack.target, attack.success.ravel()
    (Array([1], dtype=int32), Array([ True,  True], dtype=bool))

  References:
    Dong et al., `Towards Interpretable Deep Neural Networks by Leveraging
    Adversarial Examples <https://arxiv.org/abs/1708.05493>`_, 2017, and, of the
    same title, `2019 <https://arxiv.org/abs/1901.09035>`_

    Liu et al., `Delving into Transferable Adversarial Examples and Black-box
    Attacks <https://arxiv.org/abs/1611.02770>`_, 2016
  """
  checks.check_steps(steps)
  x, bounds = checks.checked_pictures(x, bounds)
  n, dtype = x.shape[0], wide(x.dtype)
  classes = _classes_of_all(apply_fns, params_list, x)
  if target is not None:
    target = checked_classes('target', target, n, classes, AttackError)
  checks.check_size('distance_weight', distance_weight, n)
  checks.check_number('learning_rate', learning_rate)
  weight = jnp.broadcast_to(jnp.asarray(distance_weight, dtype), (n,))
  rate = jnp.asarray(learning_rate, dtype)
  networks = tuple(apply_fns), tuple(params_list)
  return _optimize(steps, *networks, x, target, weight, rate, bounds)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _optimize(
  steps, apply_fns, params_list, x, target, weight, rate, bounds
) -> Attack:
  start = x.astype(weight.dtype)
  before = _all_logits(apply_fns, params_list, x)
  if target is None:
    target = jnp.argmin(jnp.mean(jax.nn.log_softmax(before), axis=0), axis=-1)

  def objective(pixels):
    distance = jnp.sum(jnp.square(pixels - start), axis=(1, 2, 3))
    logits = _all_logits(apply_fns, params_list, pixels.astype(x.dtype))
    return jnp.sum(weight * distance + _mean_cross_entropy(logits, target))

  def step(carry, _):
    pixels, state = carry
    gradient = jax.grad(objective)(pixels)
    updates, state = adam.update(gradient, state)
    pixels = jnp.clip(
      pixels + updates, *(b.astype(start.dtype) for b in bounds)
    )
    return (pixels, state), None

  adam = optax.adam(rate)
  carry = start, adam.init(start)
  (pixels, _), _ = loops.scan(step, carry, length=steps)
  adversarial = pixels.astype(x.dtype)
  after = _all_logits(apply_fns, params_list, adversarial)
  return result_of(x, adversarial, before, after, target, targeted=True)


def _all_logits(apply_fns, params_list, x) -> jax.Array:
  """(M, N, K), float32 at least."""
  pairs = zip(apply_fns, params_list, strict=True)
  logits = jnp.stack([apply_fn(params, x) for apply_fn, params in pairs])
  return logits.astype(wide(logits.dtype))


def _mean_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
  labels = jax.nn.one_hot(target, logits.shape[-1], dtype=logits.dtype)
  log_probabilities = jax.nn.log_softmax(logits)
  own = jnp.sum(labels[None] * log_probabilities, axis=-1)
  return -jnp.mean(own, axis=0)


def _classes_of_all(apply_fns, params_list, x) -> int:
  m = len(apply_fns)
  if m == 0 or m != len(params_list):
    raise AttackError(
      'apply_fns and params_list must be of the same length, at least 1, got'
      f' {m} and {len(params_list)}. Repeat a function that has several'
      ' parameters.'
    )
  pairs = zip(apply_fns, params_list, strict=True)
  classes = [checks.number_of_classes(f, params, x) for f, params in pairs]
  if len(set(classes)) > 1:
    raise AttackError(
      f'All networks must have the same classes, got logits of {classes}.'
    )
  return classes[0]
