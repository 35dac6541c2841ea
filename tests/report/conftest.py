"""A run that several tests read; none of them changes its checkpoints."""

import pytest

from bort_jax.train import TrainConfig, train


@pytest.fixture(scope='session')
def run_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp('runs') / 'tiny'
  train(TrainConfig(run_dir=path, model='patch_net', epochs=1, batch_size=256))
  return path
