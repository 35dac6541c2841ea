"""The optimizers of a comparison: plain AdamW, and AdamW with Bort."""

from typing import Any

import optax

from bort_jax import bort_adamw, keep_orthogonal
from bort_jax.selection import map_matrices
from bort_jax.train.config import TrainConfig
from bort_jax.train.errors import RunError


def make_optimizers(
  config: TrainConfig, num_steps: int
) -> dict[str, optax.GradientTransformation]:
  """The optimizer of each network by the network's name.

  Args:
    config: the settings.
    num_steps: steps that the schedule spans.

  Returns:
    ``adamw`` and ``bort``, which differ in the constraint alone.

  Raises:
    RunError: if the settings contradict each other.

  Examples:
    >>> from bort_jax.train import TrainConfig
    >>> from bort_jax.train.optimizer import make_optimizers
    >>> list(make_optimizers(TrainConfig(), num_steps=100))
    ['adamw', 'bort']
  """
  rate = schedule(config, num_steps)
  adamw = optax.adamw(rate, weight_decay=config.weight_decay, mask=kernels)
  if config.constraint == 'hard':
    hard = keep_orthogonal(config.amplitude)
    return {'adamw': adamw, 'bort': optax.chain(adamw, hard)}
  try:
    bort = bort_adamw(
      rate,
      config.gamma,
      weight_decay=config.weight_decay,
      weight_decay_mask=kernels,
      amplitude=config.amplitude,
    )
  except ValueError as error:
    raise RunError(str(error)) from None
  return {'adamw': adamw, 'bort': bort}


def schedule(config: TrainConfig, num_steps: int) -> optax.Schedule:
  """A warm-up over the first tenth of the steps, then a cosine to zero."""
  return optax.warmup_cosine_decay_schedule(
    0.0, config.learning_rate, num_steps // 10, num_steps
  )


def kernels(params: Any) -> Any:
  """A tree of whether each parameter is a weight matrix."""
  return map_matrices(
    lambda view, w: True, None, params, others=lambda w: False
  )
