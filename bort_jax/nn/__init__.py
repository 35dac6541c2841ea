"""Networks, in Flax NNX."""

from bort_jax.nn.functional import functional as functional
from bort_jax.nn.logit_scale import LogitScale as LogitScale
from bort_jax.nn.registry import create as create
from bort_jax.nn.simple_cnn import SimpleCNN as SimpleCNN
