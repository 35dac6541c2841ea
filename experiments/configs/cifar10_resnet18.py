"""CIFAR-10, ResNet-18 with the stem for small pictures: SGD with Bort.

    bort-jax train cifar10_resnet18 --data-dir DIR
    bort-jax train cifar10_resnet18 --data-dir DIR --constraint none

Needs an accelerator: on two CPU cores an epoch takes about an hour. Not
measured to the end here.
"""

from bort_jax.train import TrainConfig
from bort_jax.train.augment import Recipe

config = TrainConfig(
  data='cifar10',
  model='resnet18',
  init='default',
  precision='bfloat16',
  optimizer='sgd',
  learning_rate=0.1,
  warmup=0.05,
  weight_decay=5e-4,
  gamma=0.1,
  epochs=100,
  batch_size=128,
  augment=Recipe(pad_crop=4, flip=True, cutout=16),
  compare=False,
)
