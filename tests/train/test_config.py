"""Settings are checked before anything else happens."""

import math
import pathlib

import pytest

from bort_jax.train import TrainConfig
from bort_jax.train.errors import RunError


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('learning_rate', -1e-3),
    ('learning_rate', math.nan),
    ('weight_decay', math.inf),
    ('gamma', -1.0),
    ('amplitude', 0.0),
    ('epochs', 0),
    ('batch_size', -4),
    ('seed', -1),
    ('momentum', 1.0),
    ('warmup', 1.5),
    ('ema', 1.0),
    ('clip_norm', 0.0),
    ('clip_adaptive', 0.0),
    ('accumulate', 0),
    ('every', 0),
    ('label_smoothing', -0.1),
    ('num_workers', -1),
  ],
)
def test_refuses_and_names(name, value):
  with pytest.raises(RunError, match=name):
    TrainConfig(**{name: value})


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('constraint', 'Soft'),
    ('precision', 'bf16'),
    ('schedule', 'linear'),
    ('optimizer', 'adam'),
    ('mode', 'l3'),
    ('loss', 'hinge'),
  ],
)
def test_refuses_choices_that_are_none(name, value):
  with pytest.raises(
    RunError, match=f'{name} must be one of .*, got {value!r}'
  ):
    TrainConfig(**{name: value})


def test_the_hard_constraint_takes_no_turns():
  with pytest.raises(RunError, match='leave out --every'):
    TrainConfig(constraint='hard', every=4)
  assert TrainConfig(constraint='none', every=4).every == 4


def test_directories_may_be_strings():
  config = TrainConfig(run_dir='there', data_dir='here')  # pyright: ignore
  assert config.run_dir == pathlib.Path('there')
  assert config.data_dir == pathlib.Path('here')


def test_epochs_depend_on_the_data_unless_given():
  assert TrainConfig().num_epochs == 15
  assert TrainConfig(data='mnist').num_epochs == 3
  assert TrainConfig(data='mnist', epochs=7).num_epochs == 7
