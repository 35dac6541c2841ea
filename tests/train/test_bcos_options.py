"""The settings that all B-cos networks share are options of a run."""

from typing import Any

import pytest

from bort_jax.train.config import TrainConfig
from bort_jax.train.errors import RunError
from bort_jax.train.network import make_model


def test_runs_set_what_b_cos_networks_share():
  config = TrainConfig(
    model='bcos_resnet8', model_options=('b=1.25', 'max_out=2', 'norm=layer')
  )
  model: Any = make_model(config, (8, 8, 3), 4, axis_name='batch')
  block = model.stages[0][0]
  assert (block.conv1.b, block.conv1.max_out) == (1.25, 2)
  assert (block.norm1.kind, block.norm1.axis_name) == ('layer', 'batch')


def test_unknown_options_of_b_cos_networks_are_refused():
  config = TrainConfig(model='bcos_resnet8', model_options=('max_outs=2',))
  with pytest.raises(RunError, match="Did you mean 'max_out'"):
    make_model(config, (8, 8, 3), 4)
