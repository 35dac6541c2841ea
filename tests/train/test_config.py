"""Settings are checked before anything else happens."""

import math

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
    ('widths', (8, 24, 0, 128, 256)),
    ('kernel_sizes', (3, 0, 3)),
  ],
)
def test_refuses_and_names(name, value):
  with pytest.raises(RunError, match=name):
    TrainConfig(**{name: value})


def test_epochs_depend_on_the_data_unless_given():
  assert TrainConfig().num_epochs == 20
  assert TrainConfig(data='mnist').num_epochs == 3
  assert TrainConfig(data='mnist', epochs=7).num_epochs == 7
