"""The outputs of several layers, and the units in them."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

from bort_jax.inversion import InversionError, Layer
from bort_jax.metrics.checks import check_hashable, wide
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.layer_outputs import (
  Outputs,
  Recorded,
  checked_layers,
  named_outputs,
)

Pool: TypeAlias = Literal['max', 'mean']


def layer_names(apply_fn: Outputs, params: Any, x: jax.Array) -> list[str]:
  """The names of all outputs, in the order in which the function makes them.

  Raises:
    MetricError: if its outputs have no names.
  """
  names = list(named_outputs(apply_fn, params, x))
  if not names:
    raise MetricError(
      'apply_fn returns outputs without names, so layers must be said: the'
      " numbers of segments, or use nn.functional(model, 'intermediates')."
    )
  return names


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
  layers = checked_layers(layers)
  record = Recorded(apply_fn, layers)
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
