"""What the command line shows: options, progress, findings and tables."""

import argparse
import logging
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Literal

import jax
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bort_jax import plots
from bort_jax.configs import config_names, load_config
from bort_jax.distributed import Processes, start_processes
from bort_jax.progress_bars import ProgressBars
from bort_jax.report.command import explain_command
from bort_jax.report.units_command import neurons_command
from bort_jax.train import TrainConfig, train
from bort_jax.train.comparison import CONTROL, Comparison
from bort_jax.train.errors import PreemptedError, RunError
from bort_jax.train.prepare import prepare
from bort_jax.train.report import evaluate_run, read_runs
from bort_jax.train.run_dir import holds_run, read_config

_ALONE = Processes()
_PREEMPTED, _INTERRUPTED = 143, 130  # as a shell counts SIGTERM and SIGINT


def run(args: Sequence[str] | None = None) -> None:
  """Parses the arguments and does what they say; see :func:`cli.main`."""
  # What orbax logs as an error, traceback and all, it also raises.
  logging.getLogger('absl').setLevel(logging.CRITICAL)
  args = list(sys.argv[1:] if args is None else args)
  app = tyro.extras.SubcommandApp()
  try:
    default, args = _starting_config(args)
    app.command(name='train')(_train_command(default))
    app.command(name='evaluate')(evaluate_command)
    app.command(name='compare')(compare_command)
    app.command(name='explain')(explain_command)
    app.command(name='neurons')(neurons_command)
    app.command(name='prepare')(prepare_command)
    app.cli(args=args, prog='bort-jax')
  except PreemptedError as error:
    print(f'bort-jax: {error}', file=sys.stderr)
    sys.exit(_PREEMPTED)
  except (RunError, OSError) as error:
    sys.exit(f'bort-jax: {error}')
  except KeyboardInterrupt:
    print(
      'bort-jax: interrupted; a run goes on from its last checkpoint with'
      ' --resume.',
      file=sys.stderr,
    )
    sys.exit(_INTERRUPTED)


def _starting_config(args: list[str]) -> tuple[TrainConfig, list[str]]:
  """What ``train`` starts from, and the other arguments, which override it.

  It is the configuration that is named, else that of the run to resume.
  """
  if args[:1] != ['train']:
    return TrainConfig(), args
  if len(args) > 1 and not args[1].startswith('-'):
    return load_config(args[1]), [args[0], *args[2:]]
  run_dir = _run_to_resume(args)
  return TrainConfig() if run_dir is None else read_config(run_dir), args


def _run_to_resume(args: list[str]) -> pathlib.Path | None:
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  parser.add_argument('--resume', action=argparse.BooleanOptionalAction)
  parser.add_argument('--run-dir', '--run_dir', type=pathlib.Path, nargs='?')
  found, _ = parser.parse_known_args(args)
  resumes = found.resume and found.run_dir and holds_run(found.run_dir)
  return found.run_dir if resumes else None


def _train_command(default: TrainConfig):
  """The command ``train`` with the defaults of a configuration."""

  def train_command(
    config: tyro.conf.OmitArgPrefixes[TrainConfig] = default,
    processes: tyro.conf.OmitArgPrefixes[Processes] = _ALONE,
  ) -> None:
    start_processes(processes)
    console = Console(quiet=jax.process_index() > 0)
    if config.resume and config.run_dir and not holds_run(config.run_dir):
      console.print(
        f'Nothing to resume in {config.run_dir}: a new run starts there.'
      )
    with ProgressBars(console, config.constraint) as bars:
      comparison = train(config, bars)
    if jax.process_index() > 0:
      return
    figures = comparison.run_dir / 'figures'
    figures.mkdir(exist_ok=True)
    for name, figure in plots.comparison_figures(comparison).items():
      figure.savefig(figures / f'{name}.png', dpi=150)
    console.print(comparison_table(comparison))
    console.print(f'Figures are in {figures}.')
    command = shlex.join(['bort-jax', 'explain', str(comparison.run_dir)])
    console.print(f'What the networks look at: {command}', soft_wrap=True)

  train_command.__doc__ = (
    'Train a network, by default with and without Bort.\n\n'
    'bort-jax train [CONFIG] [options]: CONFIG is one of'
    f' {", ".join(config_names())}, or the path of a Python file; the options'
    ' override its settings. Without it, a small network is trained on digits;'
    ' with --resume, the settings are those of the run.'
  )
  return train_command


