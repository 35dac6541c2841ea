"""What a pass over a data set has found of units."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax.inversion import Layer
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.moments import Moments
from bort_jax.metrics.neurons.likeness import Likeness
from bort_jax.metrics.neurons.top import Units, best_of

_static = {'static': True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Survey:
  """What activates the units of some layers most, of all pictures seen."""

  units: tuple[Units, ...]  # of each layer
  counts: jax.Array  # (K,) int, pictures of each class
  layers: tuple[Layer, ...] = dataclasses.field(metadata=_static)
  maps: tuple[tuple[int, ...], ...] = dataclasses.field(metadata=_static)
  """The axes of each layer between pictures and units: (h, w), or ()."""

  def __getitem__(self, layer: Layer) -> Units:
    """The units of a layer."""
    return self.units[self._number(layer)]

  def places(self, layer: Layer) -> np.ndarray:
    """(U, k, axes) int, where in its map each maximum is; −1: none."""
    flat = np.asarray(self[layer].places)
    grid = self.maps[self._number(layer)]
    if not grid:
      return np.zeros((*flat.shape, 0), int)
    found = np.stack(np.unravel_index(np.maximum(flat, 0), grid), axis=-1)
    return np.where(flat[..., None] < 0, -1, found)

  def _number(self, layer: Layer) -> int:
    if layer not in self.layers:
      names = ', '.join(map(repr, self.layers))
      raise MetricError(f'Layer {layer!r} was not surveyed; {names} were.')
    return self.layers.index(layer)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PairSurvey:
  """The same of pictures and of adversarial ones, and how like they are."""

  real: Survey
  adversarial: Survey  # pictures are numbered as the real ones they are of
  likeness: tuple[Likeness, ...]  # of each layer
  change: Moments  # ‖x − x*‖ in the 2-norm

  @property
  def both(self) -> Survey:
    """Of real and adversarial pictures together, see :func:`merged`."""
    return merged(self.real, self.adversarial)


def merged(one: Survey, other: Survey) -> Survey:
  """The survey of two streams, one after the other.

  Pictures of the second are numbered after those of the first. What it gives
  for the halves of a stream is the survey of the whole.

  Args:
    one: of the first stream.
    other: of the second, with the same layers, classes and counts.

  Returns:
    That of both.

  Raises:
    MetricError: if they are not of the same layers, classes and counts.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics import neurons
    >>> outputs = lambda params, x: {'sum': x.sum((1, 2)) @ params}
    >>> of = lambda *numbers: neurons.survey(
    ...   outputs,
    ...   jnp.ones((1, 1)),
    ...   [(jnp.array(numbers).reshape(-1, 1, 1, 1), jnp.arange(2))],
    ...   num_classes=2,
    ...   count=1,
    ... )
    >>> neurons.merged(of(1.0, 3.0), of(5.0, 2.0))['sum'].pictures.tolist()
    [[2]]
  """
  shapes = lambda tree: jax.tree.map(jnp.shape, tree)
  if shapes(one) != shapes(other):
    raise MetricError(
      'Surveys can be merged if they are of the same layers, classes and count'
      ' of top pictures; got'
      f' {" and ".join(map(_kind, (one, other)))}.'
    )
  return _merged(one, other)


def _kind(survey: Survey) -> str:
  tops = sorted({survey[layer].pictures.shape for layer in survey.layers})
  return (
    f'layers {survey.layers} of (units, count) {tops} with'
    f' {len(survey.counts)} classes'
  )


@jax.jit
def _merged(one: Survey, other: Survey) -> Survey:
  seen = jnp.sum(one.counts)
  later = lambda numbers: jnp.where(numbers < 0, numbers, numbers + seen)
  units = tuple(
    best_of(a, b._replace(pictures=later(b.pictures)))
    for a, b in zip(one.units, other.units, strict=True)
  )
  counts = one.counts + other.counts
  return dataclasses.replace(one, units=units, counts=counts)
