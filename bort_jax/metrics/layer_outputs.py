"""What several layers of a network give for the same pictures."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from bort_jax.inversion import Layer, until
from bort_jax.metrics.errors import MetricError

Outputs: TypeAlias = Callable[[Any, jax.Array], Any]


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


def named_outputs(apply_fn: Outputs, params: Any, x: Any) -> dict[str, Any]:
  """Shapes of all outputs by their names, in the order of the function.

  A mapping that JAX returns has lost that order.
  """
  found: dict[str, Any] = {}

  def call(params, x):
    outputs = apply_fn(params, x)
    found.update(_by_name(outputs))
    return outputs

  jax.eval_shape(call, params, x)
  return found


def _by_name(outputs: Any, before: str = '') -> dict[str, Any]:
  if not isinstance(outputs, Mapping):
    return {before: jax.eval_shape(lambda: outputs)} if before else {}
  return {
    name: shape
    for key, value in outputs.items()
    for name, shape in _by_name(
      value, f'{before}/{key}' if before else str(key)
    ).items()
  }


def checked_layers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
  """At least one layer, none twice."""
  if isinstance(layers, str | int) or not layers:
    raise MetricError(
      f'layers must be a list of layers, at least one, got {layers!r}.'
    )
  layers = tuple(layers)
  twice = [layer for layer in layers if layers.count(layer) > 1]
  if twice:
    raise MetricError(
      f'Layer {twice[0]!r} is given twice: name each no more than once.'
    )
  return layers


def outputs_of(
  apply_fn: Outputs,
  layers: tuple[Layer, ...],
  params: Any,
  x: jax.Array,
) -> tuple[jax.Array, ...]:
  """The output of each layer, floats with a row for each picture."""
  outputs = Recorded(apply_fn, layers)(params, x)
  for layer, out in zip(layers, outputs, strict=True):
    is_float = jnp.issubdtype(out.dtype, jnp.floating)
    if not out.ndim or len(out) != len(x) or not is_float:
      raise MetricError(
        f'Layer {layer!r} must give floats (N, ...) with N = {len(x)}, a row'
        f' for each picture, but gives {out.dtype}{list(out.shape)}.'
      )
  return outputs
