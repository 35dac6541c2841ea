"""Figures of pictures and of what came back of them."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from bort_jax.metrics import ReconstructionError


def reconstructions(
  pictures: np.ndarray,
  results: Mapping[str, np.ndarray],
  errors: Mapping[str, ReconstructionError],
  columns: int = 8,
) -> Figure:
  """Pictures above their reconstructions by each network, raw and scaled.

  In a first row nothing is rescaled for display: a faint reconstruction looks
  faint. In a second each is multiplied by the number that brings it closest to
  its picture. Under each stands its relative error.

  Args:
    pictures: (N, H, W, C) in 0 … 1, C one or three.
    results: each network's reconstructions, of the same shape, by its label.
    errors: each network's errors.
    columns: pictures shown.

  Returns:
    The figure.

  Examples:
    >>> import numpy as np
    >>> from bort_jax import metrics, plots
    >>> x = np.random.default_rng(0).uniform(size=(3, 8, 8, 1))
    >>> back = {'Bort': x / 2}
    >>> errors = {'Bort': metrics.reconstruction_error(x, x / 2)}
    >>> len(plots.reconstructions(x, back, errors).axes)  # 3 rows of 3
    9
  """
  columns = min(columns, len(pictures))
  figure = Figure(
    figsize=(1.05 * columns + 1.2, 1.3 * (1 + 2 * len(results))),
    layout='constrained',
  )
  rows = figure.subplots(1 + 2 * len(results), columns, squeeze=False)
  _show_row(rows[0], 'input', pictures)
  for i, (name, shown) in enumerate(results.items()):
    label = name.replace(' (', '\n(')
    error = errors[name]
    _show_row(rows[2 * i + 1], label, shown, error.raw)
    scaled = best_scale(pictures, shown) * shown
    _show_row(
      rows[2 * i + 2], f'{label}\nbest scale', scaled, error.scale_fitted
    )
  return figure


def best_scale(pictures: np.ndarray, results: np.ndarray) -> np.ndarray:
  """What brings each result closest to its picture.

  Args:
    pictures: (N, H, W, C).
    results: (N, H, W, C).

  Returns:
    (N, 1, 1, 1) the factors; 0 where a result is zero.

  Examples:
    >>> import numpy as np
    >>> from bort_jax import plots
    >>> x = np.ones((1, 2, 2, 1))
    >>> float(plots.best_scale(x, x / 4).squeeze())
    4.0
  """
  axes = (1, 2, 3)
  inner = np.sum(pictures * results, axes, keepdims=True)
  return inner / np.maximum(np.sum(results**2, axes, keepdims=True), 1e-30)


def _show_row(panels, label: str, pictures: np.ndarray, errors=None) -> None:
  panels[0].set_ylabel(
    label,
    rotation=0,
    horizontalalignment='right',
    verticalalignment='center',
  )
  for i, panel in enumerate(panels):
    show_picture(panel, pictures[i])
    if errors is not None:
      panel.set_xlabel(f'error {errors[i]:.2f}', fontsize=7, labelpad=2)


def inversions(
  pictures: np.ndarray,
  results: Mapping[str, np.ndarray],
  errors: Mapping[str, ReconstructionError],
  *,
  rescaled: bool = False,
) -> Figure:
  """A row for each picture, a column for each way it came back.

  Under each stand, where they are defined, its raw and scale-fitted relative
  error, its correlation and its structural similarity.

  Args:
    pictures: (N, H, W, C) in 0 … 1, C one or three.
    results: what came back, by the heading of its column.
    errors: their errors.
    rescaled: whether each is multiplied by the number that brings it closest to
      its picture; else a faint one looks faint.

  Returns:
    The figure.

  Examples:
    >>> import numpy as np
    >>> from bort_jax import metrics, plots
    >>> x = np.random.default_rng(0).uniform(size=(3, 8, 8, 1))
    >>> errors = {'half': metrics.reconstruction_error(x, x / 2)}
    >>> len(plots.inversions(x, {'half': x / 2}, errors).axes)
    6
  """
  shown = {
    name: best_scale(pictures, result) * result if rescaled else result
    for name, result in results.items()
  }
  figure = picture_grid({'input': pictures, **shown})
  panels = np.array(figure.axes).reshape(len(pictures), -1)
  for column, heading in zip(panels.T[1:], results, strict=True):
    for panel, numbers in zip(
      column, zip(*errors[heading], strict=True), strict=False
    ):
      defined = [number for number in numbers if not np.isnan(number)]
      text = ' · '.join(f'{number:.2f}' for number in defined)
      panel.set_xlabel(text, fontsize=7)
  return figure


def picture_grid(columns: Mapping[str, np.ndarray]) -> Figure:
  """A column for each heading, a row for each of its pictures, as they are.

  Args:
    columns: pictures (N, H, W, C) in 0 … 1, by heading; C one or three.

  Returns:
    The figure.

  Examples:
    >>> import numpy as np
    >>> from bort_jax import plots
    >>> x = np.random.default_rng(0).uniform(size=(3, 8, 8, 1))
    >>> len(plots.picture_grid({'input': x, 'darker': x / 2}).axes)
    6
  """
  rows = len(next(iter(columns.values())))
  figure = Figure(
    figsize=(1.5 * len(columns), 1.75 * rows), layout='constrained'
  )
  panels = figure.subplots(rows, len(columns), squeeze=False)
  for column, (heading, pictures) in zip(
    panels.T, columns.items(), strict=True
  ):
    column[0].set_title(heading, fontsize=9)
    for panel, picture in zip(column, pictures, strict=True):
      show_picture(panel, picture)
  return figure


def show_picture(panel, picture: np.ndarray) -> None:
  """Draws a picture (H, W, C) in 0 … 1 as it is, without ticks."""
  shown = np.clip(picture, 0, 1).squeeze()
  panel.imshow(shown, cmap='gray', vmin=0, vmax=1)
  panel.set(xticks=[], yticks=[])
