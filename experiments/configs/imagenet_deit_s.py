"""ImageNet, DeiT-S/16: AdamW with Bort, 300 epochs.

    bort-jax train imagenet_deit_s --data-dir DIR --num-workers 16
    bort-jax train imagenet_deit_s --data-dir DIR --constraint none

After DeiT's recipe: batch 1024, learning rate 1e-3, weight decay 0.05,
stochastic depth 0.1, RandAugment, Mixup, CutMix, label smoothing 0.1. It
differs in that there are no distillation, repeated augmentation and random
erasing; pictures are in 0 … 1, resized bilinearly; pictures, not batches, get
Mixup or CutMix; the cosine ends at zero; and the logits have a learned scale.
DeiT reports 79.8 %; the Bort paper 80.41 % with Bort and 79.79 % without. Needs
a node of accelerators. Measured here: that it runs, 200 steps of four pictures;
the loss falls from 6.99 to 6.71 in four passes, with a learning rate scaled to
4e-6 (``imagenet_recipes.py``).
"""

from bort_jax.train import TrainConfig
from bort_jax.train.augment import Recipe

config = TrainConfig(
  data='imagenet2012',
  image_size=224,
  num_workers=8,
  model='deit_s',
  model_options=('drop_path=0.1',),
  init='default',
  precision='bfloat16',
  optimizer='adamw',
  learning_rate=1e-3,
  warmup=5 / 300,
  weight_decay=0.05,
  gamma=10.0,
  epochs=300,
  batch_size=1024,
  label_smoothing=0.1,
  augment=Recipe(
    rand_augment=2, magnitude=9.0, magnitude_std=0.5, mixup=0.8, cutmix=1.0
  ),
  measure_every=10,
  compare=False,
)
