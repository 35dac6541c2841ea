"""Measures that judge what explains a network."""

from bort_jax.metrics.reconstruction import (
  ReconstructionError as ReconstructionError,
)
from bort_jax.metrics.reconstruction import (
  reconstruction_error as reconstruction_error,
)
