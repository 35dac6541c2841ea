r"""Is Bort more accurate? Against plain training and its rivals, each tuned.

Each of SGD (momentum 0.9), AdamW, LAMB and Muon is trained in seven ways:

* plain: Flax's usual kernels;
* orthogonal init: orthogonal kernels at the start, as in all that follow;
* SO and SRIP: soft orthogonality in the loss, strength 0.1, the first value of
  Bansal et al. With SGD, SO is Bort with γ = 0.4, step by step;
* Bort: γ = 1 with SGD, 10 with the others;
* Bort, rows: the same γ, row norms only (``l2-row``);
* hard: ``keep_orthogonal``.

All networks have a learned scale of the logits. The primary question is the
paper's, Bort − plain for each optimizer, and its control, Bort − orthogonal
init; it was named while the first trainings ran, before there was a table. The
budget was fixed before anything was trained: for each of the 28 ways three
learning rates × two weight decays, one seed that is not used again, on a part
of the training set; the best accuracy on another part of the training set
wins, of equals the lowest loss. Then five seeds, judged on the test set. Seeds
give weights and batches and are the same for all, so differences are taken seed
by seed. Writes into ``accuracy/DATA_MODEL/``; what is there in its
``runs.jsonl`` is not done again. From the project's root, on a CPU (the first
is short, 25 minutes of one core; the others go on for hours, --minutes stops
them in time and they are repeated):

    python experiments/reproduce/accuracy.py --data-dir DIR \
      --model-options 'widths=(6,12,16,32,64)' --train-split 'train[:10%]'
    python experiments/reproduce/accuracy.py --data-dir DIR \
      --model-options 'widths=(6,12,16,32,64)'
    python experiments/reproduce/accuracy.py --data-dir DIR
    python experiments/reproduce/accuracy.py --data-dir DIR --data cifar10 \
      --model resnet8 --train-split 'train[:20%]'

and in full on a GPU:

    python experiments/reproduce/accuracy.py --data-dir DIR --data cifar10 \
      --model resnet18 --epochs 30 --batch-size 128 --pad-crop 4 --flip \
      --tune-epochs 5 --tune-split 'train[:40%]'
    python experiments/reproduce/accuracy.py --data-dir DIR --data cifar10 \
      --model deit_ti --model-options patch_size=4 --epochs 30 \
      --batch-size 128 --pad-crop 4 --flip --tune-epochs 5 \
      --tune-split 'train[:40%]'
"""

import dataclasses
import itertools
import pathlib

import tyro
from accuracy_tables import write_tables
from arms import Arm
from fitting import Numbers, Task
from trainings import open_bench

RESULTS = pathlib.Path(__file__).parent / 'accuracy'
GAMMAS = {'sgd': 1.0, 'adamw': 10.0, 'lamb': 10.0, 'muon': 10.0}
RATES = {
  'sgd': (0.01, 0.03, 0.1),
  'adamw': (1e-3, 3e-3, 1e-2),
  'lamb': (3e-3, 1e-2, 3e-2),
  'muon': (3e-3, 1e-2, 3e-2),
}
DECAYS = {
  'sgd': (0.0, 5e-4),
  'adamw': (0.0, 1e-2),
  'lamb': (0.0, 1e-2),
  'muon': (0.0, 1e-2),
}
_WAYS = {
  'plain': {'init': 'lecun'},
  'orthogonal init': {},
  'SO': {'penalty': 'so', 'strength': 0.1},
  'SRIP': {'penalty': 'srip', 'strength': 0.1},
  'Bort': {'constraint': 'soft'},
  'Bort, rows': {'constraint': 'soft', 'mode': 'l2-row'},
  'hard': {'constraint': 'hard'},
}
_TASK = Task(batch_size=64)


def main(
  task: tyro.conf.OmitArgPrefixes[Task] = _TASK,
  optimizers: tuple[str, ...] = tuple(RATES),
  ways: tuple[str, ...] = tuple(_WAYS),
  seeds: int = 5,
  tune_split: str = 'train[:10%]',
  tune_test: str = 'train[90%:]',
  tune_epochs: int = 3,
  minutes: float | None = None,
  results: pathlib.Path = RESULTS,
  data_dir: pathlib.Path | None = None,
) -> None:
  """Tunes, trains and compares.

  Args:
    task: what is learned.
    optimizers: which.
    ways: which.
    seeds: how many, from 0.
    tune_split: part of the training set that is tuned on.
    tune_test: part of it that tuning is judged on.
    tune_epochs: passes of a network in tuning.
    minutes: after which no further training is begun; by default all is done.
    results: directory in which that of the data set and network is.
    data_dir: TFDS directory; by default $TFDS_DATA_DIR.
  """
  folder = results / f'{task.data}_{task.model}'
  bench = open_bench(folder / 'runs.jsonl', minutes, data_dir)
  tuning = dataclasses.replace(
    task, train_split=tune_split, test_split=tune_test, epochs=tune_epochs
  )
  for optimizer, way in itertools.product(optimizers, ways):
    arm = arm_of(optimizer, way)
    best = bench.tune(tuning, arm, RATES[optimizer], DECAYS[optimizer])
    if best is None:
      break
    for seed in range(seeds):
      bench.train(task, arm, Numbers(*best, seed=seed))
  write_tables(folder, bench.kept.rows, names(), RATES)


def arm_of(optimizer: str, way: str) -> Arm:
  """One of the ways to train with an optimizer."""
  arm = Arm(optimizer, **_WAYS[way])  # pyright: ignore
  if arm.constraint == 'soft':
    arm = dataclasses.replace(arm, gamma=GAMMAS[optimizer])
  return arm


def names() -> dict[Arm, tuple[str, str]]:
  """Optimizer and way of each arm."""
  pairs = itertools.product(RATES, _WAYS)
  return {arm_of(*pair): pair for pair in pairs}


if __name__ == '__main__':
  tyro.cli(main)
