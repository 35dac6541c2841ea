"""Fitting networks: data, step, loop and what a run leaves behind."""

from bort_jax.train.comparison import train as train
from bort_jax.train.config import TrainConfig as TrainConfig
from bort_jax.train.data import Dataset as Dataset
from bort_jax.train.data import load_dataset as load_dataset
from bort_jax.train.loading import load_model as load_model
