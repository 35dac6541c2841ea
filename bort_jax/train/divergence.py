"""Training that leaves the finite numbers, and what to do about it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax import MatrixAxes, spectrum
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
  measured = [epoch for epoch in epochs if epoch.kernels]
  is_soft = network == 'bort' and config.constraint == 'soft'
  has_law = config.optimizer != 'lamb' and config.mode == 'l2-full'
  if not (is_soft and has_law and measured):
    return advice + ').'
  last = measured[-1]
  return (
    f'{advice}; with the kernels as they were after step {last.step}, the'
    f' constraint alone is stable up to {_safe_rate(last, config):.3g}).'
  )


def _safe_rate(epoch: Epoch, config: TrainConfig) -> float:
  """The limit that spectrum.check names for weights of those spreads."""
  safe = spectrum.largest_safe_step(
    {  # any matrices of these singular values
      path: jnp.diag(jnp.array([spread.smallest, spread.largest]))
      for path, spread in epoch.kernels.items()
    },
    config.gamma,
    amplitude=config.amplitude,
    momentum=config.momentum if config.optimizer == 'sgd' else 0.0,
    axes=MatrixAxes(0, 1),
    every=config.every,
  )
  return float(min(safe.values()))
