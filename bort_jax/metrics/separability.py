"""How well the layers of a network separate its classes."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
from jax.typing import ArrayLike

from bort_jax.inversion import Layer
from bort_jax.metrics.checks import check_hashable, checked_pictures, rows_of
from bort_jax.metrics.class_spread import ClassSpread, Separability
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.layer_outputs import checked_layers, outputs_of

INPUT = 'input'


def separability(
  apply_fn: Callable[[Any, jax.Array], Any],
  params: Any,
  batches: Iterable[tuple[ArrayLike, ArrayLike]],
  *,
  layers: Sequence[Layer],
  num_classes: int,
  key: jax.Array,
  sample: int = 500,
) -> dict[Layer, Separability]:
  """Distances within and between classes, of pictures and of each layer.

  One pass over a stream of batches; what is kept does not grow with their
  number, see :class:`ClassSpread`: distances and Fisher's ratio are exact,
  silhouettes exact for a sample of bounded size. The abstract of the paper
  below says that its representation makes distances within classes smaller and
  those between classes larger; how it measured them is not public, so these
  measures are our reading. Distances scale with the features: compare
  ``ratio``.

  Args:
    apply_fn: a function of parameters and pictures, see
      :func:`bort_jax.inversion.until`.
    params: its parameters.
    batches: pictures (N, H, W, C), floats, and their labels (N,) int; a batch
      of another size is compiled once more.
    layers: names of outputs, or numbers of segments.
    num_classes: K, ≥ 2; there must be pictures of each.
    key: a random key, of the sample.
    sample: how many pictures silhouettes are taken of, ≥ 2.

  Returns:
    The measures by layer, in order; those of the pictures themselves first,
    under ``'input'``.

  Raises:
    MetricError: if there are no batches or a class has no pictures, labels do
      not exist, or layers are named twice or ``'input'``.
    InversionError: if there is no such layer.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> outputs = lambda params, x: {'mean': x.mean((1, 2))}
    >>> labels = jnp.arange(8) % 2
    >>> noise = jax.random.normal(jax.random.key(0), (8, 5, 5, 1))
    >>> x = noise + labels.reshape(-1, 1, 1, 1)
    >>> found = metrics.separability(
    ...   outputs,
    ...   None,
    ...   [(x, labels)],
    ...   layers=['mean'],
    ...   num_classes=2,
    ...   key=jax.random.key(1),
    ... )
    >>> bool(found['mean'].fisher > found['input'].fisher)
    True

  References:
    Manaswini, Bhatt, `Towards glass-box CNNs
    <https://arxiv.org/abs/2101.10443>`_, 2022
  """
  check_hashable('apply_fn', apply_fn)
  layers = checked_layers(layers)
  if INPUT in layers:
    raise MetricError(
      f"{INPUT!r} stands for the pictures themselves: give the network's output"
      ' of that name another one.'
    )
  spreads: tuple[ClassSpread, ...] = ()
  for given, labels in batches:
    x = checked_pictures(given)
    if not spreads:
      like = _rows_of_layers.eval_shape(apply_fn, layers, params, x)
      spreads = tuple(
        ClassSpread.start(
          out.shape[1], num_classes, key=key, sample=sample, dtype=out.dtype
        )
        for out in like
      )
    rows = _rows_of_layers(apply_fn, layers, params, x)
    spreads = tuple(
      spread.add(row, labels) for spread, row in zip(spreads, rows, strict=True)
    )
  if not spreads:
    raise MetricError('batches has nothing in it: give at least one (x, y).')
  names = (INPUT, *layers)
  return {
    name: spread.result() for name, spread in zip(names, spreads, strict=True)
  }


@functools.partial(jax.jit, static_argnums=(0, 1))
def _rows_of_layers(apply_fn, layers, params, x) -> tuple[jax.Array, ...]:
  return tuple(map(rows_of, (x, *outputs_of(apply_fn, layers, params, x))))
