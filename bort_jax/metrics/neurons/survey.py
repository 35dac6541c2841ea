"""One pass over a data set, in which every unit meets its top pictures."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from bort_jax.inversion import Layer
from bort_jax.metrics.checks import (
  check_choice,
  check_count,
  rows_of,
  wide,
)
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.moments import (
  joined,
  moments_of,
  no_moments,
)
from bort_jax.metrics.neurons.found import PairSurvey, Survey
from bort_jax.metrics.neurons.layers import (
  Outputs,
  Pool,
  Recorded,
  recorded,
  unit_activations,
)
from bort_jax.metrics.neurons.likeness import no_likeness, with_pairs
from bort_jax.metrics.neurons.stream import Stream
from bort_jax.metrics.neurons.top import no_units, with_batch
from bort_jax.norms import l2_norm


def survey(
  apply_fn: Outputs,
  params: Any,
  batches: Iterable[tuple[ArrayLike, ArrayLike]],
  *,
  num_classes: int,
  layers: Sequence[Layer] | None = None,
  count: int = 9,
  pool: Pool = 'max',
  allow_empty: bool = False,
) -> Survey:
  """Finds the pictures that activate each unit most, in one pass.

  Memory is that of one batch and of the top pictures' numbers; what comes out
  does not depend on how the pictures are split into batches. A unit is one of
  the last axis of a layer: a channel of a map.

  Args:
    apply_fn: a function that returns a mapping of outputs by their names, as
      ``nn.functional(model, 'intermediates')`` gives, if layers are named.
    params: its parameters.
    batches: (x, labels) with pictures x (N, H, W, C), floats, and their classes
      (N,) int, 0 … K − 1. None may be larger than the first.
    num_classes: K.
    layers: names, or numbers of segments; see :func:`bort_jax.inversion.until`.
      By default all outputs that have a name.
    count: k, how many pictures are kept for each unit. The share of pictures
      that the paper keeps was not found.
    pool: what a map (N, h, w, units) counts by, its greatest activation or its
      mean.
    allow_empty: whether classes may have no pictures at all.

  Returns:
    The top pictures, by their numbers in the stream, with their classes, places
    and activations. Of units that no picture activates, none.

  Raises:
    MetricError: for a layer that does not exist or has no units, pictures or
      classes that do not fit, and no pictures, of the stream or of a class.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics import neurons
    >>> outputs = lambda params, x: {'sum': x.sum((1, 2)) @ params}
    >>> x = jnp.array([1.0, 3.0, 2.0]).reshape(3, 1, 1, 1)
    >>> found = neurons.survey(
    ...   outputs,
    ...   jnp.ones((1, 1)),
    ...   [(x, jnp.array([0, 1, 0]))],
    ...   num_classes=2,
    ...   count=2,
    ... )
    >>> found['sum'].pictures, found['sum'].labels
    (Array([[1, 2]], dtype=int32), Array([[1, 0]], dtype=int32))

  References:
    Dong et al., `Towards Interpretable Deep Neural Networks by Leveraging
    Adversarial Examples <https://arxiv.org/abs/1901.09035>`_, 2019: that units
    are looked at by their top pictures; all else is our reading
  """
  stream = Stream(batches, num_classes, 1)
  (x,), _ = stream.first
  record = _checked_setting(apply_fn, params, x, layers, count, pool)
  state = _nothing(record, params, x, count, num_classes)
  for batch in stream:
    state = _with_pictures(record, pool, params, state, *batch)
  return _complete(state, allow_empty)


def survey_pairs(
  apply_fn: Outputs,
  params: Any,
  batches: Iterable[tuple[ArrayLike, ArrayLike, ArrayLike]],
  *,
  num_classes: int,
  layers: Sequence[Layer] | None = None,
  count: int = 9,
  pool: Pool = 'max',
  allow_empty: bool = False,
) -> PairSurvey:
  """The same for pictures and their adversarial ones, and how like both are.

  Adversarial pictures count by the class that is seen in them, that of the real
  one, not by what the network says.

  Args:
    apply_fn: see :func:`survey`.
    params: see there.
    batches: (x, x*, labels), each x* the adversarial picture of the x in its
      place.
    num_classes: see :func:`survey`, like all that follows.
    layers: see there.
    count: see there.
    pool: see there.
    allow_empty: see there.

  Returns:
    Top pictures of both kinds, and for each layer cosine similarity, relative
    distance and the greatest stretch. Found of the paper is that it measures
    likeness by a cosine and a relative distance; what the distance is relative
    to is ours.

  Raises:
    MetricError: as :func:`survey`.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics import neurons
    >>> outputs = lambda params, x: {'twice': 2 * x.reshape(len(x), -1)}
    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]]).reshape(2, 1, 2, 1)
    >>> found = neurons.survey_pairs(
    ...   outputs, None, [(x, x[::-1], jnp.arange(2))], num_classes=2, count=1
    ... )
    >>> (likeness,) = found.likeness
    >>> float(likeness.cosine.average), float(likeness.greatest_stretch)
    (0.0, 2.0)
    >>> round(float(likeness.relative_distance), 4)
    1.0
  """
  stream = Stream(batches, num_classes, 2)
  (x, _), _ = stream.first
  record = _checked_setting(apply_fn, params, x, layers, count, pool)
  empty = _nothing(record, params, x, count, num_classes)
  outputs = jax.eval_shape(record, params, x)
  likeness = tuple(
    no_likeness(math.prod(z.shape[1:]), wide(z.dtype)) for z in outputs
  )
  start = no_moments((), wide(x.dtype))
  state = PairSurvey(empty, empty, likeness, start)
  for batch in stream:
    state = _with_both(record, pool, params, state, *batch)
  _complete(state.real, allow_empty)
  return state


@functools.partial(jax.jit, static_argnums=(0, 1))
def _with_pictures(
  record: Recorded, pool: Pool, params, state: Survey, arrays, labels, valid
) -> Survey:
  return _absorbed(pool, state, record(params, arrays[0]), labels, valid)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _with_both(
  record: Recorded, pool: Pool, params, state: PairSurvey, arrays, labels, valid
) -> PairSurvey:
  counts = jnp.arange(len(labels)) < valid
  # as bounds are computed: TF32 would drift by its own rounding
  with jax.default_matmul_precision('highest'):
    outputs, attacked = (record(params, x) for x in arrays)
  x, adversarial = (rows_of(a).astype(wide(a.dtype)) for a in arrays)
  change = l2_norm(x - adversarial)
  likeness = tuple(
    with_pairs(*case, change, counts)
    for case in zip(state.likeness, outputs, attacked, strict=True)
  )
  return PairSurvey(
    _absorbed(pool, state.real, outputs, labels, valid),
    _absorbed(pool, state.adversarial, attacked, labels, valid),
    likeness,
    joined(state.change, moments_of(change, counts)),
  )


def _absorbed(pool: Pool, state: Survey, outputs, labels, valid) -> Survey:
  counts = jnp.arange(len(labels)) < valid
  first = jnp.sum(state.counts)
  units = tuple(
    with_batch(top, *unit_activations(output, pool), labels, first, counts)
    for top, output in zip(state.units, outputs, strict=True)
  )
  classes = state.counts.at[labels].add(counts.astype(state.counts.dtype))
  return dataclasses.replace(state, units=units, counts=classes)


def _nothing(
  record: Recorded, params: Any, x: jax.Array, count: int, num_classes: int
) -> Survey:
  """The state before the first batch."""
  outputs = jax.eval_shape(record, params, x)
  return Survey(
    tuple(no_units(z.shape[-1], count, wide(z.dtype)) for z in outputs),
    jnp.zeros(num_classes, int),
    record.layers,
    tuple(z.shape[1:-1] for z in outputs),
  )


def _checked_setting(apply_fn, params, x, layers, count, pool) -> Recorded:
  check_count('count', count)
  check_choice('pool', pool, ('max', 'mean'))
  return recorded(apply_fn, params, x, layers)


def _complete(found: Survey, allow_empty: bool) -> Survey:
  empty = np.flatnonzero(np.asarray(found.counts) == 0)
  if len(empty) and not allow_empty:
    shown = ', '.join(map(str, empty[:8])) + (', …' if len(empty) > 8 else '')
    raise MetricError(
      f'{len(empty)} of {len(found.counts)} classes have no pictures: {shown}.'
      ' No unit can be found to stand for them. Give pictures of every class,'
      ' or say allow_empty=True.'
    )
  return found
