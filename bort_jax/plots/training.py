"""Figures of how training went."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bort_jax.plots.labels import colors_of, label_of
from bort_jax.plots.pictures import reconstructions
from bort_jax.train.comparison import Comparison
from bort_jax.train.metrics import Epoch, Step


def comparison_figures(comparison: Comparison) -> dict[str, Figure]:
  """All figures of a comparison, by the name of their file.

  Args:
    comparison: what ``train.train`` returns of a run with ``compare=True``.

  Returns:
    ``'curves'``, ``'singular_values'`` and, where the network can be run
    backwards, ``'reconstructions'``.

  Examples:
    >>> import pathlib
    >>> import numpy as np
    >>> from bort_jax import plots
    >>> from bort_jax.train import TrainConfig
    >>> from bort_jax.train.comparison import Comparison
    >>> from bort_jax.train.loop import Fit
    >>> from bort_jax.train.metrics import Epoch, Spread, Step
    >>> kernels = {'conv/kernel': Spread(1.0, 1.0, 1.0, 0.0)}
    >>> epochs = [Epoch(i, i, 2.3 - i, 0.5, kernels) for i in range(2)]
    >>> fit = Fit(None, None, None, [Step(1, 2.3, 0.1)], epochs, 1.0)
    >>> comparison = Comparison(
    ...   run_dir=pathlib.Path('runs/digits'),
    ...   rows=(),
    ...   fits={'bort': fit},
    ...   pictures=np.zeros((0, 8, 8, 1)),
    ...   reconstructions={},
    ...   errors={},
    ...   config=TrainConfig(),
    ... )
    >>> sorted(plots.comparison_figures(comparison))
    ['curves', 'singular_values']
  """
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
  """Training loss by step, and test accuracy by epoch.

  Args:
    steps: what is known of the steps of every network, by its label.
    epochs: and of its epochs.

  Returns:
    The figure.

  Examples:
    >>> from bort_jax import plots
    >>> from bort_jax.train.metrics import Epoch, Step
    >>> steps = {'Bort': [Step(1, 2.3, 0.1), Step(2, 2.0, 0.3)]}
    >>> epochs = {
    ...   'Bort': [Epoch(0, 0, 2.3, 0.1, {}), Epoch(1, 2, 1.9, 0.4, {})]
    ... }
    >>> len(plots.training_curves(steps, epochs).axes)
    2
  """
  figure = Figure(figsize=(8, 3), layout='constrained')
  loss, accuracy = figure.subplots(1, 2)
  colors = colors_of(steps)
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

  Examples:
    >>> from bort_jax import plots
    >>> from bort_jax.train.metrics import Epoch, Spread
    >>> spreads = Spread(0.9, 1.0, 1.2, 0.3), Spread(1.0, 1.0, 1.0, 0.0)
    >>> epochs = [
    ...   Epoch(i, i, 1.0, 0.5, {'conv/kernel': spread})
    ...   for i, spread in enumerate(spreads)
    ... ]
    >>> figure = plots.singular_values_over_training({'Bort': epochs})
    >>> figure.axes[0].get_title()
    'conv'
  """
  measured = {
    label: [epoch for epoch in epochs if epoch.kernels]
    for label, epochs in histories.items()
  }
  kernels = list(next(iter(measured.values()))[0].kernels)
  rows = -(-len(kernels) // columns)
  columns = min(columns, len(kernels))
  colors = colors_of(measured)
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
    panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))  # narrow
  for panel in panels.flat[len(kernels) :]:
    panel.set_axis_off()
  for row in panels:
    row[0].set(ylabel='singular values')
  panels[0, 0].legend(frameon=False, fontsize=8)
  return figure


def _smooth(values: np.ndarray, width: int = 20) -> np.ndarray:
  """Running mean over at most the last ``width`` values."""
  sums = np.cumsum(np.insert(values, 0, 0.0))
  ends = np.arange(1, len(values) + 1)
  starts = np.maximum(ends - width, 0)
  return (sums[ends] - sums[starts]) / (ends - starts)
