r"""What helps: strength, amplitude, normalization, the head.

Accuracy against orthogonality of a small network under the constraint, one
thing changed at a time:

* strength: γ from weak to strong;
* amplitude: a from 0.5 to 4, and ``ada``; fitted is the one that is best on a
  held-out part of the training set, one seed that is not used again; beside
  each stands the free network whose kernels start there;
* normalization: with and without BatchNorm, and head: whether the classifier is
  constrained too, with the soft and with the hard form and without either;
* turns: ``every`` matrix corrected at each step, or in turns of 2 to 8 steps.

Nothing is tuned: learning rates are those in the middle of the grid of
accuracy.py, there is no weight decay, and where γ is not what changes it is 1
with SGD and 10 with the others. All networks have the logit scale, orthogonal
kernels at the start, and five seeds. Writes into ``what_helps/DATA_MODEL/``;
what is there in its ``runs.jsonl`` is not done again. From the project's root,
ten minutes of one core:

    python experiments/reproduce/what_helps.py --data-dir DIR \
      --model-options 'widths=(6,12,16,32,64)' --train-split 'train[:10%]'
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import tyro
from arms import Arm
from fitting import Numbers, Task
from trainings import Bench, open_bench
from what_helps_tables import write_tables

RESULTS = pathlib.Path(__file__).parent / 'what_helps'
RATES = {'sgd': 0.03, 'adamw': 3e-3, 'muon': 1e-2}
GAMMAS = {
  'sgd': (0.03, 0.1, 0.3, 1.0, 3.0),
  'adamw': (1.0, 3.0, 10.0, 30.0, 100.0),
  'muon': (1.0, 3.0, 10.0, 30.0),
}
_GAMMA = {'sgd': 1.0, 'adamw': 10.0, 'muon': 10.0}
AMPLITUDES = (0.5, 1.0, 2.0, 4.0, 'ada')
_TUNING_SEED = 1000
_TASK = Task(batch_size=64)


def main(
  task: tyro.conf.OmitArgPrefixes[Task] = _TASK,
  questions: tuple[str, ...] = ('strength', 'amplitude', 'shape', 'turns'),
  seeds: int = 5,
  tune_split: str = 'train[:10%]',
  tune_test: str = 'train[90%:]',
  minutes: float | None = None,
  results: pathlib.Path = RESULTS,
  data_dir: pathlib.Path | None = None,
) -> None:
  """Trains and compares.

  Args:
    task: what is learned.
    questions: which: strength, amplitude, shape (normalization and head),
      turns.
    seeds: how many, from 0.
    tune_split: part of the training set on which the amplitude is fitted.
    tune_test: part of it on which that is judged.
    minutes: after which no further training is begun; by default all is done.
    results: directory in which that of the data set and network is.
    data_dir: TFDS directory; by default $TFDS_DATA_DIR.
  """
  folder = results / f'{task.data}_{task.model}'
  bench = open_bench(folder / 'runs.jsonl', minutes, data_dir)
  tuning = dataclasses.replace(
    task, train_split=tune_split, test_split=tune_test
  )
  arms = {question: list(_QUESTIONS[question]()) for question in questions}
  for arm in dict.fromkeys(arm for of in arms.values() for arm in of):
    for seed in range(seeds):
      bench.train(task, arm, Numbers(RATES[arm.optimizer], 0.0, seed))
  fitted = {
    optimizer: fitted_amplitude(bench, tuning, optimizer)
    for optimizer in (RATES if 'amplitude' in questions else ())
  }
  write_tables(folder, bench.kept.rows, arms, fitted)


def strengths() -> Iterator[Arm]:
  """From none to strong, and hard."""
  for optimizer, gammas in GAMMAS.items():
    yield Arm(optimizer)  # pyright: ignore
    for gamma in gammas:
      yield soft(optimizer, gamma)
    yield Arm(optimizer, constraint='hard')  # pyright: ignore


def amplitudes() -> Iterator[Arm]:
  """Kernels start at the root of the amplitude; at one for ``ada``."""
  for optimizer, gamma in _GAMMA.items():
    for amplitude in AMPLITUDES:
      if amplitude != 'ada':
        yield Arm(optimizer, amplitude=amplitude)  # pyright: ignore
      arm = soft(optimizer, gamma)
      yield dataclasses.replace(arm, amplitude=amplitude)


def shapes() -> Iterator[Arm]:
  """Normalization or not, times the head constrained or not.

  Muon has no free head here: one that it does not take for a matrix it would
  move by Adam, which is another change.
  """
  for optimizer in ('sgd', 'adamw'):
    for batch_norm in (False, True):
      yield Arm(optimizer, batch_norm=batch_norm)  # pyright: ignore
    hard = Arm(optimizer, constraint='hard')
    for arm in (soft(optimizer, _GAMMA[optimizer]), hard):
      for batch_norm in (False, True):
        for head in (True, False):
          yield dataclasses.replace(arm, batch_norm=batch_norm, head=head)


def turns() -> Iterator[Arm]:
  """From all matrices at every step to each at one of eight."""
  for optimizer, gamma in _GAMMA.items():
    yield Arm(optimizer)  # pyright: ignore
    for every in (None, 2, 4, 8):
      yield dataclasses.replace(soft(optimizer, gamma), every=every)


_QUESTIONS = {
  'strength': strengths,
  'amplitude': amplitudes,
  'shape': shapes,
  'turns': turns,
}


def soft(optimizer: str, gamma: float) -> Arm:
  """Bort."""
  return Arm(optimizer, constraint='soft', gamma=gamma)  # pyright: ignore


def fitted_amplitude(
  bench: Bench, task: Task, optimizer: str
) -> float | str | None:
  """The best on held-out pictures; None if time is up."""
  found = {}
  for arm in amplitudes():
    if arm.optimizer == optimizer and arm.constraint == 'soft':
      numbers = Numbers(RATES[optimizer], 0.0, _TUNING_SEED)
      result = bench.train(task, arm, numbers)
      if result is None:
        return None
      found[arm.amplitude] = result['accuracy']
  return max(found, key=lambda amplitude: found[amplitude])


if __name__ == '__main__':
  tyro.cli(main)
