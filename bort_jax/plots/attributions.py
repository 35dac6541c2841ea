"""Figures of attribution maps."""

from collections.abc import Mapping

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from bort_jax.plots.colors import COLORMAPS, PERCENTILE, Kind, normalized
from bort_jax.plots.pictures import show_picture

_LEGENDS = {
  'signed': ('against', '0', 'for'),
  'absolute': ('none', '', 'most'),
}


def attribution_overlay(
  pictures: np.ndarray,
  attribution: np.ndarray,
  *,
  kind: Kind = 'signed',
  percentile: float = PERCENTILE,
  opacity: float = 0.85,
) -> Figure:
  """Pictures, their attribution maps, and the maps laid over the pictures.

  Each map has a scale of its own: the colour bar's ends are a percentile of its
  absolute values. In the overlay a pixel of the map is the more opaque the more
  it is worth.

  Args:
    pictures: (N, H, W, C) in 0 … 1, C one or three.
    attribution: (N, H, W, 1) or (N, H, W, C).
    kind: ``'signed'``: channels are added up, and what speaks for a class and
      against it has colours of its own. ``'absolute'``: signs are left out.
    percentile: at which colours are clipped, in (0, 100].
    opacity: of the map where it is worth most, in 0 … 1.

  Returns:
    The figure, with a row for each picture.

  Raises:
    ValueError: if shapes do not fit or numbers are not finite.

  Examples:
    >>> import numpy as np
    >>> from bort_jax import plots
    >>> pictures = np.ones((2, 4, 4, 1))
    >>> figure = plots.attribution_overlay(pictures, pictures - 0.5)
    >>> len(figure.axes)  # two rows of three, and the colour bar
    7
  """
  pictures, attribution = np.asarray(pictures), np.asarray(attribution)
  check_fits(pictures, attribution)
  values = normalized(attribution, kind, percentile)
  figure = Figure(figsize=(5, 1.6 * len(pictures) + 0.4), layout='constrained')
  panels = figure.subplots(len(pictures), 3, squeeze=False)
  for panel, heading in zip(
    panels[0], ('input', 'attribution', 'overlay'), strict=True
  ):
    panel.set_title(heading, fontsize=9)
  for row, picture, value in zip(panels, pictures, values, strict=True):
    show_picture(row[0], picture)
    _show_map(row[1], value, kind)
    show_picture(row[2], picture)
    _show_map(row[2], value, kind, opacity * np.abs(value))
  _add_color_bar(figure, panels, kind)
  return figure


def attribution_grid(
  pictures: np.ndarray,
  attributions: Mapping[str, np.ndarray],
  *,
  kind: Kind | Mapping[str, Kind] = 'signed',
  percentile: float = PERCENTILE,
) -> Figure:
  """A row for each picture, a column for each method's map of it.

  Args:
    pictures: (N, H, W, C) in 0 … 1, C one or three.
    attributions: maps (N, H, W, 1) or (N, H, W, C) by the name of their method.
    kind: see :func:`attribution_overlay`; one for all methods, or by name.
    percentile: at which the colours of each map are clipped.

  Returns:
    The figure.

  Raises:
    ValueError: if there is no method, shapes do not fit or numbers are not
      finite.

  Examples:
    >>> import numpy as np
    >>> from bort_jax import plots
    >>> pictures = np.ones((2, 4, 4, 1))
    >>> figure = plots.attribution_grid(pictures, {'gradient': pictures})
    >>> [panel.get_title() for panel in figure.axes[:2]]
    ['input', 'gradient']
  """
  if not attributions:
    raise ValueError('Give at least one method in attributions.')
  pictures = np.asarray(pictures)
  kinds: dict[str, Kind] = {
    name: kind[name] if isinstance(kind, Mapping) else kind
    for name in attributions
  }
  columns = 1 + len(attributions)
  figure = Figure(
    figsize=(1.3 * columns, 1.4 * len(pictures) + 0.3), layout='constrained'
  )
  panels = figure.subplots(len(pictures), columns, squeeze=False)
  panels[0, 0].set_title('input', fontsize=8)
  for panel, picture in zip(panels[:, 0], pictures, strict=True):
    show_picture(panel, picture)
  for column, (name, maps) in zip(
    panels.T[1:], attributions.items(), strict=True
  ):
    maps = np.asarray(maps)
    check_fits(pictures, maps, name)
    column[0].set_title(name, fontsize=8)
    for panel, value in zip(
      column, normalized(maps, kinds[name], percentile), strict=True
    ):
      _show_map(panel, value, kinds[name])
  return figure


def check_fits(
  pictures: np.ndarray, attribution: np.ndarray, name: str = 'attribution'
) -> None:
  """Refuses maps that are not those of the pictures."""
  if pictures.ndim != 4 or pictures.shape[-1] not in (1, 3):
    raise ValueError(
      'pictures must have shape (N, H, W, C) with one channel or three, got'
      f' {pictures.shape}.'
    )
  allowed = (pictures.shape, (*pictures.shape[:-1], 1))
  if attribution.shape not in allowed:
    raise ValueError(
      f'{name} has shape {attribution.shape}; for pictures of shape'
      f' {pictures.shape} it must be {" or ".join(map(str, allowed))}.'
    )


def _show_map(
  panel, values: np.ndarray, kind: Kind, opacity: np.ndarray | None = None
) -> None:
  panel.imshow(
    values,
    cmap=COLORMAPS[kind],
    vmin=-1 if kind == 'signed' else 0,
    vmax=1,
    alpha=opacity,
    interpolation='nearest',
  )
  panel.set(xticks=[], yticks=[])


def _add_color_bar(figure: Figure, panels: np.ndarray, kind: Kind) -> None:
  low = -1 if kind == 'signed' else 0
  colors = ScalarMappable(Normalize(low, 1), COLORMAPS[kind])
  bar = figure.colorbar(colors, ax=panels, shrink=0.8, aspect=30)
  bar.set_ticks([low, (low + 1) / 2, 1], labels=_LEGENDS[kind])
