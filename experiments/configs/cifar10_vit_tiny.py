"""CIFAR-10, a small ViT of 4×4 patches: AdamW with Bort.

    bort-jax train cifar10_vit_tiny --data-dir DIR
    bort-jax train cifar10_vit_tiny --data-dir DIR --constraint none

Needs an accelerator: on two CPU cores an epoch takes about a quarter of an
hour. Not measured to the end here.
"""

from bort_jax.train import TrainConfig
from bort_jax.train.augment import Recipe

config = TrainConfig(
  data='cifar10',
  model='vit_ti',
  model_options=('patch_size=4', 'depth=6', "pooling='mean'", 'drop_path=0.1'),
  init='default',
  precision='bfloat16',
  optimizer='adamw',
  learning_rate=1e-3,
  warmup=0.05,
  weight_decay=0.05,
  clip_norm=1.0,
  gamma=10.0,
  epochs=200,
  batch_size=256,
  label_smoothing=0.1,
  augment=Recipe(pad_crop=4, flip=True, rand_augment=2, mixup=0.2),
  compare=False,
)
