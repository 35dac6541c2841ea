"""The metrics of a run: metrics.jsonl, TensorBoard, and the pace apart.

``metrics.jsonl`` holds what is the same in every run of the same settings, so
that a run that was interrupted leaves the same file as one that was not. How
long things took goes to ``timing.jsonl``.
"""

import importlib.util
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np


class Step(NamedTuple):
  """What is known of a step."""

  step: int  # 1 is the first
  loss: float
  accuracy: float


class Spread(NamedTuple):
  """The singular values of one kernel."""

  smallest: float
  median: float
  largest: float
  orthogonality_error: float  # largest entry of abs(Gram / a - I)


class Epoch(NamedTuple):
  """What is known after an epoch; epoch 0 is the start."""

  epoch: int
  step: int
  test_loss: float
  test_accuracy: float
  kernels: dict[str, Spread]  # by path; empty if not measured


class Pace(NamedTuple):
  """How fast steps were, but for the first of a session, which is compiled."""

  step: int  # the last of them
  seconds: float  # per step
  images_per_second: float
  peak_bytes: int | None  # of the first device, where it tells


class MetricsLog:
  """Appends the metrics of one network to the files of a run.

  Args:
    run_dir: the run's directory.
    network: the network's name, in every line.
    step: a resumed run's step: lines beyond it are dropped, for they will be
      written again. None starts anew.
    writes: whether this process writes at all.
  """

  def __init__(
    self,
    run_dir: pathlib.Path,
    network: str,
    step: int | None = None,
    writes: bool = True,
  ):
    self.network = network
    self._path = run_dir / 'metrics.jsonl'
    self._timing = run_dir / 'timing.jsonl'
    self._writes = writes
    self._board = None
    if not writes:
      return
    for path in (self._path, self._timing):
      _rewind(path, network, -1 if step is None else step)
    if importlib.util.find_spec('tensorboardX'):
      from bort_jax.train.board import Board

      self._board = Board(run_dir / 'tensorboard' / network, step)

  def close(self) -> None:
    """Closes TensorBoard's file."""
    if self._board is not None:
      self._board.close()

  def write_steps(self, steps: Iterable[Step]) -> None:
    """Appends a line for each step."""
    self._append(self._path, (step._asdict() for step in steps))
    for step in steps:
      self._scalars(step.step, {'loss': step.loss, 'accuracy': step.accuracy})

  def write_epoch(self, epoch: Epoch) -> None:
    """Appends a line for an epoch."""
    kernels = {path: s._asdict() for path, s in epoch.kernels.items()}
    self._append(self._path, [{**epoch._asdict(), 'kernels': kernels}])
    scalars = {
      'test_loss': epoch.test_loss,
      'test_accuracy': epoch.test_accuracy,
    }
    for path, spread in kernels.items():
      scalars |= {f'{name}/{path}': value for name, value in spread.items()}
    self._scalars(epoch.step, scalars)

  def write_pace(self, pace: Pace) -> None:
    """Appends a line to timing.jsonl."""
    self._append(self._timing, [pace._asdict()])
    self._scalars(pace.step, {'images_per_second': pace.images_per_second})
    if self._board is not None:
      self._board.flush()

  def _append(self, path: pathlib.Path, rows: Iterable[dict[str, Any]]) -> None:
    if not self._writes:
      return
    lines = [json.dumps({'network': self.network, **row}) for row in rows]
    with path.open('a') as file:
      file.write(''.join(line + '\n' for line in lines))

  def _scalars(self, step: int, scalars: dict[str, float]) -> None:
    if self._board is not None:
      self._board.write(step, scalars)


def read_metrics(
  run_dir: pathlib.Path, network: str
) -> tuple[list[Step], list[Epoch]]:
  """The steps and epochs of a network that a run has written.

  Args:
    run_dir: the run's directory.
    network: the network's name.

  Returns:
    The steps and the epochs in order.
  """
  steps, epochs = [], []
  for line in read_lines(run_dir / 'metrics.jsonl'):
    if line.pop('network') != network:
      continue
    if 'epoch' in line:
      kernels = {path: Spread(**s) for path, s in line.pop('kernels').items()}
      epochs.append(Epoch(**line, kernels=kernels))
    else:
      steps.append(Step(**line))
  return steps, epochs


def read_paces(run_dir: pathlib.Path, network: str) -> list[Pace]:
  """How fast the steps of a network were, over all sessions of a run."""
  return [
    Pace(**{name: line[name] for name in Pace._fields})
    for line in read_lines(run_dir / 'timing.jsonl')
    if line['network'] == network
  ]


def training_seconds(paces: Sequence[Pace]) -> float:
  """How long all steps took, those that have no pace at that of the next."""
  counts = np.diff([0, *(pace.step for pace in paces)])
  return float(counts @ [pace.seconds for pace in paces]) if paces else 0.0


def read_lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  """The rows of a file of JSON lines, without a last one that was cut off."""
  if not path.exists():
    return
  for line in path.read_text().splitlines():
    try:
      yield json.loads(line)
    except json.JSONDecodeError:
      return


def _rewind(path: pathlib.Path, network: str, step: int) -> None:
  """Drops a network's lines beyond a step, all or nothing."""
  if not path.exists():
    return
  kept = [
    json.dumps(line) + '\n'
    for line in read_lines(path)
    if line['network'] != network or line['step'] <= step
  ]
  partial = path.with_suffix('.partial')
  partial.write_text(''.join(kept))
  os.replace(partial, path)
