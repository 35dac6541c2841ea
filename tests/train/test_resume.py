"""A run that is interrupted ends like one that is not."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from bort_jax.train import TrainConfig, train
from bort_jax.train.augment import Recipe
from bort_jax.train.comparison import Listener
from bort_jax.train.errors import PreemptedError, RunError

pytestmark = pytest.mark.xdist_group('resume')  # they share one whole run

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
""".replace('{small}', repr(SMALL))


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


def test_sigterm_saves_and_a_resumed_run_ends_alike(uninterrupted, tmp_path):
  class Preempted(Listener):
    def stepped(self, network, steps, pace):
      if network == 'adamw':
        os.kill(os.getpid(), signal.SIGTERM)

  path = tmp_path / 'run'
  with pytest.raises(PreemptedError, match=f'--resume --run-dir {path}'):
    train(TrainConfig(run_dir=path, **SMALL), Preempted())
  assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
  comparison = run(path, resume=True)
  assert_same_end(path, comparison, *uninterrupted)


def test_other_settings_are_refused(uninterrupted):
  path, _ = uninterrupted
  before = metrics_of(path)
  with pytest.raises(RunError, match='other settings: seed 0 to 1'):
    run(path, resume=True, checkpoint_steps=1, seed=1)
  assert metrics_of(path) == before


FULL_DISK = """
mount -t tmpfs -o size=200k tmpfs "$DISK" || exit 9
"$PYTHON" -c "$SCRIPT" "$DISK/run"
mount -o remount,size=50m "$DISK"
"$PYTHON" -c "$SCRIPT" "$DISK/run" && cp "$DISK/run/metrics.jsonl" "$DISK.copy"
"""


@pytest.mark.slow
def test_a_full_disk_is_named_and_nothing_is_lost(uninterrupted, tmp_path):
  if shutil.which('unshare') is None:
    pytest.skip('needs unshare, to mount a small disk')
  disk = tmp_path / 'disk'
  disk.mkdir()
  process = subprocess.run(
    ['unshare', '--map-root-user', '--mount', 'sh', '-c', FULL_DISK],
    env={
      **os.environ,
      'DISK': str(disk),
      'PYTHON': sys.executable,
      'SCRIPT': SCRIPT,
    },
    capture_output=True,
    text=True,
  )
  if process.returncode == 9 or 'unshare failed' in process.stderr:
    pytest.skip('may not mount a small disk here')
  assert 'No space left on device. Free some space' in process.stderr
  assert process.stdout.endswith('finished\n'), process.stderr
  assert (tmp_path / 'disk.copy').read_text() == metrics_of(uninterrupted[0])


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(uninterrupted, tmp_path):
  expected_path, _ = uninterrupted
  path = tmp_path / 'run'
  rng = random.Random(0)
  command = [sys.executable, '-c', SCRIPT, str(path)]
  kills, delay = 0, 1.0
  for _ in range(3 * KILLS):
    with subprocess.Popen(
      command, stdout=subprocess.PIPE, text=True
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
