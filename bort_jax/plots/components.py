"""Figures of pictures taken apart into their symmetry components."""

import jax
import numpy as np
from matplotlib.figure import Figure

from bort_jax import symmetry
from bort_jax.plots.colors import COLORMAPS, clip_scale
from bort_jax.plots.pictures import show_picture
from bort_jax.symmetry import Group


def symmetry_components(
  pictures: np.ndarray, group: Group, *, most: int = 8
) -> Figure:
  """Each picture, its symmetry components, and their sum: a row for each.

  Components of pictures of several channels are drawn as their mean channel.
  All of a row have one scale: orange where they brighten the picture, purple
  where they darken it. Under each stands its share of the picture's energy; the
  shares add up to one, as the parts are orthogonal. Under the sum stands how
  far it is from the picture. The split is computed in float64.

  Args:
    pictures: (N, H, W, C) in 0 … 1, C one or three.
    group: the group.
    most: most components drawn; of more, those of most energy in all pictures.

  Returns:
    The figure.

  Raises:
    ValueError: if the group cannot act on the pictures, or they have another
      shape.

  Examples:
    >>> import numpy as np
    >>> from bort_jax import plots, symmetry
    >>> x = np.linspace(0, 1, 16).reshape(1, 4, 4, 1)
    >>> figure = plots.symmetry_components(x, symmetry.C4)
    >>> [panel.get_title() for panel in figure.axes]
    ['picture', 'A', 'B', 'E', 'sum']
  """
  pictures = np.asarray(pictures, np.float64)
  if pictures.ndim != 4 or pictures.shape[-1] not in (1, 3):
    raise ValueError(
      'pictures must be (N, H, W, 1) or (N, H, W, 3), got'
      f' {list(pictures.shape)}: add an axis with pictures[None].'
    )
  with jax.enable_x64(True):
    parts = np.asarray(symmetry.split(group, pictures))
    total = np.asarray(symmetry.join(parts))
  shares = _energies(parts) / np.maximum(_energies(pictures), 1e-300)
  drawn = np.sort(np.argsort(-shares.sum(1), kind='stable')[:most])
  figure = Figure(
    figsize=(1.35 * (len(drawn) + 2), 1.6 * len(pictures) + 0.2),
    layout='constrained',
  )
  panels = figure.subplots(len(pictures), len(drawn) + 2, squeeze=False)
  headings = ['picture', *(group.components[k] for k in drawn), 'sum']
  for panel, heading in zip(panels[0], headings, strict=True):
    panel.set_title(heading, fontsize=9)
  for i, row in enumerate(panels):
    _draw_row(row, pictures[i], parts[drawn, i], shares[drawn, i], total[i])
  return figure


def _draw_row(panels, picture, parts, shares, total) -> None:
  show_picture(panels[0], picture)
  scale = clip_scale(np.mean(parts, axis=-1), 100)
  for panel, part, share in zip(panels[1:-1], parts, shares, strict=True):
    panel.imshow(
      np.mean(part, axis=-1), cmap=COLORMAPS['signed'], vmin=-scale, vmax=scale
    )
    panel.set(xticks=[], yticks=[])
    panel.set_xlabel(f'{share:.1%}', fontsize=7, labelpad=2)
  show_picture(panels[-1], total)
  error = np.max(np.abs(total - picture))
  panels[-1].set_xlabel(f'error {error:.0e}', fontsize=7, labelpad=2)


def _energies(values: np.ndarray) -> np.ndarray:
  return np.sum(values**2, axis=(-3, -2, -1))
