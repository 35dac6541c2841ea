"""Figures of runs. Each function returns a matplotlib figure, unsaved."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from bort_jax.nn import SimpleCNN
from bort_jax.train.comparison import CONTROL, Comparison
from bort_jax.train.loop import Fit
from bort_jax.train.reconstruction import ReconstructionError

LABELS = {
  'adamw': 'AdamW',
  'bort': 'AdamW + Bort',
  CONTROL: 'untrained (control)',
}
_COLORS = {'adamw': 'C1', 'bort': 'C0'}


def comparison_figures(comparison: Comparison) -> dict[str, Figure]:
  """All figures of a comparison, by the name of their file."""
  return {
    'curves': training_curves(comparison.fits),
    'singular_values': singular_values_over_training(comparison.fits),
    'reconstructions': reconstructions(
      comparison.pictures, comparison.reconstructions, comparison.errors
    ),
  }


def training_curves(fits: Mapping[str, Fit]) -> Figure:
  """Training loss by step, and test accuracy by epoch, of every network."""
  figure = Figure(figsize=(8, 3), layout='constrained')
  loss, accuracy = figure.subplots(1, 2)
  for network, fit in fits.items():
    style = {'color': _COLORS[network], 'label': LABELS[network]}
    steps = [step.step for step in fit.steps]
    losses = np.array([step.loss for step in fit.steps])
    loss.plot(steps, losses, color=style['color'], alpha=0.25, linewidth=0.8)
    loss.plot(steps, _smooth(losses), **style)
    accuracy.plot(
      [epoch.epoch for epoch in fit.epochs],
      [100 * epoch.test_accuracy for epoch in fit.epochs],
      **style,
    )
  loss.set(xlabel='step', ylabel='training loss', yscale='log')
  accuracy.set(xlabel='epoch', ylabel='test accuracy (%)')
  accuracy.legend(frameon=False)
  return figure


def singular_values_over_training(fits: Mapping[str, Fit]) -> Figure:
  """The range and the median of each layer's singular values, by epoch."""
  layers = SimpleCNN.layers
  figure = Figure(figsize=(1.9 * len(layers), 2.4), layout='constrained')
  panels = figure.subplots(1, len(layers), sharey=True)
  for panel, layer in zip(panels, layers, strict=True):
    kernel = f'{layer}/kernel'
    for network, fit in fits.items():
      epochs = [epoch.epoch for epoch in fit.epochs]
      values = np.stack([epoch.singular_values[kernel] for epoch in fit.epochs])
      color = _COLORS[network]
      panel.fill_between(
        epochs, values.min(1), values.max(1), color=color, alpha=0.25
      )
      panel.plot(
        epochs, np.median(values, 1), color=color, label=LABELS[network]
      )
    panel.set(title=layer, xlabel='epoch')
  panels[0].set(ylabel='singular values', ylim=(0, None))
  panels[0].legend(frameon=False, fontsize=8)
  return figure


def reconstructions(
  pictures: np.ndarray,
  results: Mapping[str, np.ndarray],
  errors: Mapping[str, ReconstructionError],
  columns: int = 8,
) -> Figure:
  """Pictures above their reconstructions by each network, as they are.

  Nothing is rescaled for display: a faint reconstruction looks faint. Under
  each stand its relative error as it is, and, in parentheses, after the best
  scale.

  Args:
    pictures: (N, H, W, C) in 0 … 1, C one or three.
    results: each network's reconstructions, of the same shape.
    errors: each network's errors.
    columns: pictures shown.

  Returns:
    The figure.
  """
  columns = min(columns, len(pictures))
  rows = {'input': pictures, **results}
  figure = Figure(
    figsize=(1.05 * columns + 1.2, 1.35 * len(rows)), layout='constrained'
  )
  axes = figure.subplots(len(rows), columns, squeeze=False)
  for row, (network, shown) in zip(axes, rows.items(), strict=True):
    row[0].set_ylabel(
      LABELS.get(network, network).replace(' (', '\n('),
      rotation=0,
      horizontalalignment='right',
      verticalalignment='center',
    )
    for i, panel in enumerate(row):
      panel.imshow(
        np.clip(shown[i], 0, 1).squeeze(), cmap='gray', vmin=0, vmax=1
      )
      panel.set(xticks=[], yticks=[])
      if network in errors:
        raw, fitted = (error[i] for error in errors[network])
        panel.set_xlabel(f'{raw:.2g} ({fitted:.2f})', fontsize=7, labelpad=2)
  return figure


def _smooth(values: np.ndarray, width: int = 20) -> np.ndarray:
  """Running mean over at most the last ``width`` values."""
  sums = np.cumsum(np.insert(values, 0, 0.0))
  ends = np.arange(1, len(values) + 1)
  starts = np.maximum(ends - width, 0)
  return (sums[ends] - sums[starts]) / (ends - starts)
