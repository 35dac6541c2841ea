"""The settings of a run."""

import dataclasses
import pathlib
from typing import Literal

from bort_jax.train.errors import RunError
from bort_jax.validation import check_number


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Trains a network twice, with plain AdamW and with Bort, and compares.

  Both start from the same weights and see the same batches. The run directory
  gets config.json, metrics.jsonl, checkpoints/ and figures/.

  Raises:
    RunError: for a setting outside its range; it names the setting.

  Examples:
    >>> from bort_jax.train import TrainConfig
    >>> TrainConfig(epochs=3).data
    'digits'
  """

  data: str = 'digits'
  """Data set: digits (built in), or any TFDS image-classification set of one
  picture size, such as mnist, fashion_mnist or cifar10."""
  data_dir: pathlib.Path | None = None
  """TFDS directory; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
  run_dir: pathlib.Path | None = None
  """Directory to write, which must not exist; by default runs/DATA-TIME."""
  epochs: int | None = None
  """Passes over the training set; by default 20 for digits, else 3."""
  batch_size: int = 64
  """Pictures per step."""
  learning_rate: float = 1e-3
  """Peak learning rate of AdamW, after a warm-up over the first tenth of the
  steps; it then falls to zero along a cosine."""
  weight_decay: float = 1e-4
  """Decoupled weight decay, of the kernels only."""
  constraint: Literal['soft', 'hard'] = 'soft'
  """soft: Bort, with strength gamma. hard: kernels kept exactly orthogonal
  after every step (keep_orthogonal)."""
  gamma: float = 100.0
  """Strength of the soft constraint. Adam resists it; learning_rate times gamma
  should stay below 0.5."""
  amplitude: float = 1.0
  """The kernels' singular values are kept at the root of this."""
  widths: tuple[int, int, int, int, int] = (8, 24, 64, 128, 256)
  """Output channels of the five convolutions; the published network for MNIST
  has 8 24 288 864 2592."""
  kernel_sizes: tuple[int, int, int] | None = None
  """Sides of the three kernels of stride 1; by default 5 4 3 as published, and
  3 3 3 for pictures of fewer than 16 pixels."""
  activation: Literal['leaky_relu', 'relu'] = 'leaky_relu'
  """leaky_relu (slope 0.5, invertible) or relu."""
  init: Literal['orthogonal', 'lecun'] = 'orthogonal'
  """Start of both networks: orthogonal kernels, or Flax's default."""
  logit_scale: bool = True
  """Whether one learned number scales the logits. Without it an orthogonal
  network cannot become confident and loses accuracy."""
  seed: int = 0
  """Seed of the weights and of the order of the pictures."""

  def __post_init__(self):
    try:
      for name in ('learning_rate', 'weight_decay', 'gamma'):
        check_number(name, getattr(self, name))
      check_number('amplitude', self.amplitude, positive=True)
    except ValueError as error:
      raise RunError(str(error)) from None
    for name in ('epochs', 'batch_size'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise RunError(f'{name} must be at least 1, got {value}.')
    if min(*self.widths, *(self.kernel_sizes or ())) < 1:
      raise RunError(
        f'widths and kernel_sizes must be at least 1, got {self.widths} and'
        f' {self.kernel_sizes}.'
      )

  @property
  def num_epochs(self) -> int:
    """The number of epochs, with the default filled in."""
    return self.epochs or (20 if self.data == 'digits' else 3)
