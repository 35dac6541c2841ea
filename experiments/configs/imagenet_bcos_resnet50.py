"""ImageNet, B-cos ResNet-50: the published recipe.

    bort-jax train imagenet_bcos_resnet50 --data-dir DIR --num-workers 16

After the authors' second code: Adam at 1e-3 with five epochs of warm-up and a
cosine, batch 256, 90 epochs, binary cross-entropy with no target below 1/1000,
adaptive gradient clipping at 0.01, random crops and mirrors, B = 2, uncentred
batch norm without bias. Published: 75.88 % top-1. Needs a node of accelerators.
Measured here: that it runs, 200 steps of four pictures; the loss falls from
0.01481 to 0.01479 in four passes, with a learning rate scaled by the batch
(``imagenet_recipes.py``).
"""

from bort_jax.train import TrainConfig

config = TrainConfig(
  data='imagenet2012',
  image_size=224,
  num_workers=8,
  model='bcos_resnet50',
  model_options=('b=2.0',),
  init='default',
  logit_scale=False,
  optimizer='adamw',
  learning_rate=1e-3,
  warmup=5 / 90,
  weight_decay=0.0,
  clip_adaptive=0.01,
  loss='bce_uniform_off',
  constraint='none',
  epochs=90,
  batch_size=256,
  measure_every=10,
  compare=False,
)
