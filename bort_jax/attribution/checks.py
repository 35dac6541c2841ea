"""Checks of what a method is given, before anything is computed."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from bort_jax import validation
from bort_jax.attribution.errors import AttributionError
from bort_jax.inversion.errors import InversionError
from bort_jax.inversion.invert import check_hashable
from bort_jax.inversion.layers import until
from bort_jax.validation import (
  check_logits,
  checked_classes,
  is_integer,
  is_known,
)

#: ``apply_fn(params, x)``. What is compiled for it is found again by the
#: function itself: give the same one at every call, with all arrays in its
#: parameters. A fresh lambda at each call is compiled anew and kept, with the
#: arrays that it closes over, until ``jax.clear_caches()``.
ApplyFn = Callable[[Any, jax.Array], Any]


def checked(
  apply_fn: ApplyFn,
  params: Any,
  x: Any,
  target: Any,
  chunk: int | None,
  output: str | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Pictures (N, H, W, C) and their classes (N,); refuses others.

  Args:
    apply_fn: the network, which returns logits (N, K) or has an output of them.
    params: its parameters.
    x: the pictures.
    target: a class for each.
    chunk: how many pictures go through the network at once.
    output: the name of the logits, where the network may return a mapping.

  Returns:
    The pictures and classes as arrays.

  Raises:
    AttributionError: for anything that does not fit.
  """
  x = checked_pictures(apply_fn, params, x, chunk)
  n, classes = logits_shape(apply_fn, params, x, output)
  return x, checked_classes('target', target, n, classes, AttributionError)


def checked_pictures(
  apply_fn: ApplyFn, params: Any, x: Any, chunk: int | None
) -> jax.Array:
  """Finite float pictures (N, H, W, C); refuses others."""
  try:
    check_hashable(getattr(apply_fn, 'apply_fn', apply_fn))
  except InversionError as error:
    raise AttributionError(str(error)) from None
  x = validation.checked_pictures(x, AttributionError)
  if chunk is not None:
    check_count('chunk', chunk)
  check_finite({'x': x, 'params': params})
  return x


def logits_shape(
  apply_fn: ApplyFn, params: Any, x: jax.Array, output: str | None = None
) -> tuple[int, ...]:
  """(N, K) of a network's logits, refused if they are of another form."""
  logits = _outputs.eval_shape(apply_fn, params, x)
  if output is not None and not isinstance(logits, jax.ShapeDtypeStruct):
    try:
      logits = _outputs.eval_shape(until(apply_fn, output), params, x)
    except InversionError as error:
      raise AttributionError(str(error)) from None
  advice = "Of several outputs choose one: inversion.until(apply_fn, 'NAME')."
  check_logits(logits, len(x), advice, AttributionError)
  return logits.shape


# Under jit its trace is kept: another call of the same network is not traced.
@functools.partial(jax.jit, static_argnums=0)
def _outputs(apply_fn, params, x):
  return apply_fn(params, x)


def checked_like_x(name: str, value: Any, x: jax.Array) -> jax.Array:
  """A finite number or array, broadcast to the shape and type of x."""
  value = jnp.asarray(value, x.dtype)
  try:
    wide = jnp.broadcast_to(value, x.shape)
  except ValueError:
    raise AttributionError(
      f'{name} must be a number or broadcast to x, {x.shape}, got shape'
      f' {value.shape}.'
    ) from None
  check_finite({name: value})
  return wide


def check_count(name: str, value: Any) -> None:
  """Refuses what is no integer ≥ 1 that is known at compilation."""
  if isinstance(value, Tracer) or not is_integer(value) or int(value) < 1:
    raise AttributionError(
      f'{name} must be an integer, at least 1, that is known at compilation'
      f' (static_argnames), got {value!r}.'
    )


@jax.ensure_compile_time_eval()  # what is known is read under jit too
def check_finite(given: Any) -> None:
  """Refuses arrays whose known numbers are not all finite, by their names."""
  known = [
    (path, leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(given)
    if isinstance(leaf, jax.Array | np.ndarray)
    and jnp.issubdtype(leaf.dtype, jnp.inexact)
    and is_known(leaf)
  ]
  if not _finite([leaf for _, leaf in known]):
    bad = [
      jax.tree_util.keystr(path, simple=True, separator='/')
      for path, leaf in known
      if not _finite(leaf)
    ]
    raise AttributionError(
      f'Numbers are not finite in {", ".join(bad)}: an attribution of them'
      ' would mean nothing.'
    )


@jax.jit
def _finite(tree):
  # XLA sums faster on CPUs than it finds out jnp.all, and its maximum there
  # leaves NaN out.
  zeros = [jnp.sum(0 * a) for a in jax.tree.leaves(tree)]
  return jnp.all(jnp.array([zero == 0 for zero in zeros]))
