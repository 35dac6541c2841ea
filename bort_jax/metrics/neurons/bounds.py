"""How far layers can drift, known before any attack, and how far they did."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.inversion import InversionError, Layer, rest, until
from bort_jax.inversion.lipschitz import upper_bound
from bort_jax.inversion.program import Program, trace
from bort_jax.inversion.segments import cut
from bort_jax.metrics.checks import checked_pictures
from bort_jax.metrics.layer_outputs import Outputs
from bort_jax.metrics.neurons.layers import recorded

_ROUNDINGS = 100  # of each segment's bound, as many as the certificate allows


def layer_bounds(
  apply_fn: Outputs,
  params: Any,
  x: ArrayLike,
  layers: Sequence[Layer] | None = None,
  *,
  frequencies: int = 32,
) -> jax.Array:
  """Lipschitz constants of a network up to each of its layers.

  ‖φ(x) − φ(x*)‖ ≤ L ‖x − x*‖ for all pictures x and x*, in the 2-norm: no
  attack moves a layer further. The bound is that of
  :func:`bort_jax.inversion.certificate`, composed from one layer to the next
  where all passes through it, and far from tight for deep networks. Rounding of
  the forward pass is not counted.

  Args:
    apply_fn: see :func:`survey`.
    params: its parameters.
    x: pictures (N, H, W, C), for shape and dtype alone.
    layers: see :func:`survey`; in the order in which pictures pass them.
    frequencies: see :func:`bort_jax.inversion.certificate`.

  Returns:
    (layers,) L; infinite where none is known.

  Raises:
    MetricError: for a layer that does not exist.
    InversionError: for a function that cannot be read.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics import neurons
    >>> def outputs(params, x):
    ...   first = x.reshape(len(x), -1) @ params
    ...   return {'first': first, 'second': 2 * jnp.maximum(first, 0)}
    >>> x = jnp.ones((1, 1, 2, 1))
    >>> found = neurons.layer_bounds(outputs, 3 * jnp.eye(2), x)
    >>> [round(float(bound), 2) for bound in found]
    [3.0, 6.0]
  """
  x = checked_pictures(x)
  record = recorded(apply_fn, params, x, layers)
  return _bounds(apply_fn, record.layers, frequencies, params, x)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _bounds(apply_fn, layers, frequencies, params, x) -> jax.Array:
  like = jax.ShapeDtypeStruct(x.shape, x.dtype)
  bounds: list[jax.Array] = []
  with jax.default_matmul_precision('highest'):
    for i, layer in enumerate(layers):
      start, program = _nearest(apply_fn, layers[:i], layer, params, like)
      step = _stretch(program, params, frequencies)
      known = jnp.float32(1) if start is None else bounds[start]
      none = jnp.isinf(known) | jnp.isinf(step)  # 0 · ∞ is not 0 here
      bounds.append(jnp.where(none, jnp.inf, known * step))
  return jnp.stack(bounds)


@dataclasses.dataclass(frozen=True)
class _Between:
  """What a function makes of one layer, up to another."""

  apply_fn: Outputs
  like: jax.ShapeDtypeStruct
  first: Layer
  last: Layer

  def __call__(self, params: Any, code: jax.Array) -> jax.Array:
    made = rest(self.apply_fn, params, self.like, self.first, str(self.last))
    return made(code)


def _nearest(
  apply_fn: Outputs,
  before: tuple[Layer, ...],
  layer: Layer,
  params: Any,
  like: jax.ShapeDtypeStruct,
) -> tuple[int | None, Program]:
  """The last layer through which all passes on the way, and what follows it."""
  names = [(i, b) for i, b in enumerate(before) if isinstance(b, str)]
  for i, first in reversed(names if isinstance(layer, str) else []):
    code = jax.eval_shape(until(apply_fn, first), params, like)
    step = _Between(apply_fn, like, first, layer)
    try:
      return i, trace(step, params, code)
    except InversionError:  # it goes past this one
      continue
  return None, trace(until(apply_fn, layer), params, like)


def _stretch(program: Program, params: Any, frequencies: int) -> jax.Array:
  """() the product over the segments."""
  constants = program.constants(params)
  product = jnp.float32(1)
  for piece in cut(program):
    bound = upper_bound(piece, program, constants, frequencies).value
    slack = 1 + _ROUNDINGS * float(jnp.finfo(piece.like.dtype).eps)
    none = jnp.isinf(product) | jnp.isinf(bound)
    product = jnp.where(none, jnp.inf, product * bound * slack)
  return product
