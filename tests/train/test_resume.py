"""A run that is interrupted ends like one that is not."""

import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from bort_jax.train import TrainConfig, train
from bort_jax.train.augment import Recipe

SMALL = {
  'epochs': 2,
  'batch_size': 128,
  'model_options': ('widths=(4,6,8,10,12)',),
  'ema': 0.9,
  'augment': Recipe(pad_crop=1, cutout=2),
  'label_smoothing': 0.1,
}
STEPS = 22  # of each network
KILLS = 20

SCRIPT = """
import pathlib, sys
from bort_jax.train import TrainConfig, train
from bort_jax.train.augment import Recipe
from bort_jax.train.comparison import Listener

class Loud(Listener):
  def stepped(self, network, steps, pace):
    print(network, steps[-1].step, flush=True)

config = TrainConfig(
  run_dir=pathlib.Path(sys.argv[1]), resume=True, checkpoint_steps=1, **{small}
)
train(config, Loud())
print('finished', flush=True)
"""


def run(path, **options):
  return train(TrainConfig(run_dir=path, **{**SMALL, **options}))


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  path = tmp_path_factory.mktemp('runs') / 'whole'
  return path, run(path, checkpoint_steps=1)


def metrics_of(path):
  return (path / 'metrics.jsonl').read_text()


def assert_same_end(path, comparison, expected_path, expected):
  assert metrics_of(path) == metrics_of(expected_path)
  for name, fit in expected.fits.items():
    for x, y in zip(
      jax.tree.leaves(fit.state),
      jax.tree.leaves(comparison.fits[name].state),
      strict=True,
    ):
      np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


class Interrupt(Exception):
  pass


def interrupted_at(path, network, step):
  """A run whose listener fails at a step, as a crash would."""
  from bort_jax.train.comparison import Listener

  class Failing(Listener):
    def stepped(self, name, steps, pace):
      if name == network and steps[-1].step >= step:
        raise Interrupt

  config = TrainConfig(run_dir=path, checkpoint_steps=1, **SMALL)
  with pytest.raises(Interrupt):
    train(config, Failing())


@pytest.mark.parametrize(('network', 'step'), [('adamw', 7), ('bort', 13)])
def test_resuming_is_bit_exact(uninterrupted, tmp_path, network, step):
  expected_path, expected = uninterrupted
  path = tmp_path / 'run'
  interrupted_at(path, network, step)
  assert metrics_of(path) != metrics_of(expected_path)
  comparison = run(path, resume=True, checkpoint_steps=1)
  assert_same_end(path, comparison, expected_path, expected)
  steps = [s.step for s in comparison.fits['bort'].steps]
  assert steps == list(range(1, STEPS + 1))


def test_resuming_a_finished_run_changes_nothing(uninterrupted):
  path, expected = uninterrupted
  before = metrics_of(path)
  comparison = run(path, resume=True, checkpoint_steps=1)
  assert metrics_of(path) == before
  assert [row[:3] for row in comparison.rows] == [
    row[:3] for row in expected.rows
  ]


def test_resuming_where_nothing_is_starts(tmp_path):
  comparison = run(tmp_path / 'new', resume=True, compare=False, epochs=1)
  assert list(comparison.fits) == ['bort']


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(uninterrupted, tmp_path):
  expected_path, _ = uninterrupted
  path = tmp_path / 'run'
  rng = random.Random(0)
  environment = {
    **os.environ,
    'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'cache'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }
  small = repr(SMALL)
  command = [sys.executable, '-c', SCRIPT.replace('{small}', small), str(path)]
  kills, delay = 0, 1.0
  for _ in range(3 * KILLS):
    with subprocess.Popen(
      command, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
      assert process.stdout is not None
      first = process.stdout.readline()
      if kills < KILLS and 'finished' not in first:
        time.sleep(rng.uniform(0, delay))
        process.send_signal(signal.SIGKILL)
      rest = process.stdout.read()
    if 'finished' in first + rest:
      break
    kills += process.returncode == -signal.SIGKILL
  else:
    pytest.fail('the run never finished')
  print(f'{kills} kills')
  assert kills >= KILLS
  assert metrics_of(path) == metrics_of(expected_path)
