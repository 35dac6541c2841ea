"""What the command line shows while a run goes on."""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeRemainingColumn,
)

from bort_jax import plots, spectrum
from bort_jax.train.comparison import Listener, Start
from bort_jax.train.metrics import Pace, Step


class ProgressBars(Listener, Progress):
  """One bar for each network, with its last loss, accuracy and pace.

  A line fits into 80 columns up to a million steps.
  """

  def __init__(self, console: Console, constraint: str):
    super().__init__(
      TextColumn('{task.description:6}'),
      BarColumn(bar_width=8),
      MofNCompleteColumn(),
      TextColumn('{task.fields[status]}'),
      TimeRemainingColumn(elapsed_when_finished=True),
      console=console,
    )
    self._constraint = constraint
    self._tasks_by_network = {}

  def started(self, start: Start) -> None:
    """Says where the run is written and what is amiss; makes the bars."""
    self.console.print(f'Writing to {start.run_dir}')
    for caution in cautions(start.findings):
      self.console.print(f'Caution: {caution}')
    for network in start.networks:
      self._tasks_by_network[network] = self.add_task(
        plots.label_of(network, self._constraint),
        total=start.num_steps,
        status='compiling …',
      )

  def stepped(self, network: str, steps: list[Step], pace: Pace | None) -> None:
    """Moves a network's bar to its last step."""
    last = steps[-1]
    status = f'loss {last.loss:.3f} acc {last.accuracy:.1%}'
    if pace is not None:
      status += f' {pace.images_per_second:.0f} images/s'
    self.update(
      self._tasks_by_network[network], completed=last.step, status=status
    )


def cautions(findings: Sequence[spectrum.Finding]) -> list[str]:
  """What is amiss, once for all the parameters of which it is said."""
  parameters: dict[str, list[str]] = {}
  for finding in findings:
    parameters.setdefault(finding.message, []).append(finding.parameter)
  return [f'{", ".join(p)}: {message}' for message, p in parameters.items()]