def evaluate_command(
  run_dir: tyro.conf.Positional[pathlib.Path],
  checkpoint: Literal['latest', 'best'] = 'latest',
  data_dir: pathlib.Path | None = None,
) -> None:
  """Evaluate the checkpoints of a run on its test pictures.

  Args:
    run_dir: the run's directory.
    checkpoint: the newest one, or that of the highest test accuracy.
    data_dir: TFDS directory, if it is no longer where the run found it.
  """
  config = read_config(run_dir, data_dir)
  table = Table()
  table.add_column('network')
  for heading in ('step', 'test loss', 'test accuracy', 'orthogonality error'):
    table.add_column(heading, justify='right')
  for e in evaluate_run(config, checkpoint):
    table.add_row(
      plots.label_of(e.network, config.constraint),
      str(e.step),
      f'{e.test_loss:.4f}',
      f'{e.test_accuracy:.2%}',
      f'{e.orthogonality_error:.2g}',
    )
  Console().print(table)


def compare_command(
  run_dirs: tyro.conf.Positional[tuple[pathlib.Path, ...]],
  output: pathlib.Path = pathlib.Path('comparison.png'),
) -> None:
  """Compare runs: a table, and a figure of their curves.

  Args:
    run_dirs: the runs' directories.
    output: where to write the figure.
  """
  histories = read_runs(list(run_dirs))
  table = Table()
  table.add_column('run')
  table.add_column('network')
  for heading in (
    'epochs',
    'last\naccuracy',
    'best\naccuracy',
    'orthogonality\nerror',
    'images/s',
  ):
    table.add_column(heading, justify='right')
  labels = [plots.label_of(h.network, h.config.constraint) for h in histories]
  for label, h in zip(labels, histories, strict=True):
    table.add_row(
      str(h.run_dir),
      label,
      str(h.epochs[-1].epoch),
      f'{h.epochs[-1].test_accuracy:.2%}',
      f'{h.best_accuracy:.2%}',
      _number(h.orthogonality_error, '.2g'),
      _number(h.images_per_second, '.0f'),
    )
  names = [
    f'{h.run_dir}: {label}' for label, h in zip(labels, histories, strict=True)
  ]
  figure = plots.training_curves(
    {name: h.steps for name, h in zip(names, histories, strict=True)},
    {name: h.epochs for name, h in zip(names, histories, strict=True)},
  )
  figure.savefig(output, dpi=150)
  Console().print(table)
  Console().print(f'Curves are in {output}.')


def prepare_command(
  name: tyro.conf.Positional[str],
  data_dir: pathlib.Path | None = None,
  source: pathlib.Path | None = None,
) -> None:
  """Download a data set and write it where train finds it, once.

  Args:
    name: the data set, as TFDS calls it.
    data_dir: TFDS directory; by default $TFDS_DATA_DIR, else
      ~/tensorflow_datasets.
    source: directory that holds the published archives already.
  """
  tasks = {}
  with Progress(console=Console()) as bars:

    def show(stage: str, done: int, total: int) -> None:
      if stage not in tasks:
        tasks[stage] = bars.add_task(stage)
      bars.update(tasks[stage], completed=done, total=total or None)

    path = prepare(name, data_dir, source, progress=show)
  print(f'{name} is in {path}.')


def comparison_table(comparison: Comparison) -> Table:
  """The rows of a comparison as a table."""
  shows_errors = bool(comparison.reconstructions)
  table = Table(
    caption='Reconstruction from the last feature map, relative error: 0 is'
    ' perfect, 1 is what a black picture gets.'
    if shows_errors
    else None
  )
  table.add_column('network')
  headings = ['test\naccuracy', 'orthogonality\nerror']
  headings += ['raw\nerror', 'scale-fitted\nerror'] if shows_errors else []
  for heading in (*headings, 'training\nseconds'):
    table.add_column(heading, justify='right')
  for row in comparison.rows:
    errors = [_number(row.raw_error, '.3g'), _number(row.fitted_error, '.3f')]
    table.add_row(
      plots.label_of(row.network, comparison.config.constraint),
      f'{row.test_accuracy:.2%}',
      f'{row.orthogonality_error:.2g}',
      *(errors if shows_errors else []),
      f'{row.seconds:.1f}' if row.network != CONTROL else '–',
    )
  return table


def _number(value: float | None, spec: str) -> str:
  return '–' if value is None else format(value, spec)
