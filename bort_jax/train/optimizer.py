"""The optimizer of a run, with the constraint or without."""

from functools import partial
from typing import Any

import optax

from bort_jax import (
  bort_adamw,
  bort_lamb,
  bort_muon,
  bort_sgd,
  keep_orthogonal,
)
from bort_jax.selection import map_matrices
from bort_jax.train.adaptive_clip import adaptive_clip
from bort_jax.train.config import TrainConfig
from bort_jax.train.errors import RunError

_MAKERS = {
  'sgd': bort_sgd,
  'adamw': bort_adamw,
  'lamb': bort_lamb,
  'muon': bort_muon,
}


def make_optimizer(
  config: TrainConfig, num_steps: int, constrained: bool
) -> optax.GradientTransformationExtraArgs:
  """The optimizer of one network.

  The gradient is clipped, if it is, before the constraint adds to it.

  Args:
    config: the settings.
    num_steps: steps that the schedule spans; one in ``accumulate`` updates.
    constrained: whether under the constraint. Without it, this is the same
      optimizer with γ = 0.

  Returns:
    The optimizer.

  Raises:
    RunError: if the settings contradict each other.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.train import TrainConfig
    >>> from bort_jax.train.optimizer import make_optimizer
    >>> tx = make_optimizer(TrainConfig(optimizer='sgd'), 100, True)
    >>> params = {'kernel': jnp.eye(2)}
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> updates['kernel'].shape
    (2, 2)
  """
  soft = constrained and config.constraint == 'soft'
  options: dict[str, Any] = {'weight_decay': config.weight_decay}
  if soft:
    options |= {'amplitude': config.amplitude, 'mode': config.mode}
    if config.every > 1:  # else nothing needs to be counted
      options['every'] = config.every
  if config.optimizer == 'sgd':
    options['momentum'] = config.momentum
  if config.accumulate > num_steps:
    raise RunError(
      f'accumulate {config.accumulate} is more than all {num_steps} steps: the'
      ' weights would never change. Lower --accumulate.'
    )
  rate = schedule(config, num_steps // config.accumulate)
  gamma = config.gamma if soft else 0.0
  make = partial(_MAKERS[config.optimizer], rate, gamma, **options)
  try:
    make()  # a decay that wins is refused at once where no mask is given
    links = [make(weight_decay_mask=kernels)]
  except ValueError as error:
    raise RunError(str(error)) from None
  if config.clip_norm is not None:
    links.insert(0, optax.clip_by_global_norm(config.clip_norm))
  if config.clip_adaptive is not None:
    links.insert(0, adaptive_clip(config.clip_adaptive))
  if constrained and config.constraint == 'hard':
    links.append(keep_orthogonal(config.amplitude))
  tx = optax.chain(*links)
  if config.accumulate > 1:
    tx = optax.MultiSteps(tx, config.accumulate).gradient_transformation()
  return optax.with_extra_args_support(tx)


def schedule(config: TrainConfig, num_updates: int) -> optax.Schedule:
  """A linear warm-up, then a cosine to zero or a constant."""
  warmup = int(config.warmup * num_updates)
  if config.schedule == 'cosine':
    return optax.warmup_cosine_decay_schedule(
      0.0, config.learning_rate, warmup, num_updates
    )
  if warmup == 0:  # of which optax makes a rate of zero
    return optax.constant_schedule(config.learning_rate)
  return optax.warmup_constant_schedule(0.0, config.learning_rate, warmup)


def kernels(params: Any) -> Any:
  """A tree of whether each parameter is a weight matrix."""
  return map_matrices(
    lambda view, w: True, None, params, others=lambda w: False
  )
