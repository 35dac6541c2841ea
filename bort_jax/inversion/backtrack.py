"""The picture that a unit, a channel or a class stands for."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bort_jax.inversion.errors import InversionError
from bort_jax.inversion.invert import invert
from bort_jax.inversion.layers import Layer, until
from bort_jax.inversion.undo import Method


def backtrack(
  apply_fn: Callable[[Any, jax.Array], Any],
  params: Any,
  x: jax.Array,
  target: jax.Array | None = None,
  *,
  layer: Layer | None = None,
  channel: jax.Array | int | None = None,
  position: tuple[jax.Array | int, ...] | None = None,
  method: Method = 'auto',
  **options: Any,
) -> jax.Array:
  """The part of a picture that stands for a unit, a channel or a class.

  Of a layer's output z all is set to zero but what is chosen; that is run
  backwards by g, the inverse, and g(0) is subtracted: g(z′) − g(0). Where g is
  affine, the parts of all channels add up to the reconstruction less g(0).

  Args:
    apply_fn: the function; for a layer by name, one that returns a mapping of
      outputs, see :func:`until`.
    params: its parameters.
    x: pictures (N, H, W, C).
    target: (N,) int classes: what is chosen of an output (N, K).
    layer: name or number of the layer; by default the output.
    channel: index on the last axis of the layer's output, or (N,) of them;
      instead of ``target``.
    position: (row, column) of one unit of that channel; by default all.
    method: how it is run backwards, see :func:`invert`.
    **options: further ones of :func:`invert`.

  Returns:
    (N, H, W, C), like x: signed, in the units of x. Over several channels, use
    ``jax.vmap``.

  Raises:
    InversionError: if there is no such layer, channel or position, or the
      function cannot be run backwards.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax import inversion
    >>> apply_fn = lambda params, x: x @ params
    >>> weights = jax.nn.initializers.orthogonal()(jax.random.key(0), (3, 2))
    >>> x = jnp.array([[1.0, 2.0, 3.0]])
    >>> parts = jax.vmap(
    ...   lambda c: inversion.backtrack(apply_fn, weights, x, channel=c)
    ... )(jnp.arange(2))
    >>> whole = inversion.reconstruct(apply_fn, weights, x).x
    >>> bool(jnp.allclose(parts.sum(0), whole, atol=1e-6))
    True
  """
  function = apply_fn if layer is None else until(apply_fn, layer)
  z = function(params, x)
  if (target is None) == (channel is None):
    raise InversionError(
      'Give either target, the classes, or channel, what to track back.'
    )
  if target is not None:
    channel = _checked_target(target, z)
  kept = jnp.where(_chosen(z, channel, position), z, 0)
  back = lambda z: (
    invert(function, params, z, x, method=method, x=x, **options).x
  )
  return back(kept) - back(jnp.zeros_like(z))


def _checked_target(target: jax.Array, z: jax.Array) -> jax.Array:
  target = jnp.asarray(target)
  if target.shape != z.shape[:1] or z.ndim != 2:
    raise InversionError(
      f'target must hold one class for each of {z.shape[0]} pictures and the'
      f' output one number for each class, got target {target.shape} and output'
      f' {z.shape}. Of a layer, choose a channel.'
    )
  return target


def _chosen(z: jax.Array, channel, position) -> jax.Array:
  """Where the chosen numbers of an output are."""
  chosen = _at(z, -1, _index(channel, z, -1, 'channel'))
  if position is None:
    return chosen
  if len(position) != z.ndim - 2:
    raise InversionError(
      f'position must have {z.ndim - 2} numbers for an output of shape'
      f' {z.shape}, got {len(position)}.'
    )
  for axis, place in enumerate(position, 1):
    chosen = chosen & _at(z, axis, _index(place, z, axis, 'position'))
  return chosen


def _at(z: jax.Array, axis: int, index: jax.Array) -> jax.Array:
  """Where an axis of z has an index, () or (N,)."""
  places = jax.lax.broadcasted_iota(jnp.int32, z.shape, axis % z.ndim)
  index = index.reshape(-1, *[1] * (z.ndim - 1))
  return places == jnp.broadcast_to(index, z.shape)


def _index(value, z: jax.Array, axis: int, name: str) -> jax.Array:
  size = z.shape[axis]
  if isinstance(value, int) and not 0 <= value < size:
    raise InversionError(
      f'{name} {value} does not exist: that axis of the output {z.shape} goes'
      f' from 0 to {size - 1}.'
    )
  value = jnp.asarray(value)
  if value.shape not in ((), z.shape[:1]):
    raise InversionError(
      f'{name} must be one number or one for each of {z.shape[0]} pictures,'
      f' got shape {value.shape}.'
    )
  return value
