"""What the command line shows: options, progress, findings and the table."""

import pathlib
import sys
from collections.abc import Sequence

import tyro
from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeRemainingColumn,
)
from rich.table import Table

from bort_jax import plots, spectrum
from bort_jax.train import TrainConfig, train
from bort_jax.train.comparison import CONTROL, Comparison, Listener
from bort_jax.train.errors import RunError
from bort_jax.train.loop import Step


def run(args: Sequence[str] | None = None) -> None:
  """Parses the arguments and does what they say; see :func:`cli.main`."""
  app = tyro.extras.SubcommandApp()
  app.command(name='train')(train_command)
  try:
    app.cli(args=args, prog='bort-jax')
  except RunError as error:
    sys.exit(f'bort-jax: {error}')


def train_command(config: tyro.conf.OmitArgPrefixes[TrainConfig]) -> None:
  """Train a network with and without Bort and show what differs."""
  console = Console()
  with _ProgressBars(console) as bars:
    comparison = train(config, bars)
  for name, figure in plots.comparison_figures(comparison).items():
    figure.savefig(comparison.run_dir / 'figures' / f'{name}.png', dpi=150)
  console.print(comparison_table(comparison))
  console.print(f'Figures are in {comparison.run_dir / "figures"}.')


def comparison_table(comparison: Comparison) -> Table:
  """The rows of a comparison as a table."""
  table = Table(
    caption='Reconstruction from the last feature map, relative error: 0 is'
    ' perfect, 1 is what a black picture gets.'
  )
  table.add_column('network')
  for heading in (
    'test\naccuracy',
    'orthogonality\nerror',
    'raw\nerror',
    'scale-fitted\nerror',
    'seconds',
  ):
    table.add_column(heading, justify='right')
  for row in comparison.rows:
    table.add_row(
      plots.LABELS[row.network],
      f'{row.test_accuracy:.2%}',
      f'{row.orthogonality_error:.2g}',
      f'{row.raw_error:.3g}',
      f'{row.fitted_error:.3f}',
      f'{row.seconds:.1f}' if row.network != CONTROL else '–',
    )
  return table


class _ProgressBars(Listener, Progress):
  """One bar for each network, with its last loss and accuracy."""

  def __init__(self, console: Console):
    super().__init__(
      TextColumn('{task.description:13}'),
      BarColumn(),
      MofNCompleteColumn(),
      TextColumn('loss {task.fields[loss]:.4f}'),
      TextColumn('accuracy {task.fields[accuracy]:.1%}'),
      TimeRemainingColumn(elapsed_when_finished=True),
      console=console,
    )
    self._tasks_by_network = {}
    self._num_steps = 0

  def started(
    self,
    run_dir: pathlib.Path,
    num_steps: int,
    findings: tuple[spectrum.Finding, ...],
  ) -> None:
    self._num_steps = num_steps
    self.console.print(f'Writing to {run_dir}')
    for finding in findings:
      self.console.print(f'Caution: {finding}')

  def stepped(self, network: str, steps: list[Step]) -> None:
    if network not in self._tasks_by_network:
      self._tasks_by_network[network] = self.add_task(
        plots.LABELS[network], total=self._num_steps, loss=0.0, accuracy=0.0
      )
    self.update(
      self._tasks_by_network[network],
      advance=len(steps),
      loss=steps[-1].loss,
      accuracy=steps[-1].accuracy,
    )
