"""MNIST, B-cos ResNet-8.

bort-jax train mnist_bcos_resnet8 --data-dir DIR

"""

from bort_jax.train import TrainConfig

config = TrainConfig(
  data='mnist',
  model='bcos_resnet8',
  model_options=('b=2.0',),
  init='default',
  logit_scale=False,
  optimizer='adamw',
  learning_rate=1e-3,
  warmup=0.0,
  weight_decay=0.0,
  loss='bce',
  constraint='none',
  epochs=3,
  batch_size=64,
  compare=False,
)
