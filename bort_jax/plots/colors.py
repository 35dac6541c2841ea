"""Colours of maps and lines, which the colour-blind can tell apart."""

from typing import Literal, TypeAlias, get_args

import numpy as np
from matplotlib import colormaps

Kind: TypeAlias = Literal['signed', 'absolute']

# Orange for a class and purple against it; dark blue to yellow for amounts.
COLORMAPS = {'signed': 'PuOr_r', 'absolute': 'cividis'}
PERCENTILE = 99.0
# Of lines: the palette of Okabe and Ito, less its yellow, faint on white.
OKABE_ITO = (
  '#0072B2',
  '#D55E00',
  '#009E73',
  '#CC79A7',
  '#56B4E9',
  '#E69F00',
  '#000000',
)


def flat_map(attribution: np.ndarray, kind: Kind = 'signed') -> np.ndarray:
  """One number for each pixel of attribution maps.

  Args:
    attribution: (..., H, W, C) finite numbers.
    kind: ``'signed'`` adds the channels up; ``'absolute'`` adds up what is left
      of them without their signs.

  Returns:
    (..., H, W) float64.

  Raises:
    ValueError: for another kind, fewer than three axes, or numbers that are not
      finite.

  Examples:
    >>> import numpy as np
    >>> from bort_jax.plots.colors import flat_map
    >>> attribution = np.array([[[1.0, -3.0]]])
    >>> flat_map(attribution).item(), flat_map(attribution, 'absolute').item()
    (-2.0, 4.0)
  """
  if kind not in get_args(Kind):
    raise ValueError(
      f'kind must be one of {", ".join(get_args(Kind))}, got {kind!r}.'
    )
  attribution = np.asarray(attribution, np.float64)
  if attribution.ndim < 3:
    raise ValueError(
      'An attribution has shape (..., H, W, C), got'
      f' {attribution.shape}: add an axis for the channels.'
    )
  if not np.all(np.isfinite(attribution)):
    raise ValueError(
      'The attribution has numbers that are not finite, for which there is no'
      ' colour: look for what made them.'
    )
  values = attribution if kind == 'signed' else np.abs(attribution)
  return values.sum(-1)


def clip_scale(values: np.ndarray, percentile: float = PERCENTILE) -> float:
  """What the ends of a colour bar stand for, so that few pixels rule no map.

  Args:
    values: a map of any shape.
    percentile: of its absolute values, in (0, 100].

  Returns:
    That percentile; where it is zero the largest absolute value, and 1 for a
    map of zeros.

  Raises:
    ValueError: if the percentile is outside its range.
  """
  if not 0 < percentile <= 100:
    raise ValueError(f'percentile must be in (0, 100], got {percentile!r}.')
  sizes = np.abs(values)
  return float(np.percentile(sizes, percentile) or sizes.max() or 1.0)


def normalized(
  attribution: np.ndarray, kind: Kind, percentile: float = PERCENTILE
) -> np.ndarray:
  """Maps over their clip scale, each by itself, as they are coloured.

  Args:
    attribution: (N, H, W, C).
    kind: see :func:`flat_map`.
    percentile: see :func:`clip_scale`.

  Returns:
    (N, H, W) in −1 … 1, or 0 … 1 for ``'absolute'``.
  """
  maps = flat_map(attribution, kind)
  scales = np.array([clip_scale(one, percentile) for one in maps])
  return np.clip(maps / scales.reshape(-1, 1, 1), -1, 1)


def map_colors(
  attribution: np.ndarray, kind: Kind, percentile: float = PERCENTILE
) -> np.ndarray:
  """The colours of attribution maps.

  Args:
    attribution: (N, H, W, C).
    kind: see :func:`flat_map`.
    percentile: see :func:`clip_scale`.

  Returns:
    (N, H, W, 3) uint8.

  Examples:
    >>> import numpy as np
    >>> from bort_jax import plots
    >>> plots.map_colors(np.zeros((1, 1, 1, 1)), 'signed').ravel().tolist()
    [247, 246, 245]
  """
  values = normalized(attribution, kind, percentile)
  shares = (values + 1) / 2 if kind == 'signed' else values
  return colormaps[COLORMAPS[kind]](shares, bytes=True)[..., :3]
