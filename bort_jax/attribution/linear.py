"""The linear function that a piecewise linear network is at a picture."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.typing import ArrayLike

from bort_jax import loops
from bort_jax.attribution.batches import at_once, in_blocks, run
from bort_jax.attribution.checks import ApplyFn, checked_pictures, logits_shape
from bort_jax.attribution.errors import AttributionError
from bort_jax.attribution.factors import Makers
from bort_jax.inversion.operations import SWITCHES, is_float, source_of
from bort_jax.inversion.program import apply, evaluate, read, trace

_STEPS = frozenset(('ceil', 'floor', 'round', 'sign', 'stop_gradient'))
_PICKS = SWITCHES | {'top_k'}  # linear once it is known which numbers they pick


class LinearSummary(NamedTuple):
  """f(x) = W(x) x + b(x), of every class at once."""

  weights: jax.Array  # (N, K, H, W, C)
  bias: jax.Array  # (N, K)
  residual: jax.Array  # (N, K) |f(x) − (W x + b)|


def linear_summary(
  apply_fn: ApplyFn, params: Any, x: ArrayLike, *, chunk: int | None = None
) -> LinearSummary:
  """The exact linear function of a piecewise linear network around a picture.

  Every ReLU, maximum and choice is held as it is at x; what is left is the
  function W(x) · + b(x), whose weights are its derivatives and whose bias is
  what it makes of zero. Nothing of it is fitted to f(x), so the residual is a
  check. It is rounding for networks of linear operations, ReLU, leaky ReLU,
  absolute values, pooling by maximum or mean and normalization in evaluation.
  Of others (GELU, softmax, LayerNorm, …) the functions between are not held:
  W is the gradient, and W x + b misses f(x): a residual that is not small
  against the logits says so.

  Args:
    apply_fn: ``apply_fn(params, x)`` returns logits (N, K), each of a picture
      alone (no batch statistics).
    params: its parameters.
    x: pictures (N, H, W, C), floats of any range.
    chunk: how many pictures go through the network at once; by default N, one
      class at a time, and in a larger one several classes.

  Returns:
    Weights, biases and residuals. Computed in the highest precision that
    matrix products of the type of x have.

  Raises:
    AttributionError: for what does not fit, and where memory does not suffice.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from bort_jax import attribution
    >>> apply_fn = lambda w, x: jax.nn.relu(x.sum((1, 2)) @ w + 1) - 3
    >>> x, w = jnp.ones((1, 1, 1, 2)), jnp.array([[2.0, -4.0], [1.0, 1.0]])
    >>> summary = attribution.linear_summary(apply_fn, w, x)
    >>> summary.weights.reshape(2, 2).tolist()
    [[2.0, 1.0], [0.0, 0.0]]
    >>> summary.bias.tolist(), summary.residual.tolist()
    ([[-2.0, -3.0]], [[0.0, 0.0]])
  """
  x = checked_pictures(apply_fn, params, x, chunk)
  logits_shape(apply_fn, params, x)
  with jax.default_matmul_precision('highest'):
    return run(_summary, apply_fn, chunk, params, x)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _summary(apply_fn, chunk, params, x) -> LinearSummary:
  def of_block(x):
    held = _held(apply_fn, params, x)
    logits, back = jax.vjp(held, x)
    classes = logits.shape[1]

    def row(k):
      chosen = jnp.full(len(x), k)
      return back(jax.nn.one_hot(chosen, classes, dtype=logits.dtype))[0]

    width = at_once(chunk, len(x), classes)
    rows = loops.map_(row, jnp.arange(classes), batch_size=width)
    weights, bias = jnp.moveaxis(rows, 0, 1), held(jnp.zeros_like(x))
    line = jnp.einsum('nkhwc,nhwc->nk', weights, x) + bias
    residual = jnp.abs(apply_fn(params, x) - line)
    return LinearSummary(weights, bias, residual)

  return in_blocks(of_block, chunk, x)


def _held(apply_fn, params, x: jax.Array):
  """The function of pictures with every choice made as at x."""
  program = trace(apply_fn, params, jax.ShapeDtypeStruct(x.shape, x.dtype))
  constants = program.constants(params)
  recorded = evaluate(program.eqns, {**constants, program.invar: x})
  makers = Makers(program)

  def call(value: jax.Array) -> jax.Array:
    env = {**constants, program.invar: value}
    for eqn in program.eqns:
      outs = _outs(eqn, env, recorded, makers)
      env.update(zip(eqn.outvars, outs, strict=True))
    return env[program.outvar]

  return call


def _outs(
  eqn: core.JaxprEqn,
  env: Mapping[core.Var, Any],
  recorded: Mapping[core.Var, Any],
  makers: Makers,
) -> Sequence[Any]:
  """What an operation returns with its choice made as recorded."""
  kept = [recorded[var] for var in eqn.outvars]
  returns_floats = any(map(is_float, eqn.outvars))
  if not makers.floats(eqn) or not returns_floats:
    return kept
  if eqn.primitive.name in _STEPS:
    return kept
  now = [read(env, atom) for atom in eqn.invars]
  then = [read(recorded, atom) for atom in eqn.invars]
  outs = _floats(eqn, now, then, makers)
  # of a sort with its places, the places alone are a choice
  pairs = zip(eqn.outvars, outs, kept, strict=True)
  return [out if is_float(var) else old for var, out, old in pairs]


def _floats(
  eqn: core.JaxprEqn, now: Sequence[Any], then: Sequence[Any], makers: Makers
) -> Sequence[Any]:
  """The results, of which those that are no floats do not count."""
  name = eqn.primitive.name
  if name in ('max', 'min'):
    sign = 1 if name == 'max' else -1
    left, right = sign * then[0], sign * then[1]
    # a tie is the constant's: ReLU is closed at 0
    own = makers.depends(eqn.invars[0])
    first = left > right if own else left >= right
    return [jnp.where(first, *now)]
  if name == 'abs':
    return [jnp.where(then[0] < 0, -now[0], now[0])]
  if name == 'clamp':
    inside = jnp.where(then[1] > then[2], now[2], now[1])
    return [jnp.where(then[1] < then[0], now[0], inside)]
  if name in _PICKS:
    return _picked(eqn, now, then)
  if name == 'while':
    raise AttributionError(
      'No derivative goes back through a loop whose length is not known at'
      f' compilation ({source_of(eqn)}). Use jax.lax.scan, or fori_loop with'
      ' Python integers.'
    )
  return apply(eqn, now)


def _picked(
  eqn: core.JaxprEqn, now: Sequence[Any], then: Sequence[Any]
) -> Sequence[Any]:
  """The numbers that are where those were which were picked."""
  places = [i for i, atom in enumerate(eqn.invars) if is_float(atom)]

  def call(*floats):
    given = dict(enumerate(then)) | dict(zip(places, floats, strict=True))
    return apply(eqn, list(given.values()))

  outs, follow = jax.linearize(call, *(then[i] for i in places))
  del outs
  return follow(*(now[i] for i in places))
