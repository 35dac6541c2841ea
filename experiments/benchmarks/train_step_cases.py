"""What train_step.py trains, and how."""

from collections.abc import Callable
from typing import Any, NamedTuple

from bort_jax.train import TrainConfig


class Case(NamedTuple):
  """A network and its pictures."""

  network: str
  batch: int
  image_shape: tuple[int, int, int]
  num_classes: int


class Step(NamedTuple):
  """One step of training, and how many parameters it changes."""

  run: Callable[[], Any]
  parameters: int


CASES = {
  'resnet18': Case('resnet18', 32, (32, 32, 3), 10),
  'resnet50': Case('resnet50', 8, (224, 224, 3), 1000),
  'vit_s': Case('vit_s', 8, (224, 224, 3), 1000),
}


def config_of(case: Case, **options: Any) -> TrainConfig:
  """The settings of a run."""
  is_transformer = case.network.startswith('vit')
  return TrainConfig(
    **{
      'model': case.network,
      'init': 'default',
      'logit_scale': False,
      'optimizer': 'adamw' if is_transformer else 'sgd',
      'learning_rate': 1e-4 if is_transformer else 1e-2,
      'gamma': 1.0,
      'batch_size': case.batch,
      'devices': 1,
      **options,
    }
  )
