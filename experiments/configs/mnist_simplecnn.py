"""MNIST, SimpleCNN at the published widths, BortA as published.

    bort-jax train mnist_simplecnn --data-dir DIR

After the published script: BortA at 1e-3 without a schedule, γ = 1, l1-fullrow,
batch 256, 40 epochs, leaky ReLU, no logit scale. It differs in the network
(theirs, ACNNSmall, was not published), pictures in 0 … 1 and a weight decay of
1e-4, which is ours. It begins with a caution about conv3, which is due to these
settings: 1e-3 · γ · 2592 outputs is above 2, the limit of an l1 mode;
``--mode l2-full`` is stable. Needs an accelerator: on two CPU cores an epoch
takes about an hour. Not measured to the end here.
"""

from bort_jax.train import TrainConfig

config = TrainConfig(
  data='mnist',
  model='simple_cnn',
  model_options=('widths=(8, 24, 288, 864, 2592)',),
  init='lecun',
  logit_scale=False,
  optimizer='adamw',
  learning_rate=1e-3,
  schedule='constant',
  warmup=0.0,
  gamma=1.0,
  mode='l1-fullrow',
  epochs=40,
  batch_size=256,
  compare=False,
)
