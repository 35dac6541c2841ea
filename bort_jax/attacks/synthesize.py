"""Explainable adversarial pictures: a latent code edited and run backwards."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bort_jax import inversion, loops
from bort_jax.attacks import edits
from bort_jax.attacks.checks import checked_pictures
from bort_jax.attacks.errors import AttackError
from bort_jax.attacks.moves import Bounds
from bort_jax.norms import l2_norm, linf_norm
from bort_jax.validation import checked_classes

_REACH = 64.0  # of the search, see greatest
_PATH = 9  # points of the latent path that are recorded, both ends included


class Synthesis(NamedTuple):
  """Pictures made by editing latent codes, and what the network makes of them.

  Where no amount up to the greatest changes the prediction to the target, the
  picture is that of the greatest.
  """

  x: jax.Array  # (N, H, W, C) the new pictures
  change: jax.Array  # (N, H, W, C) by which they differ
  before: jax.Array  # (N,) int, class predicted for the pictures
  after: jax.Array  # (N,) int, class predicted for the new pictures
  success: jax.Array  # (N,) bool: it is the target
  amount: jax.Array  # (N,) of the edit, in its own units
  latent_l2: jax.Array  # (N,) norm of the edit of the latent code
  linf: jax.Array  # (N,) greatest change of a pixel
  l2: jax.Array  # (N,) Euclidean norm of the change
  path_amounts: jax.Array  # (9, N) amounts on the way, from 0
  path_logits: jax.Array  # (9, N, K) of the pictures on the way


def synthesize(
  apply_fn: Callable[[Any, jax.Array], Any],
  params: Any,
  x: jax.Array,
  target: jax.Array,
  *,
  layer: inversion.Layer,
  output: str = 'logits',
  edit: edits.Edit = 'direction',
  prototypes: jax.Array | None = None,
  num_units: int = 64,
  greatest: float | None = None,
  steps: int = 12,
  bounds: Bounds = (0.0, 1.0),
  method: inversion.Method = 'auto',
) -> Synthesis:
  """Edits the latent code of pictures until they are taken for another class.

  No parameters, no training: the code z of a layer is moved to z + t·d, and the
  inverse g of the network up to there makes it a picture, x + g(z + t·d) − g(z)
  within bounds. t is the least of a doubling and halving search at which the
  *picture* is predicted as the target. That the paper makes such samples "for
  free" is public, its recipe is not: this is our reading of it.

  Args:
    apply_fn: a function with outputs by name, as
      ``nn.functional(model, 'intermediates')`` gives.
    params: its parameters.
    x: (N, H, W, C) pictures within bounds.
    target: (N,) int, the class sought.
    layer: name of the layer whose code is edited, see
      :func:`bort_jax.inversion.until`.
    output: name of the logits (N, K).
    edit: ``'direction'``: d is the unit vector along which the target's logit
      gains most on the predicted one's; the amount is a distance in the code.
      ``'units'``: the units that speak most for the predicted class move
      towards the target's prototype; the amount is the share of the way.
    prototypes: (K, ...) mean codes of the classes, see
      :func:`class_prototypes`; for ``'units'``.
    num_units: units that move; for ``'units'``.
    greatest: largest amount; by default 64 norms of z for ``'direction'``, 64
      times the way for ``'units'``: a lossy inverse makes a picture of a small
      part of the edit.
    steps: doublings, and then halvings, of the search.
    bounds: least and greatest pixel, met exactly.
    method: how codes are run backwards, see :func:`bort_jax.inversion.invert`;
      maxima stay where x had them.

  Returns:
    The pictures, changes, predictions, path and distances.

  Raises:
    AttackError: for pictures, targets or settings that do not fit.
    InversionError: if there is no such layer, or it cannot be run backwards.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax import attacks
    >>> def apply_fn(params, x):
    ...   code = x.reshape(len(x), -1) @ params
    ...   return {'code': code, 'logits': code[:, :2]}
    >>> params = jnp.eye(4)
    >>> x = jnp.array([0.6, 0.4, 0.5, 0.5]).reshape(1, 2, 2, 1)
    >>> result = attacks.synthesize(
    ...   apply_fn, params, x, jnp.array([1]), layer='code'
    ... )
    >>> result.success.tolist(), result.x.ravel().round(2).tolist()
    ([True], [0.5, 0.5, 0.5, 0.5])

  References:
    Zhang et al., `Bort: Towards Explainable Neural Networks with Bounded
    Orthogonal Constraint <https://arxiv.org/abs/2212.09062>`_, 2023
  """
  edits.check_hashable(apply_fn)
  x, limits = checked_pictures(x, bounds)
  edits.check_edit(edit, num_units, steps, greatest, len(x))
  logits = jax.eval_shape(inversion.until(apply_fn, output), params, x)
  if logits.ndim != 2:
    raise AttackError(f'{output!r} must be logits (N, K), got {logits.shape}.')
  target = checked_classes(
    'target', target, len(x), logits.shape[1], AttackError
  )
  if edit == 'units':
    code = jax.eval_shape(inversion.until(apply_fn, layer), params, x)
    shape = (logits.shape[1], *code.shape[1:])
    prototypes = edits.checked_prototypes(prototypes, shape, target)
  plan = _Plan(layer, output, edit, num_units, steps, method)
  with jax.default_matmul_precision('highest'):  # as it is run backwards
    return _synthesize(
      apply_fn, plan, params, x, target, prototypes, greatest, limits
    )


class _Plan(NamedTuple):
  layer: inversion.Layer
  output: str
  edit: edits.Edit
  num_units: int
  steps: int
  method: inversion.Method


@functools.partial(jax.jit, static_argnums=(0, 1))
def _synthesize(
  apply_fn, plan: _Plan, params, x, target, prototypes, greatest, bounds
) -> Synthesis:
  encode = inversion.until(apply_fn, plan.layer)
  logits_of = lambda x: inversion.until(apply_fn, plan.output)(params, x)
  decode = lambda z: (
    inversion.invert(encode, params, z, x, method=plan.method, x=x).x
  )
  z, before = encode(params, x), logits_of(x)
  source = jnp.argmax(before, axis=1)
  head = inversion.rest(apply_fn, params, x, plan.layer, plan.output)
  if plan.edit == 'direction':
    edit = _direction(head, z, source, target)
    most = _REACH * _norm(z) if greatest is None else greatest
  else:
    edit = _towards(head, z, source, prototypes[target], plan.num_units)
    most = _REACH if greatest is None else greatest
  start = decode(z)
  picture = lambda amount: jnp.clip(
    x + decode(z + _each(amount, z) * edit) - start, *bounds
  )
  reached = lambda amount: (
    jnp.argmax(logits_of(picture(amount)), axis=1) == target
  )
  most = jnp.broadcast_to(jnp.asarray(most, x.dtype), target.shape)
  # what is the target already needs no edit
  amount = jnp.where(source == target, 0, _least(reached, most, plan.steps))
  shares = jnp.linspace(0, 1, _PATH, dtype=x.dtype)
  path = shares[:, None] * amount[None]
  walked = loops.map_(lambda amount: logits_of(picture(amount)), path)
  new = picture(amount)
  after = jnp.argmax(logits_of(new), axis=1)
  return Synthesis(
    new,
    new - x,
    source,
    after,
    after == target,
    amount,
    amount * _norm(edit),
    linf_norm(new - x),
    l2_norm(new - x),
    path,
    walked,
  )


def _direction(head: Callable, z, source, target) -> jax.Array:
  """Where the target's logit gains most on that of the source, as unit vector.

  Where both are one class, nothing gains, and the direction is zero.
  """

  def gain(z):
    logits = head(z)
    of = lambda label: jnp.take_along_axis(logits, label[:, None], 1)
    return jnp.sum(of(target) - of(source))

  slope = jax.grad(gain)(z)
  norm = _each(_norm(slope), z)
  return slope / jnp.where(norm > 0, norm, 1)


def _towards(head: Callable, z, source, goal, num_units: int) -> jax.Array:
  """The way to a prototype, of the units that speak most for the source."""
  speak = lambda z: jnp.sum(jnp.take_along_axis(head(z), source[:, None], 1))
  evidence = (z * jax.grad(speak)(z)).reshape(len(z), -1)
  least = jax.lax.top_k(evidence, min(num_units, evidence.shape[1]))[0][:, -1:]
  moves = (evidence >= least).reshape(z.shape)
  return jnp.where(moves, goal - z, 0)


def _least(reached: Callable, most: jax.Array, steps: int) -> jax.Array:
  """The least amount that reaches the goal, by doubling and then by halving."""

  def double(state, amount):
    low, high, found = state
    now = reached(amount) & ~found
    high = jnp.where(now, amount, high)
    low = jnp.where(found | now, low, amount)
    return (low, high, found | now), None

  shares = 2.0 ** -jnp.arange(steps, 0, -1).astype(most.dtype)
  start = jnp.zeros_like(most), most, jnp.zeros(most.shape, bool)
  amounts = shares[:, None] * most[None]
  (low, high, _), _ = loops.scan(double, start, amounts)

  def halve(_, ends):
    low, high = ends
    middle = (low + high) / 2
    inside = reached(middle)
    return jnp.where(inside, low, middle), jnp.where(inside, middle, high)

  return loops.fori_loop(0, steps, halve, (low, high))[1]


def _norm(z: jax.Array) -> jax.Array:
  """(N,) Euclidean norms of codes of any shape."""
  return jnp.linalg.norm(z.reshape(len(z), -1), axis=1)


def _each(values: jax.Array, like: jax.Array) -> jax.Array:
  """(N,) values that multiply each of a batch."""
  return values.reshape(-1, *[1] * (like.ndim - 1)).astype(like.dtype)
