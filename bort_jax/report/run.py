"""What a report says of the run itself."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from bort_jax import plots
from bort_jax.report.html import Table
from bort_jax.report.page import Drawing
from bort_jax.report.png import encode_figure
from bort_jax.train.comparison import CONTROL, Row
from bort_jax.train.config import TrainConfig
from bort_jax.train.metrics import Epoch, read_metrics
from bort_jax.train.report import Restored


def summary_of(run: Restored) -> str:
  """The run in one sentence."""
  config = run.config
  size = '×'.join(map(str, run.source.image_shape))
  return (
    f'{config.model} on {config.data}: pictures of {size},'
    f' {run.source.num_classes} classes, {config.num_epochs} epochs; constraint'
    f' {config.constraint}, optimizer {config.optimizer}.'
  )


def settings_of(config: TrainConfig) -> list[tuple[str, str]]:
  """What is set, by the names of the command line's options."""
  return list(_options(dataclasses.asdict(config)))


def _options(settings: Mapping[str, Any], prefix: str = ''):
  for name, value in settings.items():
    option = prefix + name.replace('_', '-')
    if isinstance(value, Mapping):
      yield from _options(value, f'{option}.')
    elif isinstance(value, bool):
      yield option, 'yes' if value else 'no'
    elif isinstance(value, tuple):
      yield option, ' '.join(map(str, value)) or 'none'
    else:
      yield option, 'not set' if value is None else str(value)


def run_table(run: Restored) -> Table:
  """What the run has written of each checkpoint, and of the control."""
  config = run.config
  results = _results(config)
  rows = []
  for name, step in run.steps.items():
    _, epochs = read_metrics(_directory(config), name)
    epoch = next((e for e in epochs if e.step == step), None)
    ended = step == config.num_epochs * run.source.steps_per_epoch
    rows.append(_row(name, step, epoch, results.get(name) if ended else None))
  if CONTROL in results:
    rows.append(_row(CONTROL, 0, None, results[CONTROL]))
  named = [
    [plots.label_of(name, config.constraint), *cells] for name, *cells in rows
  ]
  return Table(
    'The networks on all test pictures. Orthogonality error: the largest entry'
    ' of |Gram matrix / amplitude − identity|, of all kernels. Reconstruction'
    ' error: relative, by transposes from the last features; 0 is perfect, 1 is'
    ' what a black picture gets.',
    _HEADINGS,
    {'': named},
    plots.label_of(CONTROL, config.constraint),
  )


_HEADINGS = (
  'network',
  'step',
  'test loss',
  'test accuracy',
  'orthogonality error',
  'reconstruction error',
  'at best scale',
)


def _row(
  name: str, step: int, epoch: Epoch | None, result: Row | None
) -> list[str]:
  accuracy, error = None, None
  if epoch is not None:
    accuracy = epoch.test_accuracy
    errors = [kernel.orthogonality_error for kernel in epoch.kernels.values()]
    error = max(errors, default=None)
  if result is not None:
    accuracy, error = result.test_accuracy, result.orthogonality_error
  return [
    name,
    str(step),
    _number(epoch and epoch.test_loss, '.4f'),
    _number(accuracy, '.2%'),
    _number(error, '.2g'),
    _number(result and result.raw_error, '.3f'),
    _number(result and result.fitted_error, '.3f'),
  ]


def _number(value: float | None, spec: str) -> str:
  return '–' if value is None else format(value, spec)


def _results(config: TrainConfig) -> dict[str, Row]:
  """The table that a run leaves when it ends, by network."""
  path = _directory(config) / 'results.json'
  if not path.exists():
    return {}
  return {row['network']: Row(**row) for row in json.loads(path.read_text())}


def _directory(config: TrainConfig) -> pathlib.Path:
  assert config.run_dir is not None
  return config.run_dir


def run_drawings(config: TrainConfig) -> list[Drawing]:
  """Curves and singular values over training, of what the run has written."""
  histories = {
    plots.label_of(name, config.constraint): read_metrics(
      _directory(config), name
    )
    for name in reversed(config.networks)
  }
  histories = {k: v for k, v in histories.items() if v[0] and v[1]}
  if not histories:
    return []
  names = ' and '.join(histories)
  drawings = [
    Drawing(
      encode_figure(
        plots.training_curves(
          {k: steps for k, (steps, _) in histories.items()},
          {k: epochs for k, (_, epochs) in histories.items()},
        )
      ),
      f'Training loss by step and test accuracy by epoch of {names}',
      'Training loss and test accuracy.',
    )
  ]
  epochs = {
    k: e for k, (_, e) in histories.items() if any(o.kernels for o in e)
  }
  if epochs:
    drawings.append(
      Drawing(
        encode_figure(plots.singular_values_over_training(epochs)),
        f'Singular values of each kernel by epoch, of {names}',
        'Singular values of each kernel: range and median.',
      )
    )
  return drawings
