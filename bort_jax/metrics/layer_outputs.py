"""What several layers of a network give for the same pictures."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bort_jax.inversion import Layer, until
from bort_jax.metrics.errors import MetricError


def checked_layers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
  """At least one layer, none twice."""
  if isinstance(layers, str | int) or not layers:
    raise MetricError(
      f'layers must be a list of layers, at least one, got {layers!r}.'
    )
  layers = tuple(layers)
  twice = [layer for layer in layers if layers.count(layer) > 1]
  if twice:
    raise MetricError(f'Layer {twice[0]!r} is given twice: leave one out.')
  return layers


def outputs_of(
  apply_fn: Callable[[Any, jax.Array], Any],
  layers: tuple[Layer, ...],
  params: Any,
  x: jax.Array,
) -> tuple[jax.Array, ...]:
  """The output of each layer; under jit what they share is computed once."""
  outputs = tuple(until(apply_fn, layer)(params, x) for layer in layers)
  for layer, out in zip(layers, outputs, strict=True):
    is_float = jnp.issubdtype(out.dtype, jnp.floating)
    if not out.ndim or len(out) != len(x) or not is_float:
      raise MetricError(
        f'Layer {layer!r} must give floats (N, ...) with N = {len(x)}, a row'
        f' for each picture, but gives {out.dtype}{list(out.shape)}.'
      )
  return outputs
