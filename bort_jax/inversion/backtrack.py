"""The picture that a unit, a channel or a class stands for."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax.inversion.errors import InversionError
from bort_jax.inversion.invert import forward, invert
from bort_jax.inversion.layers import Layer, until
from bort_jax.inversion.undo import Method
from bort_jax.validation import (
  check_steps,
  checked_classes,
  is_known,
  nan_where_missing,
)


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
  chunk: int | None = None,
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
    chunk: how many pictures go through the function at once; by default N.
    **options: further ones of :func:`invert`.

  Returns:
    (N, H, W, C), like x: signed, in the units of x. Over several channels, use
    ``jax.vmap``.

  Raises:
    InversionError: if there is no such layer, channel or position, or the
      function cannot be run backwards.
    ValueError: for a chunk that is no integer or less than 1.

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
  if (target is None) == (channel is None):
    raise InversionError(
      'Give either target, the classes, or channel, what to track back.'
    )
  function = apply_fn if layer is None else until(apply_fn, layer)
  shape = jax.eval_shape(functools.partial(forward, function), params, x).shape
  if target is None:
    index = _index(channel, shape, -1, 'channel')
  else:
    index = classes_of_output(target, shape)
  places = _places(position, shape)

  def part(x, index, *places):
    z = forward(function, params, x)
    kept = jnp.where(_chosen(z, index, places), z, 0)
    back = lambda z: (
      invert(function, params, z, x, method=method, x=x, **options).x
    )
    part = back(kept) - back(jnp.zeros_like(z))
    return nan_where_missing(part, index, z.shape[-1])

  return _in_blocks(part, chunk, x, index, *places)


def _in_blocks(
  function: Callable[..., jax.Array], chunk: int | None, x: Any, *given: Any
) -> jax.Array:
  """A function of a batch, given at most ``chunk`` pictures at once.

  One after another and by itself, so that each says what fails and why.
  """
  if chunk is None:
    return function(x, *given)
  check_steps('chunk', chunk)
  x, n = jnp.asarray(x), len(x)
  each = [jnp.broadcast_to(a, n) for a in given]
  chunk = min(chunk, n)
  # the last block is filled up with the first pictures: one program for all
  blocks = [
    jnp.arange(start, start + chunk) % n for start in range(0, n, chunk)
  ]
  parts = [function(x[i], *(a[i] for a in each)) for i in blocks]
  return jnp.concatenate(parts)[:n]


def classes_of_output(target: Any, shape: tuple[int, ...]) -> jax.Array:
  """One class for each picture of an output (N, K); refuses others."""
  if len(shape) != 2:
    raise InversionError(
      f'A target is a class, one number of an output (N, K), but the output has'
      f' shape {shape}. Of a layer, choose a channel.'
    )
  return checked_classes('target', target, shape[0], shape[1], InversionError)


def _places(position, shape: tuple[int, ...]) -> list[jax.Array]:
  """The indices of a position on the axes between batch and channels."""
  if position is None:
    return []
  if len(position) != len(shape) - 2:
    raise InversionError(
      f'position must have {len(shape) - 2} numbers for an output of shape'
      f' {shape}, got {len(position)}.'
    )
  return [
    _index(place, shape, axis, 'position')
    for axis, place in enumerate(position, 1)
  ]


def _chosen(
  z: jax.Array, channel: jax.Array, places: Sequence[jax.Array]
) -> jax.Array:
  """Where the chosen numbers of an output are."""
  chosen = _at(z, -1, channel)
  for axis, place in enumerate(places, 1):
    chosen = chosen & _at(z, axis, place)
  return chosen


def _at(z: jax.Array, axis: int, index: jax.Array) -> jax.Array:
  """Where an axis of z has an index, () or (N,)."""
  places = jax.lax.broadcasted_iota(jnp.int32, z.shape, axis % z.ndim)
  index = index.reshape(-1, *[1] * (z.ndim - 1))
  return places == jnp.broadcast_to(index, z.shape)


def _index(
  value: Any, shape: tuple[int, ...], axis: int, name: str
) -> jax.Array:
  """One index on an axis, or one for each of the batch; refuses others."""
  value = _array(value)
  if value.shape not in ((), shape[:1]):
    raise InversionError(
      f'{name} must be one number or one for each of {shape[0]} pictures,'
      f' got shape {value.shape}.'
    )
  if isinstance(value, np.ndarray):
    _check_exists(value, shape, axis, name)
  return jnp.asarray(value)


def _array(value: Any) -> np.ndarray | jax.Array:
  """Of NumPy where the numbers are known now: none of them wraps."""
  if all(map(is_known, jax.tree.leaves(value))):
    return np.asarray(value)
  return jnp.asarray(value)


def _check_exists(
  indices: np.ndarray, shape: tuple[int, ...], axis: int, name: str
) -> None:
  if not np.issubdtype(indices.dtype, np.integer):
    raise InversionError(f'{name} must be an integer, got {indices.dtype}.')
  missing = indices[(indices < 0) | (indices >= shape[axis])]
  if missing.size:
    raise InversionError(
      f'{name} {missing.flat[0]} does not exist: that axis of the output'
      f' {shape} goes from 0 to {shape[axis] - 1}.'
    )
