"""The settings of a run."""

import dataclasses
import pathlib
from typing import Literal, get_args, get_origin, get_type_hints

from bort_jax.correction import Mode
from bort_jax.train.adversarial import Adversarial
from bort_jax.train.augment import Recipe
from bort_jax.train.errors import RunError
from bort_jax.train.losses import Loss
from bort_jax.validation import check_momentum, check_number

_COUNTS = (
  'epochs',
  'batch_size',
  'accumulate',
  'every',
  'fsdp',
  'devices',
  'checkpoint_steps',
  'keep',
  'measure_every',
)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Trains a network, by default twice: without Bort and with it.

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
  """Data set: digits (built in), or any TFDS image-classification set, such as
  mnist, fashion_mnist, cifar10 or imagenet2012."""
  data_dir: pathlib.Path | None = None
  """TFDS directory; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
  train_split: str = 'train'
  """Part of the set to train on, as TFDS writes it: train, train[:90%], …"""
  test_split: str | None = None
  """Part to evaluate on, such as train[90%:]; by default test or, where that
  has no labels, validation."""
  image_size: int | None = None
  """Side to which pictures are cropped and resized while they are read from
  disk; by default pictures of one size are held in memory as they are."""
  num_workers: int = 0
  """Processes that decode pictures; 0 decodes in threads of this one."""
  run_dir: pathlib.Path | None = None
  """Directory to write, which must not exist; by default runs/DATA-TIME."""
  resume: bool = False
  """Goes on with the run in run_dir where it stopped, and starts it if there is
  none: so a command may be repeated until it is through."""
  compare: bool = True
  """Whether the network is trained without the constraint too, and the two are
  compared."""

  model: str = 'simple_cnn'
  """Network, by its name in bort_jax.nn.create."""
  model_options: tuple[str, ...] = ()
  """Further arguments of the network's class as NAME=VALUE, a Python literal:
  widths=(8,24,288,864,2592), patch_size=4, drop_path=0.1."""
  init: Literal['orthogonal', 'lecun', 'default'] = 'orthogonal'
  """Kernels at the start: orthogonal, Flax's lecun_normal, or the network's own
  default. Both networks start alike."""
  logit_scale: bool = True
  """Whether one learned number scales the logits. Without it an orthogonal
  network cannot become confident and loses accuracy."""
  precision: Literal['float32', 'bfloat16'] = 'float32'
  """Of the computation; parameters are float32."""

  optimizer: Literal['sgd', 'adamw', 'lamb', 'muon'] = 'adamw'
  """Optimizer, plain and under the constraint."""
  learning_rate: float = 1e-3
  """Peak learning rate."""
  schedule: Literal['cosine', 'constant'] = 'cosine'
  """How the learning rate goes on after the warm-up."""
  warmup: float = 0.1
  """Share of the steps over which the learning rate rises from zero."""
  momentum: float = 0.9
  """Momentum of sgd."""
  weight_decay: float = 1e-4
  """Weight decay, of the kernels only; decoupled but for sgd."""
  clip_norm: float | None = None
  """Largest global norm of the gradient."""
  clip_adaptive: float | None = None
  """Largest norm of each unit's gradient, as a share of the norm of its weights
  (adaptive gradient clipping; B-cos networks on ImageNet are trained with
  0.01)."""
  accumulate: int = 1
  """Batches whose gradients are averaged for one update."""
  ema: float | None = None
  """Decay of a running average of the parameters, with which the network is
  evaluated; None keeps none."""
  loss: Loss = 'softmax'
  """softmax: cross-entropy. bce: binary cross-entropy of each class, as B-cos
  networks are trained with. bce_uniform_off: the same, with targets of at
  least one over the number of classes while training; bce in evaluation."""
  label_smoothing: float = 0.0
  """Probability taken from the true class and spread over all."""

  constraint: Literal['none', 'soft', 'hard'] = 'soft'
  """soft: Bort, with strength gamma. hard: kernels kept exactly orthogonal
  after every step (keep_orthogonal)."""
  gamma: float = 100.0
  """Strength of the soft constraint. Adam resists it; learning_rate times gamma
  should stay below 0.5."""
  every: int = 1
  """Steps in which the soft constraint corrects each kernel once, with gamma
  times as many: the kernels take turns, and a step costs less. learning_rate
  times gamma times this should stay below 0.5."""
  amplitude: float = 1.0
  """The kernels' singular values are kept at the root of this."""
  mode: Mode = 'l2-full'
  """Which of the published constraints, see bort_jax.bort."""

  epochs: int | None = None
  """Passes over the training set; by default 15 for digits, else 3."""
  batch_size: int = 64
  """Pictures per step, over all devices."""
  augment: Recipe = Recipe()
  """Changes to the training pictures; none by default."""
  adversarial: Adversarial = Adversarial()
  """Adversarial pictures beside them, and the consistent loss; by default
  none."""

  parallel: Literal['jit', 'pmap'] = 'jit'
  """jit: one program over a mesh of devices. pmap: one program per device."""
  fsdp: int = 1
  """Devices over which parameters and optimizer state are sharded (jit)."""
  devices: int | None = None
  """Devices used; by default all."""

  checkpoint_steps: int | None = None
  """Steps between two checkpoints; by default one after every epoch."""
  keep: int = 1
  """Newest checkpoints kept, besides the best."""
  measure_every: int = 1
  """Epochs between two measurements of the kernels' singular values."""
  seed: int = 0
  """Seed of the weights, of the order of the pictures and of their changes."""

  def __post_init__(self):
    for name in ('data_dir', 'run_dir'):
      value = getattr(self, name)
      if value is not None:  # a string is as good as a path
        object.__setattr__(self, name, pathlib.Path(value))
    _check_choices(self)
    try:
      for name in ('learning_rate', 'weight_decay', 'gamma'):
        check_number(name, getattr(self, name))
      check_number('amplitude', self.amplitude, positive=True)
      for name in ('clip_norm', 'clip_adaptive'):
        value = getattr(self, name)
        if value is not None:
          check_number(name, value, positive=True)
      check_momentum(self.momentum)
    except ValueError as error:
      raise RunError(str(error)) from None
    for name in _COUNTS:
      value = getattr(self, name)
      if value is not None and value < 1:
        raise RunError(f'{name} must be at least 1, got {value}.')
    for name in ('warmup', 'label_smoothing', 'ema'):
      value = getattr(self, name)
      if value is not None and not 0 <= value < 1:
        raise RunError(f'{name} must be in [0, 1), got {value}.')
    for name in ('num_workers', 'seed'):
      if getattr(self, name) < 0:
        raise RunError(f'{name} must be >= 0, got {getattr(self, name)}.')
    if self.resume and self.run_dir is None:
      raise RunError('resume needs run_dir: say with --run-dir which run.')
    if self.every > 1 and self.constraint == 'hard':
      raise RunError(
        'every lets kernels take turns under the soft constraint, and the hard'
        ' one holds after every step: leave out --every or --constraint hard.'
      )
    mixes = self.augment.mixup or self.augment.cutmix
    if mixes and self.batch_size % 2:
      raise RunError(
        f'mixup and cutmix pair pictures: batch_size {self.batch_size} must be'
        ' even.'
      )
    if self.fsdp > 1 and self.parallel == 'pmap':
      raise RunError('fsdp shards over a mesh: leave out --parallel pmap.')

  @property
  def num_epochs(self) -> int:
    """The number of epochs, with the default filled in."""
    return self.epochs or (15 if self.data == 'digits' else 3)

  @property
  def networks(self) -> dict[str, bool]:
    """What is trained in turn, by name: whether under the constraint."""
    plain, bort = {self.optimizer: False}, {'bort': True}
    if self.constraint == 'none':
      return plain
    return {**bort, **plain} if self.compare else bort


def _check_choices(config: TrainConfig) -> None:
  for name, hint in get_type_hints(TrainConfig).items():
    value, choices = getattr(config, name), get_args(hint)
    if get_origin(hint) is Literal and value not in choices:
      raise RunError(
        f'{name} must be one of {", ".join(choices)}, got {value!r}.'
      )
