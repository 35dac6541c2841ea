"""What is compared: an optimizer, and what is done for orthogonality."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import optax
from penalties import PENALTIES, add_penalty

from bort_jax import (
  bort_adamw,
  bort_lamb,
  bort_muon,
  bort_sgd,
  keep_orthogonal,
)
from bort_jax.correction import Mode
from bort_jax.selection import default_rule
from bort_jax.train.optimizer import kernels

_MAKERS: dict[str, Callable[..., Any]] = {
  'sgd': bort_sgd,
  'adamw': bort_adamw,
  'lamb': bort_lamb,
  'muon': bort_muon,
}
_MOMENTUM = 0.9  # of SGD
_WARMUP = 0.1  # share of the steps


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way to train; weights, batches and all else are those of the seed."""

  optimizer: Literal['sgd', 'adamw', 'lamb', 'muon'] = 'adamw'
  init: Literal['orthogonal', 'lecun'] = 'orthogonal'
  constraint: Literal['none', 'soft', 'hard'] = 'none'
  gamma: float = 0.0
  amplitude: float | Literal['ada'] = 1.0
  mode: Mode = 'l2-full'
  penalty: Literal['none', 'so', 'srip'] = 'none'
  strength: float = 0.0  # of the penalty
  logit_scale: bool = True
  batch_norm: bool = False
  head: bool = True  # whether it is constrained too
  every: int | None = None  # steps in which each matrix has one turn
  schedule: Literal['cosine', 'half constant'] = 'cosine'


def optimizer_of(
  arm: Arm,
  learning_rate: jax.typing.ArrayLike,
  weight_decay: Any,
  num_steps: int,
) -> optax.GradientTransformationExtraArgs:
  """The optimizer of an arm; both numbers may be traced.

  Kernels alone decay.
  """
  shape = shape_of(arm, num_steps)
  rate = lambda count: learning_rate * shape(count)
  axes = None if arm.head else without_head
  options: dict[str, Any] = {
    'weight_decay': weight_decay,
    'weight_decay_mask': kernels,
  }
  if arm.optimizer == 'sgd':
    options['momentum'] = _MOMENTUM
  soft = arm.constraint == 'soft'
  if soft:
    options |= {
      'amplitude': arm.amplitude,
      'mode': arm.mode,
      'axes': axes,
      'every': arm.every,
    }
  gamma = arm.gamma if soft else 0.0
  links = [_MAKERS[arm.optimizer](rate, gamma, **options)]
  if arm.penalty != 'none':
    links.insert(0, add_penalty(PENALTIES[arm.penalty], arm.strength))
  if arm.constraint == 'hard':
    links.append(keep_orthogonal(start_amplitude(arm), axes=axes))
  return optax.with_extra_args_support(optax.chain(*links))


def shape_of(arm: Arm, num_steps: int) -> optax.Schedule:
  """The learning rate as a share of its peak.

  It rises over the first tenth of the steps, and falls to zero as a cosine: at
  once, or after half of the steps.
  """
  warmup = int(_WARMUP * num_steps)
  if arm.schedule == 'cosine':
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, num_steps)
  half = num_steps // 2
  return optax.join_schedules(
    [
      optax.linear_schedule(0.0, 1.0, warmup),
      optax.constant_schedule(1.0),
      optax.cosine_decay_schedule(1.0, num_steps - half),
    ],
    [warmup, half],
  )


def start_amplitude(arm: Arm) -> float:
  """That of the kernels at the start."""
  return 1.0 if arm.amplitude == 'ada' else arm.amplitude


def without_head(path: str, leaf: Any) -> Any:
  """The default choice of matrices, but for the classifier."""
  return None if path.split('/')[0] == 'head' else default_rule(path, leaf)
