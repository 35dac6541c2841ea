"""The networks whose units are compared: which data, which training."""

import pathlib
from typing import NamedTuple

from bort_jax.train import TrainConfig
from bort_jax.train.adversarial import Adversarial


class Set(NamedTuple):
  """How much of a data set is trained on, and what its attacks are allowed."""

  pictures: int  # to train on
  epochs: int
  trained: float  # greatest change of a pixel in training
  judged: float  # of the attacks that networks are judged by


# β of each loss; plain has no use for it. The control has the pictures of
# consistent, and nothing that pulls representations together.
CONTROL = 'adversarial'
BETAS = {'plain': 0.1, CONTROL: 0.0, 'consistent': 0.1}


# Fixed before anything was measured: what two cores finish in minutes, the
# usual sizes of attacks for training, and half of them for judging.
SETS = {
  'mnist': Set(8000, 3, 0.2, 0.1),
  'cifar10': Set(10_000, 4, 8 / 255, 4 / 255),
}


# Of what is measured: results of another one are not taken for these.
VERSION = 2


# Those whose units differ by more than an activation from each other's.
LAYERS = ('act1', 'down1', 'act2', 'down2', 'act3', 'logits')


def config_of(
  runs: pathlib.Path,
  data: str,
  seed: int,
  loss: str,
  data_dir: pathlib.Path | None = None,
) -> TrainConfig:
  """The settings of one run, which trains with AdamW and with Bort."""
  case = SETS[data]
  return TrainConfig(
    data=data,
    data_dir=data_dir,
    train_split=f'train[:{case.pictures}]',
    epochs=case.epochs,
    batch_size=128,
    model_options=('widths=(8,16,32,48,64)',),
    adversarial=Adversarial(
      'none' if loss == 'plain' else 'fgsm',
      epsilon=case.trained,
      beta=BETAS[loss],
    ),
    seed=seed,
    run_dir=runs / f'{data}-{loss}-{seed}',
    resume=True,
  )
