"""How much a map changes when its picture hardly does."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.metrics.checks import (
  ApplyFn,
  check_count,
  check_hashable,
  checked_attribution,
  checked_case,
  rows_of,
)
from bort_jax.metrics.chunks import check_chunk, over_pairs, within_memory
from bort_jax.metrics.errors import MetricError
from bort_jax.norms import greatest
from bort_jax.validation import check_number

Method: TypeAlias = Callable[[Any, Any, jax.Array, jax.Array], jax.Array]


class MaxSensitivity(NamedTuple):
  """The most that maps change, in the 2-norm."""

  absolute: jax.Array  # (N,) max ‖a(x + δ) − a(x)‖
  relative: jax.Array  # (N,) over ‖a(x)‖; NaN of a map that is 0


class _Options(NamedTuple):
  samples: int
  chunk: int | None


def max_sensitivity(
  method: Method,
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  *,
  key: jax.Array,
  radius: float | jax.Array = 0.02,
  samples: int = 10,
  chunk: int | None = None,
) -> MaxSensitivity:
  """The most that a method's map changes over random δ with |δ| ≤ radius.

  It is estimated from samples, uniform in the cube, and so from below.

  Args:
    method: ``method(apply_fn, params, x, target)`` returns maps; one of
      ``bort_jax.attribution`` or alike. With options, as a
      ``functools.partial``; make it once, since it is part of what is compiled.
    apply_fn: the network.
    params: its parameters.
    x: pictures (N, H, W, C), floats.
    target: (N,) int.
    key: a random key.
    radius: greatest change of a number, > 0.
    samples: how many changes of each picture, ≥ 1.
    chunk: pictures in one pass; by default N. Results do not depend on it,
      where the method's do not.

  Returns:
    The greatest changes.

  Raises:
    MetricError: for targets that do not exist, a method that returns no maps,
      a setting that is not known, or too little memory.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> apply_fn = lambda params, x: jnp.sum(x**2, (1, 2)) @ params
    >>> def gradient(apply_fn, params, x, target):
    ...   return jax.grad(lambda x: apply_fn(params, x)[:, 0].sum())(x)
    >>> x, params = jnp.ones((1, 4, 4, 1)), jnp.ones((1, 2))
    >>> found = metrics.max_sensitivity(
    ...   gradient, apply_fn, params, x, jnp.array([0]), key=jax.random.key(0)
    ... )
    >>> bool(0.01 < found.relative[0] < 0.02)
    True

  References:
    Yeh et al., `On the (In)fidelity and Sensitivity of Explanations
    <https://arxiv.org/abs/1901.09392>`_, 2019, definition 3.1
  """
  x, target = checked_case(apply_fn, params, x, target)
  check_hashable('method', method)
  check_number('radius', radius, positive=True)
  check_count('samples', samples)
  check_chunk(chunk)
  options = _Options(samples, chunk)
  given = params, x, target, key, jnp.asarray(radius, x.dtype)
  return within_memory(
    _sensitivity, method, apply_fn, options, *given, chunk=chunk
  )


def checked_method(
  method: Method, apply_fn: ApplyFn, params: Any, x: jax.Array, target: Any
) -> jax.Array:
  """What a method makes of pictures, refused if it is no maps of them."""
  maps = method(apply_fn, params, x, target)
  try:
    return checked_attribution(maps, x.shape)
  except MetricError as error:
    raise MetricError(f'What method returned is no map. {error}') from error


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sensitivity(
  method, apply_fn, options: _Options, params, x, target, key, radius
) -> MaxSensitivity:
  explain = lambda x, target: rows_of(
    checked_method(method, apply_fn, params, x, target)
  )

  def change(sample, picture):
    draw = lambda s, p: jax.random.uniform(
      jax.random.fold_in(jax.random.fold_in(key, s), p),
      x.shape[1:],
      x.dtype,
      -1,
      1,
    )
    moved = x[picture] + radius * jax.vmap(draw)(sample, picture)
    difference = explain(moved, target[picture]) - plain[picture]
    return jnp.linalg.norm(difference, axis=1)

  whole = lambda _, picture: explain(x[picture], target[picture])
  plain = over_pairs(whole, 1, len(x), options.chunk)[:, 0]
  changes = over_pairs(change, options.samples, len(x), options.chunk)
  most = greatest(changes, (1,))
  norm = jnp.linalg.norm(plain, axis=1)
  return MaxSensitivity(most, jnp.where(norm > 0, most / norm, jnp.nan))
