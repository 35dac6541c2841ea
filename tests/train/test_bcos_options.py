"""The settings that all B-cos networks share are options of a run."""

import math
from typing import Any

import pytest
from flax import nnx

from bort_jax.configs import load_config
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


def test_an_option_of_the_wrong_kind_is_named():
  config = TrainConfig(model='simple_cnn', model_options=('widths=3',))
  with pytest.raises(RunError, match="'simple_cnn' with widths=3: "):
    make_model(config, (8, 8, 1), 10)


def test_the_published_recipe_is_a_configuration():
  config = load_config('cifar10_bcos_resnet20')
  model: Any = nnx.eval_shape(lambda: make_model(config, (32, 32, 3), 10))
  assert len([*model.stages[0]]) == 3
  conv = model.stages[0][0].conv1
  assert (conv.b, conv.max_out, conv.normalize) == (2.0, 2, True)
  assert model.ends.scale is None
  assert model.ends.logits.bias == pytest.approx(-math.log(9))
  norm = model.stages[0][0].norm1
  assert (norm.kind, norm.centered, norm.bias) == ('batch', False, None)
  assert (config.loss, config.weight_decay, config.warmup) == ('bce', 0.0, 0.0)
