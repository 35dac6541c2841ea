"""How much of B-cos networks is judged, and what it is called."""

import dataclasses
from typing import Literal, get_args

COSINE = 'largest cos of two units'
GRIDS = 2, 3
Posthoc = Literal[
  'gradient × input', 'integrated gradients', 'Grad-CAM', 'guided backprop'
]


@dataclasses.dataclass(frozen=True)
class Scope:
  """How much is judged.

  Attributes:
    mosaics: most of each grid, for the network's own explanations.
    posthoc: which post-hoc methods are judged beside.
    posthoc_mosaics: how many of them for post-hoc methods, which take longer.
    confidence: sigmoid of the logit above which a picture is sure; None takes
      all that are predicted right, as networks of few epochs need it.
    smooth: side of the average before maps are judged; 1 as for CIFAR.
    steps: of integrated gradients.
    perturbed: pictures whose pixels are taken away.
    inverted: pictures that are run backwards.
    layers: to which they are run and from which they come back; ``'last'`` is
      the last block.
    max_steps: most iterations in a segment on the way back.
  """

  mosaics: int = 50
  posthoc: tuple[Posthoc, ...] = get_args(Posthoc)
  posthoc_mosaics: int = 12
  confidence: float | None = 0.5
  smooth: int = 1
  steps: int = 8
  perturbed: int = 32
  inverted: int = 4
  layers: tuple[str, ...] = ('stem', 'stage1/block1')
  max_steps: int = 20


def among(grid: int) -> str:
  """Name of the measure of own explanations where others are judged too."""
  return f'localisation {grid} among others'


def names_of(scope: Scope) -> list[str]:
  """What is measured of each network."""
  return [
    COSINE,
    'alignment',
    *(f'localisation {grid}' for grid in GRIDS),
    *map(among, GRIDS),
    'perturbation',
    *(f'back from {layer}' for layer in scope.layers),
  ]
