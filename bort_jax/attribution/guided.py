"""Guided backpropagation and deconvnet, by rules on the traced function."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.attribution.batches import in_blocks, run
from bort_jax.attribution.checks import ApplyFn, checked
from bort_jax.attribution.rectifiers import Gate, rectifiers
from bort_jax.attribution.rules import replaced, ruled
from bort_jax.validation import nan_where_missing

# Of the derivative by a rectifier's result and the rectifier's own gate, what
# goes on to its operand.
_Pull = Callable[[jax.Array, Gate], jax.Array]


def guided_backprop(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  *,
  chunk: int | None = None,
) -> jax.Array:
  """The gradient, but ReLUs pass on only what is positive, where they are open.

  Rules are put on the operations that the function traces to; the network is
  not changed. They hold for max(v, 0), which ``jax.nn.relu`` of any framework
  is, and for leaky ReLUs, written as a choice by the sign of v: these pass on
  what is positive, times their slope. Other functions (GELU, SiLU, tanh, …)
  keep their derivative. ``stop_gradient`` and derivatives of one's own
  (``jax.custom_jvp``, ``custom_vjp``) in the network have no effect here.

  Args:
    apply_fn: ``apply_fn(params, x)`` returns logits (N, K), each of a picture
      alone (no batch statistics).
    params: its parameters.
    x: pictures (N, H, W, C), floats of any range.
    target: (N,) int, 0 … K − 1, or one for all.
    chunk: how many pictures go through the network at once; by default N.

  Returns:
    (N, H, W, C), signed, in the type of x.

  Raises:
    AttributionError: for what does not fit, and where memory does not suffice.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from bort_jax import attribution
    >>> apply_fn = lambda w, x: jax.nn.relu(x.sum((1, 2))) @ w
    >>> x, w = jnp.ones((1, 1, 1, 2)), jnp.array([[3.0], [-2.0]])
    >>> attribution.guided_backprop(apply_fn, w, x, jnp.array([0])).ravel()
    Array([3., 0.], dtype=float32)

  References:
    Springenberg et al., `Striving for Simplicity
    <https://arxiv.org/abs/1412.6806>`_, 2014; it fails the sanity checks of
    Adebayo et al., `<https://arxiv.org/abs/1810.03292>`_
  """
  x, target = checked(apply_fn, params, x, target, chunk)
  return run(_ruled_gradient, apply_fn, _guided, chunk, params, x, target)


def deconvnet(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  *,
  chunk: int | None = None,
) -> jax.Array:
  """The gradient, but ReLUs pass on only what is positive, open or not.

  Args:
    apply_fn: see :func:`guided_backprop`, like all that follows. A leaky ReLU
      is treated as a ReLU: its slope does not count.
    params: see there.
    x: see there.
    target: see there.
    chunk: see there.

  Returns:
    (N, H, W, C), signed, in the type of x.

  Raises:
    AttributionError: as there.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from bort_jax import attribution
    >>> apply_fn = lambda w, x: jax.nn.relu(x.sum((1, 2))) @ w
    >>> x, w = -jnp.ones((1, 1, 1, 2)), jnp.array([[3.0], [-2.0]])
    >>> attribution.deconvnet(apply_fn, w, x, jnp.array([0])).ravel()
    Array([3., 0.], dtype=float32)

  References:
    Zeiler and Fergus, `Visualizing and Understanding Convolutional Networks
    <https://arxiv.org/abs/1311.2901>`_, 2013
  """
  x, target = checked(apply_fn, params, x, target, chunk)
  return run(_ruled_gradient, apply_fn, _deconv, chunk, params, x, target)


def with_rectifiers(
  function: Callable[[Any, jax.Array], jax.Array],
  params: Any,
  x: jax.Array,
  pull: _Pull,
) -> Callable[[jax.Array], jax.Array]:
  """A function of x whose ReLUs send derivatives back by a rule."""

  def rule(rectifier, eqn, env, out) -> jax.Array:
    del eqn
    gate = jax.lax.stop_gradient(rectifier.gate(env))
    out = jax.lax.stop_gradient(out)
    return replaced(pull, out, env[rectifier.operand], gate)

  return ruled(
    function,
    params,
    x,
    lambda program: {
      var: functools.partial(rule, rectifier)
      for var, rectifier in rectifiers(program).items()
    },
  )


def plain(change: jax.Array, gate: Gate) -> jax.Array:
  """The derivative of ReLU: 0 at 0, which max(v, 0) by itself halves."""
  return gate.through(change)


def _guided(change: jax.Array, gate: Gate) -> jax.Array:
  return gate.through(jnp.maximum(change, 0))


def _deconv(change: jax.Array, gate: Gate) -> jax.Array:
  del gate
  return jnp.maximum(change, 0)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _ruled_gradient(apply_fn, pull: _Pull, chunk, params, x, target):
  def of_block(x, target):
    logits, back = jax.vjp(with_rectifiers(apply_fn, params, x, pull), x)
    chosen = jax.nn.one_hot(target, logits.shape[1], dtype=logits.dtype)
    return nan_where_missing(back(chosen)[0], target, logits.shape[1])

  return in_blocks(of_block, chunk, x, target)
