"""Tables of metrics, and the random map that belongs in each."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from bort_jax.metrics.checks import checked_pictures, wide
from bort_jax.metrics.errors import MetricError

CONTROL = 'random map (control)'


class Comparison(NamedTuple):
  """What metrics say of several methods' maps, and of random ones."""

  methods: tuple[str, ...]  # the control is the last
  metrics: tuple[str, ...]
  values: np.ndarray  # (methods, metrics, N)

  def table(self) -> str:
    """Mean ± standard error over the pictures, as a Markdown table.

    Pictures for which a metric is not defined are left out, and counted.
    """
    lines = [
      f'| method | {" | ".join(self.metrics)} |',
      '| --- |' + ' ---: |' * len(self.metrics),
    ]
    for method, row in zip(self.methods, self.values, strict=True):
      lines.append(f'| {method} | {" | ".join(map(_cell, row))} |')
    return '\n'.join(lines)


def random_attribution(key: jax.Array, x: ArrayLike) -> jax.Array:
  """Maps that know nothing: standard normal numbers, signed as gradients are.

  Args:
    key: a random key.
    x: pictures (N, H, W, C).

  Returns:
    (N, H, W, C), float32 at least.

  Raises:
    MetricError: if x are no pictures.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> maps = metrics.random_attribution(
    ...   jax.random.key(0), jnp.ones((2, 8, 8, 3))
    ... )
    >>> maps.shape, bool(abs(maps.mean()) < 0.2)
    ((2, 8, 8, 3), True)
  """
  x = checked_pictures(x)
  return jax.random.normal(key, x.shape, wide(x.dtype))


def compare(
  attributions: Mapping[str, ArrayLike],
  metrics: Mapping[str, Callable[[Any], ArrayLike]],
  x: ArrayLike,
  *,
  key: jax.Array,
) -> Comparison:
  """Judges the maps of several methods, and random ones, by several metrics.

  Args:
    attributions: maps of the pictures, by the name of the method.
    metrics: functions from maps to (N,), by name.
    x: the pictures (N, H, W, C).
    key: a random key for the control.

  Returns:
    The values; the control is in the last row.

  Raises:
    MetricError: if a metric does not return a number for each picture, or the
      name of the control is taken.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    >>> found = metrics.compare(
    ...   {'itself': x}, {'Gini': metrics.sparseness}, x, key=jax.random.key(0)
    ... )
    >>> found.methods
    ('itself', 'random map (control)')
    >>> print(found.table().splitlines()[2])
    | itself | 0.354 |
  """
  x = checked_pictures(x)
  if CONTROL in attributions:
    raise MetricError(f'The name {CONTROL!r} is that of the control.')
  rows = {**attributions, CONTROL: random_attribution(key, x)}
  values = [
    [_checked(name, metric(maps), len(x)) for name, metric in metrics.items()]
    for maps in rows.values()
  ]
  shape = len(rows), len(metrics), len(x)
  return Comparison(
    tuple(rows), tuple(metrics), np.array(values, float).reshape(shape)
  )


def _checked(name: str, values: ArrayLike, n: int) -> np.ndarray:
  if jnp.shape(values) != (n,):
    raise MetricError(
      f'The metric {name!r} must return shape ({n},), a number per picture, got'
      f' {jnp.shape(values)}. Of a curve, take .auc.'
    )
  return np.asarray(values, float)


def _cell(values: np.ndarray) -> str:
  defined = values[np.isfinite(values)]
  if not defined.size:
    return 'undefined'
  error = ''
  if defined.size > 1:
    error = f' ± {defined.std(ddof=1) / defined.size**0.5:.1g}'
  missing = values.size - defined.size
  note = f' ({missing} undefined)' if missing else ''
  return f'{defined.mean():.3g}{error}{note}'
