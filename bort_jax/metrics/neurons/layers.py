"""The outputs of several layers, and the units in them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

from bort_jax.inversion import InversionError, Layer, until
from bort_jax.metrics.checks import check_hashable, wide
from bort_jax.metrics.errors import MetricError

Outputs: TypeAlias = Callable[[Any, jax.Array], Any]
Pool: TypeAlias = Literal['max', 'mean']


@dataclasses.dataclass(frozen=True)
class Recorded:
  """A function that returns the outputs of some layers, of one pass by name."""

  apply_fn: Outputs
  layers: tuple[Layer, ...]

  def __call__(self, params: Any, x: jax.Array) -> tuple[jax.Array, ...]:
    """The outputs, in the order of the layers."""
    by_name = any(isinstance(layer, str) for layer in self.layers)
    outputs = self.apply_fn(params, x) if by_name else None
    return tuple(
      until(_given, layer)(None, outputs)  # pyright: ignore[reportArgumentType]
      if isinstance(layer, str)
      else until(self.apply_fn, layer)(params, x)
      for layer in self.layers
    )


def _given(_, outputs):
  return outputs


def layer_names(apply_fn: Outputs, params: Any, x: jax.Array) -> list[str]:
  """The names of all outputs, in the order in which the function makes them.

  Raises:
    MetricError: if its outputs have no names.
  """
  names: list[str] = []

  def call(params, x):
    outputs = apply_fn(params, x)
    names.extend(_names_of(outputs))
    return outputs

  jax.eval_shape(call, params, x)
  if not names:
    raise MetricError(
      'apply_fn returns outputs without names, so layers must be said: the'
      " numbers of segments, or use nn.functional(model, 'intermediates')."
    )
  return names


def _names_of(outputs: Any, before: str = '') -> list[str]:
  if not isinstance(outputs, Mapping):
    return [before] if before else []
  return [
    name
    for key, value in outputs.items()
    for name in _names_of(value, f'{before}/{key}' if before else str(key))
  ]


def recorded(
  apply_fn: Outputs, params: Any, x: jax.Array, layers: Sequence[Layer] | None
) -> Recorded:
  """What records the layers that are asked for, or all.

  Raises:
    MetricError: if there is no such layer, or it has no units.
  """
  check_hashable('apply_fn', apply_fn)
  if layers is None:
    layers = layer_names(apply_fn, params, x)
  if isinstance(layers, str | int) or not layers:
    raise MetricError(
      f'layers must be a list of layers, at least one, got {layers!r}.'
    )
  if len(set(layers)) < len(layers):
    raise MetricError(f'layers names one more than once: {list(layers)}.')
  record = Recorded(apply_fn, tuple(layers))
  try:
    outputs = jax.eval_shape(record, params, x)
  except InversionError as error:
    raise MetricError(str(error)) from error
  for layer, output in zip(layers, outputs, strict=True):
    _check_units(layer, output, len(x))
  return record


def _check_units(layer: Layer, output: jax.ShapeDtypeStruct, n: int) -> None:
  is_float = jnp.issubdtype(output.dtype, jnp.floating)
  shape = output.shape
  if not is_float or len(shape) < 2 or shape[0] != n or 0 in shape:
    raise MetricError(
      f'Layer {layer!r} must be floats (N, ..., units) with N = {n}, got'
      f' {output.dtype}{list(shape)}. Leave it out of layers.'
    )


def unit_activations(
  output: jax.Array, pool: Pool
) -> tuple[jax.Array, jax.Array]:
  """How much each unit is activated by each picture, and where most.

  Args:
    output: (N, ..., U) of a layer; a unit is one of the last axis.
    pool: over the places between, their maximum or their mean.

  Returns:
    (N, U) activations, float32 at least, and (N, U) int places, of the axes
    between flattened.
  """
  n, units = output.shape[0], output.shape[-1]
  values = output.astype(wide(output.dtype)).reshape(n, -1, units)
  places = jnp.argmax(values, axis=1)
  pooled = jnp.max if pool == 'max' else jnp.mean
  return pooled(values, axis=1), places
