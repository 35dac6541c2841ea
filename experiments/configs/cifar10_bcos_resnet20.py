"""CIFAR-10, B-cos ResNet-20.

bort-jax train cifar10_bcos_resnet20 --data-dir DIR

"""

from bort_jax.train import TrainConfig
from bort_jax.train.augment import Recipe

config = TrainConfig(
  data='cifar10',
  model='bcos_resnet20',
  model_options=('b=2.0', 'max_out=2'),
  init='default',
  logit_scale=False,
  optimizer='adamw',
  learning_rate=1e-3,
  warmup=0.0,
  weight_decay=0.0,
  loss='bce',
  constraint='none',
  epochs=100,
  batch_size=64,
  augment=Recipe(pad_crop=4, flip=True),
  compare=False,
)
