"""Figures of runs. Each function returns a matplotlib figure, unsaved."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bort_jax.metrics import ReconstructionError
from bort_jax.train.comparison import CONTROL, Comparison
from bort_jax.train.metrics import Epoch, Step

_LABELS = {
  'sgd': 'SGD',
  'adamw': 'AdamW',
  'lamb': 'LAMB',
  'muon': 'Muon',
  'bort': 'Bort',
  CONTROL: 'untrained (control)',
}
_HARD = 'Bort (hard)'


def label_of(network: str, constraint: str) -> str:
  """How figures and tables call a network of a run under a constraint."""
  is_hard = network == 'bort' and constraint == 'hard'
  return _HARD if is_hard else _LABELS[network]


def _colors(labels: Iterable[str]) -> dict[str, str]:
  """The colour of each network: always the same for those of one run."""
  borts = {_HARD, _LABELS['bort']}
  if set(labels) <= {*borts, *_LABELS.values()}:
    return {label: 'C0' if label in borts else 'C1' for label in labels}
  return {label: f'C{i}' for i, label in enumerate(labels)}


def comparison_figures(comparison: Comparison) -> dict[str, Figure]:
  """All figures of a comparison, by the name of their file."""
  named = lambda by_network: {
    label_of(network, comparison.config.constraint): value
    for network, value in by_network.items()
  }
  fits = named(comparison.fits)
  histories = {label: fit.epochs for label, fit in fits.items()}
  steps = {label: fit.steps for label, fit in fits.items()}
  figures = {
    'curves': training_curves(steps, histories),
    'singular_values': singular_values_over_training(histories),
  }
  if comparison.reconstructions:
    figures['reconstructions'] = reconstructions(
      comparison.pictures,
      named(comparison.reconstructions),
      named(comparison.errors),
    )
  return figures


def training_curves(
  steps: Mapping[str, Sequence[Step]], epochs: Mapping[str, Sequence[Epoch]]
) -> Figure:
  """Training loss by step, and test accuracy by epoch, by label of network."""
  figure = Figure(figsize=(8, 3), layout='constrained')
  loss, accuracy = figure.subplots(1, 2)
  colors = _colors(steps)
  for label, history in steps.items():
    color = colors[label]
    numbers = [step.step for step in history]
    losses = np.array([step.loss for step in history])
    loss.plot(numbers, losses, color=color, alpha=0.25, linewidth=0.8)
    loss.plot(numbers, _smooth(losses), color=color, label=label)
    accuracy.plot(
      [epoch.epoch for epoch in epochs[label]],
      [100 * epoch.test_accuracy for epoch in epochs[label]],
      color=color,
      label=label,
    )
  loss.set(xlabel='step', ylabel='training loss', yscale='log')
  late = [e.test_accuracy for h in epochs.values() for e in h[len(h) // 4 :]]
  accuracy.set(xlabel='epoch', ylabel='test accuracy (%)')
  top = min(accuracy.get_ylim()[1], 100)
  accuracy.set_ylim(100 * min(late) - 1, top)  # not the start, far below
  accuracy.xaxis.set_major_locator(MaxNLocator(integer=True))
  accuracy.legend(frameon=False)
  return figure


def singular_values_over_training(
  histories: Mapping[str, Sequence[Epoch]], columns: int = 6
) -> Figure:
  """The range and the median of each kernel's singular values, by epoch.

  Args:
    histories: the epochs of every network, by its label.
    columns: panels in a row.

  Returns:
    The figure, with a panel for every kernel.
  """
  measured = {
    label: [epoch for epoch in epochs if epoch.kernels]
    for label, epochs in histories.items()
  }
  kernels = list(next(iter(measured.values()))[0].kernels)
  rows = -(-len(kernels) // columns)
  columns = min(columns, len(kernels))
  colors = _colors(measured)
  figure = Figure(figsize=(1.9 * columns, 2.4 * rows), layout='constrained')
  panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
  for panel, kernel in zip(panels.flat, kernels, strict=False):
    for label, epochs in measured.items():
      numbers = [epoch.epoch for epoch in epochs]
      low, middle, high, _ = np.array(
        [epoch.kernels[kernel] for epoch in epochs]
      ).T
      color = colors[label]
      panel.fill_between(numbers, low, high, color=color, alpha=0.25)
      panel.plot(numbers, middle, color=color, label=label)
    panel.set_title(kernel.removesuffix('/kernel'), fontsize=9)
    panel.set(xlabel='epoch')
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
  for panel in panels.flat[len(kernels) :]:
    panel.set_axis_off()
  for row in panels:
    row[0].set(ylabel='singular values')
  panels[0, 0].legend(frameon=False, fontsize=8)
  return figure


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
  """(N, 1, 1, 1): what brings each result closest to its picture."""
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
    _show(panel, pictures[i])
    if errors is not None:
      panel.set_xlabel(f'error {errors[i]:.2f}', fontsize=7, labelpad=2)


def _smooth(values: np.ndarray, width: int = 20) -> np.ndarray:
  """Running mean over at most the last ``width`` values."""
  sums = np.cumsum(np.insert(values, 0, 0.0))
  ends = np.arange(1, len(values) + 1)
  starts = np.maximum(ends - width, 0)
  return (sums[ends] - sums[starts]) / (ends - starts)


def inversions(
  pictures: np.ndarray,
  results: Mapping[str, np.ndarray],
  errors: Mapping[str, ReconstructionError],
) -> Figure:
  """A row for each picture, a column for each way it came back.

  Nothing is rescaled for display. Under each stand its raw and scale-fitted
  relative error and its correlation.

  Args:
    pictures: (N, H, W, C) in 0 … 1, C one or three.
    results: what came back, by the heading of its column.
    errors: their errors.

  Returns:
    The figure.
  """
  figure = picture_grid({'input': pictures, **results})
  panels = np.array(figure.axes).reshape(len(pictures), -1)
  for column, heading in zip(panels.T[1:], results, strict=True):
    for panel, numbers in zip(
      column, zip(*errors[heading], strict=True), strict=False
    ):
      text = ' · '.join(f'{number:.2f}' for number in numbers)
      panel.set_xlabel(text, fontsize=7)
  return figure


def picture_grid(columns: Mapping[str, np.ndarray]) -> Figure:
  """A column for each heading, a row for each of its pictures, as they are.

  Args:
    columns: pictures (N, H, W, C) in 0 … 1, by heading; C one or three.

  Returns:
    The figure.
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
      _show(panel, picture)
  return figure


def _show(panel, picture: np.ndarray) -> None:
  shown = np.clip(picture, 0, 1).squeeze()
  panel.imshow(shown, cmap='gray', vmin=0, vmax=1)
  panel.set(xticks=[], yticks=[])
