"""Which units a prediction rests on."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from bort_jax.inversion import InversionError, Layer, rest, until
from bort_jax.metrics.checks import check_choice, checked_pictures, wide
from bort_jax.metrics.chunks import check_chunk, over_pairs, within_memory
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.layer_outputs import Outputs
from bort_jax.metrics.neurons.layers import recorded
from bort_jax.metrics.scores import score_of
from bort_jax.validation import checked_classes, nan_where_missing


def influence(
  apply_fn: Outputs,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  *,
  layer: Layer,
  output: str = 'logits',
  score: str = 'logit',
  units: Sequence[int] | None = None,
  chunk: int | None = None,
) -> jax.Array:
  """How much a class loses when a unit is removed: f(x) − f(x | unit = 0).

  Published as the prediction difference of a neuron, by a short description;
  removing by zero, and the score, are our reading.

  Args:
    apply_fn: see :func:`bort_jax.attribution.grad_cam`.
    params: its parameters.
    x: pictures (N, H, W, C), floats.
    target: (N,) int, 0 … K − 1, or one for all.
    layer: whose units: all that follows must depend on x through it alone.
    output: the name of the logits, where outputs have names.
    score: what is lost: the ``'logit'`` of the class, or its probability,
      ``'softmax'``.
    units: which ones are removed; by default all.
    chunk: pictures in one pass, each with one unit removed; by default N.

  Returns:
    (N, U), of these units in order, positive where one speaks for the class.

  Raises:
    MetricError: for a layer that does not exist, or past which the logits
      depend on x too, pictures or classes that do not fit, too little memory.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics import neurons
    >>> def outputs(params, x):
    ...   code = 2 * x.reshape(len(x), -1)
    ...   return {'code': code, 'logits': code @ params}
    >>> x = jnp.array([1.0, 3.0]).reshape(1, 1, 2, 1)
    >>> weights = jnp.array([[1.0, 0.0], [-1.0, 2.0]])
    >>> neurons.influence(outputs, weights, x, 0, layer='code')
    Array([[ 2., -6.]], dtype=float32)
  """
  x = checked_pictures(x)
  check_chunk(chunk)
  check_choice('score', score, ('logit', 'softmax'))
  record = recorded(apply_fn, params, x, [layer])
  (code,) = jax.eval_shape(record, params, x)
  removed = _checked_units(units, code.shape[-1])
  head = functools.partial(_logits, apply_fn, layer, output)
  try:
    logits = jax.eval_shape(head, params, x)
  except InversionError as error:
    raise MetricError(str(error)) from error
  if len(logits.shape) != 2 or len(logits) != len(x):
    raise MetricError(
      f'The output {output!r} must be logits (N, K), got shape {logits.shape}.'
    )
  target = checked_classes(
    'target', target, len(x), logits.shape[1], MetricError
  )
  setting = apply_fn, layer, output, score, chunk
  return within_memory(
    _influence, setting, params, x, target, removed, chunk=chunk
  )


def _checked_units(units: Sequence[int] | None, count: int) -> jax.Array:
  numbers = np.arange(count) if units is None else np.asarray(units)
  are_numbers = np.issubdtype(numbers.dtype, np.integer) and numbers.ndim == 1
  exist = are_numbers and np.all((numbers >= 0) & (numbers < count))
  if not (exist and len(numbers)):
    raise MetricError(
      f'units must be a list of numbers 0 … {count - 1}, got {units!r}.'
    )
  return jnp.asarray(numbers)


def _logits(apply_fn, layer, output, params, x) -> jax.Array:
  code = until(apply_fn, layer)(params, x)
  return rest(apply_fn, params, x, layer, output)(code)


@functools.partial(jax.jit, static_argnums=0)
def _influence(setting, params, x, target, units) -> jax.Array:
  # a difference of logits: TF32 would leave little of a small one
  with jax.default_matmul_precision('highest'):
    return _differences(setting, params, x, target, units)


def _differences(setting, params, x, target, units) -> jax.Array:
  apply_fn, layer, output, score, chunk = setting
  codes = until(apply_fn, layer)(params, x)
  n, count = len(x), codes.shape[-1]

  def scores(codes, pictures):
    like = jax.ShapeDtypeStruct((len(codes), *x.shape[1:]), x.dtype)
    logits = rest(apply_fn, params, like, layer, output)(codes)
    classes = target[pictures]
    logits = logits.astype(wide(logits.dtype))
    found = score_of(logits, classes, score)
    return nan_where_missing(found, classes, logits.shape[1])

  def without(removed, pictures):
    here = jnp.arange(count)[None] == units[removed][:, None]
    here = here.reshape(len(removed), *[1] * (codes.ndim - 2), count)
    chosen = codes[pictures]
    return scores(jnp.where(here, 0, chosen).astype(codes.dtype), pictures)

  whole = scores(codes, jnp.arange(n))
  return whole[:, None] - over_pairs(without, len(units), n, chunk)
