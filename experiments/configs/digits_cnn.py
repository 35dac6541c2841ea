"""The digits of scikit-learn, SimpleCNN: the default of ``bort-jax train``.

    bort-jax train digits_cnn

Trains with and without Bort, in about a minute and a half on two CPU cores, no
download. Results with their spread: experiments/reproduce/digits/table.md.
"""

from bort_jax.train import TrainConfig

config = TrainConfig()
