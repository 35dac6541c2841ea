"""Checks of what a metric is given, before anything is computed."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike

from bort_jax import validation
from bort_jax.metrics.errors import MetricError
from bort_jax.validation import check_logits, checked_classes, is_integer

ApplyFn: TypeAlias = Callable[[Any, jax.Array], jax.Array]


def wide(dtype: jax.typing.DTypeLike) -> jnp.dtype:
  """The type that numbers of a type are summed in."""
  return jnp.promote_types(dtype, jnp.float32)


def checked_pictures(x: ArrayLike) -> jax.Array:
  """Float pictures (N, H, W, C); refuses others."""
  x = validation.checked_pictures(x, MetricError)
  if not x.size:
    raise MetricError(f'x has nothing in it: its shape is {x.shape}.')
  return x


def checked_case(
  apply_fn: ApplyFn, params: Any, x: ArrayLike, target: ArrayLike
) -> tuple[jax.Array, jax.Array]:
  """Pictures, and a class of the network for each; refuses others."""
  x = checked_pictures(x)
  classes = number_of_classes(apply_fn, params, x)
  return x, checked_classes('target', target, len(x), classes, MetricError)


def number_of_classes(apply_fn: ApplyFn, params: Any, x: jax.Array) -> int:
  """K of a network's logits (N, K), refused if they are of another shape."""
  check_hashable('apply_fn', apply_fn)
  logits = _logits.eval_shape(apply_fn, params, x)
  advice = 'Wrap it in a function that returns the logits alone.'
  check_logits(logits, len(x), advice, MetricError)
  return logits.shape[1]


# Under jit its trace is kept: another call of the same network is not traced.
@functools.partial(jax.jit, static_argnums=0)
def _logits(apply_fn, params, x):
  return apply_fn(params, x)


def check_hashable(name: str, function: Any) -> None:
  """Refuses a function for which nothing that is compiled is found again."""
  advice = 'Give a plain function, or a frozen dataclass.'
  validation.check_hashable(name, function, advice, MetricError)


def checked_maps(attribution: ArrayLike) -> jax.Array:
  """Real maps (N, H, W) or (N, H, W, C); refuses others."""
  maps = jnp.asarray(attribution)
  if maps.ndim not in (3, 4) or jnp.iscomplexobj(maps):
    raise MetricError(
      'attribution must be real maps (N, H, W) or (N, H, W, C), got'
      f' {maps.dtype} of shape {maps.shape}.'
    )
  return maps


def with_channels(maps: jax.Array) -> jax.Array:
  """Maps (N, H, W) or (N, H, W, C) as (N, H, W, C) of wide floats."""
  if maps.ndim == 3:
    maps = maps[..., None]
  return maps.astype(wide(maps.dtype))


def checked_attribution(
  attribution: ArrayLike, shape: Sequence[int]
) -> jax.Array:
  """Maps of pictures of a shape, as (N, H, W, 1) or (N, H, W, C)."""
  n, height, width, channels = shape
  given = jnp.shape(attribution)
  fitting = (n, height, width), (n, height, width, 1), tuple(shape)
  if given not in fitting:
    raise MetricError(
      f'attribution must have shape {fitting[0]}, {fitting[1]} or'
      f' {fitting[2]} for pictures of shape {tuple(shape)}, got {given}.'
      + _shape_advice(given, (height, width))
    )
  return with_channels(checked_maps(attribution))


def _shape_advice(given: tuple[int, ...], size: tuple[int, int]) -> str:
  if len(given) == 4 and given[2:] == size:
    return ' Channels come last: use jnp.moveaxis(attribution, 1, -1).'
  return ' Resize maps of another size with jax.image.resize.'


def checked_mask(mask: ArrayLike, maps: jax.Array) -> jax.Array:
  """A bool mask (N, H, W) for maps; refuses others."""
  mask = jnp.asarray(mask)
  if mask.dtype != bool or mask.shape != maps.shape[:3]:
    raise MetricError(
      f'mask must be bool of shape {maps.shape[:3]}, true where the object is,'
      f' got {mask.dtype} of shape {mask.shape}.'
    )
  return mask


def check_count(name: str, value: Any, most: int | None = None) -> None:
  """Refuses what is no integer ≥ 1 that is known at compilation."""
  if isinstance(value, Tracer) or not is_integer(value) or int(value) < 1:
    raise MetricError(
      f'{name} must be an integer, at least 1, that is known when the metric is'
      f' compiled (static_argnames), got {value!r}.'
    )
  if most is not None and value > most:
    raise MetricError(f'{name} must be at most {most}, got {value!r}.')


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
  """Refuses what is none of some words."""
  if value not in choices:
    raise MetricError(
      f'{name} must be one of {", ".join(choices)}, got {value!r}.'
    )


def pixels_of(maps: jax.Array) -> jax.Array:
  """(N, H, W) sum of the channels: one number for each pixel, signed."""
  return jnp.sum(maps, axis=-1)


def rows_of(values: jax.Array) -> jax.Array:
  """(N, numbers of each)."""
  return values.reshape(len(values), math.prod(values.shape[1:]))


def undefined_if_not_finite(value: jax.Array, maps: jax.Array) -> jax.Array:
  """NaN for each of the batch whose map has a number that is not finite."""
  finite = jnp.all(jnp.isfinite(rows_of(maps)), axis=1)
  finite = finite.reshape(-1, *[1] * (value.ndim - 1))
  return jnp.where(finite, value, jnp.nan)
