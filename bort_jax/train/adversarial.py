"""The settings of training on adversarial pictures."""

import dataclasses
import math
from typing import Literal, get_args

from bort_jax.train.errors import RunError

AttackName = Literal['none', 'fgsm', 'pgd']


@dataclasses.dataclass(frozen=True)
class Adversarial:
  """Adversarial pictures in training, and the consistent loss; by default none.

  Attributes:
    attack: how adversarial pictures are made, fgsm or pgd; none trains on
      pictures as they are.
    epsilon: greatest change of a pixel of 0 … 1; each picture draws its own
      between zero and this.
    attack_steps: steps of pgd.
    beta: weight of the consistent loss, the mean over the layers of the squared
      distance of what they make of a picture and of its adversarial one; 0
      leaves it out.
    consistent_layers: names of these layers; by default all that the network
      names, but the logits.

  Raises:
    RunError: if a setting is outside its range.
  """

  attack: AttackName = 'none'
  epsilon: float = 0.1
  attack_steps: int = 7
  beta: float = 0.1
  consistent_layers: tuple[str, ...] = ()

  def __post_init__(self):
    if self.attack not in get_args(AttackName):
      raise RunError(
        f'attack must be one of {", ".join(get_args(AttackName))}, got'
        f' {self.attack!r}.'
      )
    check_epsilon(self.epsilon)
    if self.attack_steps < 1:
      raise RunError(
        f'attack_steps must be at least 1, got {self.attack_steps}.'
      )
    if not (self.beta >= 0 and math.isfinite(self.beta)):
      raise RunError(f'beta must be a finite number >= 0, got {self.beta!r}.')
    if self.attack == 'none' and self.consistent_layers:
      raise RunError(
        'consistent_layers are compared on adversarial pictures: choose an'
        ' --attack too, fgsm or pgd.'
      )

  @property
  def is_on(self) -> bool:
    """Whether there are adversarial pictures at all."""
    return self.attack != 'none'

  @property
  def compares_layers(self) -> bool:
    """Whether the consistent loss counts."""
    return self.is_on and self.beta > 0


def check_epsilon(epsilon: float) -> None:
  """Refuses a change of pixels that is none, or more than their range."""
  if not 0 < epsilon <= 1:
    raise RunError(
      f'epsilon must be above 0 and at most 1, got {epsilon!r}: pixels are 0 …'
      ' 1, so 8 of 255 levels are 0.0314.'
    )
