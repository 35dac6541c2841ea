"""Training that leaves the finite numbers, and what to do about it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax import spectrum
from bort_jax.train.config import TrainConfig
from bort_jax.train.errors import DivergedError
from bort_jax.train.metrics import Epoch, Step


def check_losses(
  network: str, steps: list[Step], epochs: list[Epoch], config: TrainConfig
) -> None:
  """Refuses to go on after a loss that is not finite."""
  for step in steps:
    if not np.isfinite(step.loss):
      raise DivergedError(
        f'The loss of {network!r} is {step.loss} at step {step.step}.'
        f' {_remedy(network, epochs, config)}'
      )


def check_params(
  network: str,
  params: Any,
  step: int,
  epochs: list[Epoch],
  config: TrainConfig,
) -> None:
  """Refuses to go on with, or to save, parameters that are not finite."""
  if not _all_finite(params):
    raise DivergedError(
      f'The parameters of {network!r} are not finite after step {step}.'
      f' {_remedy(network, epochs, config)}'
    )


@jax.jit
def _all_finite(params: Any) -> jax.Array:
  finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]
  return jnp.stack(finite).all()


def _remedy(network: str, epochs: list[Epoch], config: TrainConfig) -> str:
  kept = ''
  if epochs:
    kept = f'The checkpoint after step {epochs[-1].step} is kept. '
  if config.checkpoint_steps is not None:
    kept = 'The last checkpoint is kept. '
  advice = f'{kept}Lower --learning-rate (it is {config.learning_rate:g}'
  measured = [epoch.kernels for epoch in epochs if epoch.kernels]
  if network != 'bort' or config.constraint == 'hard' or not measured:
    return advice + ').'
  largest = max(spread.largest for spread in measured[-1].values())
  safe = spectrum.largest_safe_step(
    {'kernel': jnp.full((1, 1), largest)},  # the matrix of that singular value
    config.gamma,
    amplitude=config.amplitude,
  )
  return (
    f'{advice}; the constraint alone is stable up to {safe["kernel"]:.3g}).'
  )
