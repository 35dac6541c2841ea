"""Whole runs in unlike ways, stopped, resumed and evaluated in other ones."""

import numpy as np
import pytest
from run_helpers import Interrupt, Interrupting

from bort_jax.train import TrainConfig, train
from bort_jax.train.report import evaluate_run
from bort_jax.train.run_dir import read_config

WAYS = {
  'batch statistics': (
    {
      'model': 'resnet8',
      'optimizer': 'sgd',
      'precision': 'bfloat16',
      'accumulate': 2,
      'clip_norm': 1.0,
      'gamma': 0.1,
      'ema': 0.9,
    },
    {'devices': 2, 'fsdp': 2},
    {'devices': 2, 'parallel': 'pmap'},
  ),
  'stochastic depth': (
    {
      'model': 'vit_ti',
      'model_options': (
        *('patch_size=4', 'width=24', 'num_heads=2', 'depth=2'),
        'drop_path=0.1',
      ),
      'optimizer': 'muon',
      'learning_rate': 0.01,
      'constraint': 'hard',
    },
    {'devices': 2, 'parallel': 'pmap'},
    {'devices': 1},
  ),
}


@pytest.mark.slow
@pytest.mark.parametrize('way', WAYS)
def test_a_run_goes_on_and_is_evaluated_on_another_layout(tmp_path, way):
  options, layout, other = WAYS[way]
  config = {
    'run_dir': tmp_path / 'run',
    'epochs': 2,
    'batch_size': 704,
    'init': 'default',
    'compare': False,
    'checkpoint_steps': 1,
    **options,
  }
  with pytest.raises(Interrupt):
    train(TrainConfig(**config, **layout), Interrupting('bort', 3))
  resumed = train(TrainConfig(**config, **other, resume=True))
  fit = resumed.fits['bort']
  assert [step.step for step in fit.steps] == [1, 2, 3, 4]
  assert np.isfinite([step.loss for step in fit.steps]).all()
  (evaluation,) = evaluate_run(read_config(tmp_path / 'run'))
  assert evaluation.step == 4
  accuracy = resumed.rows[0].test_accuracy
  assert abs(evaluation.test_accuracy - accuracy) < 0.01
  if options.get('constraint') == 'hard':
    assert evaluation.orthogonality_error < 1e-5
