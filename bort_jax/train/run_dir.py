"""What a run leaves behind: its settings, its metrics and its checkpoints."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Iterable
from typing import Any

import orbax.checkpoint as ocp

from bort_jax.train.config import TrainConfig
from bort_jax.train.errors import RunError


class RunDir:
  """A directory of one run, made when it is constructed.

  Args:
    config: the settings; they are written to ``config.json``.

  Raises:
    RunError: if the directory exists or cannot be made.
  """

  def __init__(self, config: TrainConfig):
    name = f'{config.data}-{time.strftime("%Y%m%d-%H%M%S")}'
    self.path = config.run_dir or pathlib.Path('runs') / name
    try:
      self.path.mkdir(parents=True)
    except FileExistsError:
      raise RunError(
        f'Run directory {self.path} exists already. Choose another with'
        ' --run-dir, or remove it.'
      ) from None
    except OSError as error:
      raise RunError(
        f'Run directory {self.path} cannot be made: {error.strerror}. Choose'
        ' another with --run-dir.'
      ) from None
    settings = json.dumps(dataclasses.asdict(config), indent=2, default=str)
    (self.path / 'config.json').write_text(settings + '\n')
    self.figures = self.path / 'figures'
    self.figures.mkdir()

  def write_metrics(
    self, network: str, epoch: int, rows: Iterable[Any]
  ) -> None:
    """Appends a line of JSON for each row, a dict or NamedTuple."""
    with (self.path / 'metrics.jsonl').open('a') as file:
      for row in rows:
        fields = row if isinstance(row, dict) else row._asdict()
        line = {'network': network, 'epoch': epoch, **fields}
        file.write(json.dumps(line) + '\n')

  def checkpoints(self, network: str) -> ocp.CheckpointManager:
    """The manager of a network's checkpoints; the newest one is kept."""
    return ocp.CheckpointManager(
      (self.path / 'checkpoints' / network).absolute(),
      options=ocp.CheckpointManagerOptions(max_to_keep=1),
    )
