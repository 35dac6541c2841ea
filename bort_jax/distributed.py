"""Several processes, on one machine or on the hosts of a pod."""

import dataclasses

import jax

from bort_jax.train.errors import RunError

_SILENCE = 30  # seconds after which a silent process counts as dead


@dataclasses.dataclass(frozen=True)
class Processes:
  """The processes of a run; every one gets the same command but its own id."""

  distributed: bool = False
  """Whether this is one of several processes. On TPU pods, Slurm and Open MPI
  they find each other; elsewhere say how with the options below."""
  coordinator: str | None = None
  """HOST:PORT of the process with id 0, the same for all."""
  num_processes: int | None = None
  """Number of processes."""
  process_id: int | None = None
  """Which of them this one is, from 0."""


def start_processes(processes: Processes) -> None:
  """Joins the other processes; must come before any computation.

  Args:
    processes: who they are.

  Raises:
    RunError: if the options contradict each other, or the others do not come.
  """
  options = (
    processes.coordinator,
    processes.num_processes,
    processes.process_id,
  )
  given = [option is not None for option in options]
  if not processes.distributed and not any(given):
    return
  if any(given) and not all(given):
    raise RunError(
      'coordinator, num_processes and process_id go together; give all three,'
      ' or only --distributed on TPU pods, Slurm and Open MPI.'
    )
  try:
    jax.distributed.initialize(*options, heartbeat_timeout_seconds=_SILENCE)
  except (RuntimeError, ValueError) as error:
    raise RunError(
      f'The processes did not find each other: {str(error).splitlines()[0]}'
    ) from None
