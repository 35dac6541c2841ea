r"""Is an orthogonal network as accurate as a free one, with a logit scale?

{free, Bort, hard} × {with, without a learned scale of the logits} × {SGD,
AdamW, Muon} × {with, without BatchNorm behind each convolution}, all from
orthogonal kernels. Bort has γ = 1 with SGD and 10 with the others. Fixed before
anything was trained: three learning rates of each arm, no weight decay, one
seed that is not used again, judged on a held-out part of the training set; then
five seeds on the test set. "As accurate" means within half a point, which was
said while the first trainings ran. Where the network names its features,
pictures are run to them and back too, by transposition and by least squares.
Writes into
``logit_scale/DATA_MODEL/``; what is there in its ``runs.jsonl`` is not done
again. From the project's root (ten minutes of one core each; --minutes stops it
in time, and it is repeated):

    python experiments/reproduce/logit_scale.py --data-dir DIR \
      --model patch_net --train-split 'train[:10%]'
    python experiments/reproduce/logit_scale.py --data-dir DIR \
      --model-options 'widths=(6,12,16,32,64)' --train-split 'train[:10%]'

deeper, as exactly invertible, in twenty minutes each:

    python experiments/reproduce/logit_scale.py --data-dir DIR \
      --model patch_net --model-options 'strides=(2,2,1,1,1,1)' \
      --optimizers sgd adamw --batch-norm False
    python experiments/reproduce/logit_scale.py --data-dir DIR \
      --model patch_net --model-options 'strides=(2,2,1,1,1,1,1,1,1,1)' \
      --optimizers sgd adamw --batch-norm False

and again with --data fashion_mnist, which Debian has (dataset-fashion-mnist):

    bort-jax prepare fashion_mnist --data-dir DIR \
      --source /usr/share/datasets/fashion-mnist

In full, for hours or on a GPU, without --train-split, and:

    python experiments/reproduce/logit_scale.py --data-dir DIR --data cifar10 \
      --model patch_net --model-options 'strides=(2,2,2,2)' --epochs 20
"""

import dataclasses
import functools
import itertools
import pathlib

import tyro
from arms import Arm
from backwards import back_error
from fitting import Numbers, Task
from logit_scale_tables import write_tables
from trainings import nothing_more, open_bench

RESULTS = pathlib.Path(__file__).parent / 'logit_scale'
RATES = {
  'sgd': (0.01, 0.03, 0.1),
  'adamw': (1e-3, 3e-3, 1e-2),
  'muon': (3e-3, 1e-2, 3e-2),
}
_GAMMAS = {'sgd': 1.0, 'adamw': 10.0, 'muon': 10.0}
_FEATURES = {'patch_net': 'features', 'simple_cnn': 'act3'}
_TASK = Task(batch_size=64)


def main(
  task: tyro.conf.OmitArgPrefixes[Task] = _TASK,
  optimizers: tuple[str, ...] = tuple(RATES),
  batch_norm: tuple[bool, ...] = (False, True),
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
    batch_norm: whether; both by default.
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
  more = nothing_more
  if task.model in _FEATURES:
    more = functools.partial(back_error, _FEATURES[task.model])
  for norm, optimizer in itertools.product(batch_norm, optimizers):
    for arm in arms_of(optimizer, norm):
      best = bench.tune(tuning, arm, RATES[optimizer], (0.0,))
      if best is None:
        break
      for seed in range(seeds):
        bench.train(task, arm, Numbers(*best, seed=seed), more)
  write_tables(folder, bench.kept.rows, RATES)


def arms_of(optimizer: str, batch_norm: bool) -> list[Arm]:
  """Three constraints, each with and without the scale."""
  return [
    Arm(
      optimizer,  # pyright: ignore
      constraint=constraint,
      gamma=_GAMMAS[optimizer] if constraint == 'soft' else 0.0,
      logit_scale=scale,
      batch_norm=batch_norm,
    )
    for constraint in ('none', 'soft', 'hard')
    for scale in (True, False)
  ]


if __name__ == '__main__':
  tyro.cli(main)
