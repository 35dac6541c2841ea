"""What train_step.py trains, and how.

The project is imported where it is needed, not by the others' steps.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
  from bort_jax.train import TrainConfig


class Case(NamedTuple):
  """A network and its pictures."""

  network: str
  batch: int
  image_shape: tuple[int, int, int]
  num_classes: int
  rivals: bool = True  # whether others' steps, and pmap, are timed beside ours

  @property
  def optimizer(self) -> str:
    """AdamW trains transformers."""
    return 'adamw' if self.network.startswith('vit') else 'sgd'

  @property
  def learning_rate(self) -> float:
    """The greatest."""
    return 1e-4 if self.optimizer == 'adamw' else 1e-2


class Step(NamedTuple):
  """One step of training, and how many parameters it changes."""

  run: Callable[[], Any]
  parameters: int


UPDATES, WARMUP = 1000, 0.1  # of a run, and the share of them that warms up
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
CASES = {
  'resnet18': Case('resnet18', 32, (32, 32, 3), 10),
  'resnet50': Case('resnet50', 8, (224, 224, 3), 1000),
  'resnet50, large': Case('resnet50', 32, (224, 224, 3), 1000, rivals=False),
  'vit_s': Case('vit_s', 8, (224, 224, 3), 1000),
}


def config_of(case: Case, **options: Any) -> 'TrainConfig':
  """The settings of a run."""
  from bort_jax.train import TrainConfig

  return TrainConfig(
    **{
      'model': case.network,
      'init': 'default',
      'logit_scale': False,
      'optimizer': case.optimizer,
      'learning_rate': case.learning_rate,
      'warmup': WARMUP,
      'momentum': MOMENTUM,
      'weight_decay': WEIGHT_DECAY,
      'gamma': 1.0,
      'batch_size': case.batch,
      'devices': 1,
      **options,
    }
  )
