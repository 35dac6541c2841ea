"""A run that is interrupted ends like one that is not."""

import contextlib
import multiprocessing
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
from run_helpers import Interrupt, Interrupting, last_state

from bort_jax import cli
from bort_jax.train import TrainConfig, train
from bort_jax.train.augment import Recipe
from bort_jax.train.comparison import Listener
from bort_jax.train.errors import PreemptedError, RunError
from bort_jax.train.metrics import read_paces
from bort_jax.train.progress import Progress

SMALL = {
  'epochs': 2,
  'batch_size': 256,
  'model_options': ('widths=(4,6,8,10,12)',),
  'ema': 0.9,
  'augment': Recipe(pad_crop=1, cutout=2),
  'label_smoothing': 0.1,
  'devices': 1,
}
STEPS = 10  # of each network
KILLS = 20


class Loud(Listener):
  """Tells a pipe of every step."""

  def __init__(self, pipe):
    self.pipe = pipe

  def stepped(self, network, steps, pace):
    self.pipe.send(steps[-1].step)


def train_and_tell(path, pipe):
  config = TrainConfig(run_dir=path, resume=True, checkpoint_steps=1, **SMALL)
  train(config, Loud(pipe))
  pipe.send('finished')


def run(path, **options):
  return train(TrainConfig(run_dir=path, **{**SMALL, **options}))


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  path = tmp_path_factory.mktemp('runs') / 'whole'
  return path, run(path, checkpoint_steps=1)


def metrics_of(path):
  return (path / 'metrics.jsonl').read_text()


def assert_same_end(path, expected_path):
  assert metrics_of(path) == metrics_of(expected_path)
  for name in ('bort', 'adamw'):
    leaves, structure = jax.tree.flatten(last_state(path, name))
    expected = jax.tree.flatten(last_state(expected_path, name))
    assert structure == expected[1]
    assert len(leaves) > 20
    for x, y in zip(leaves, expected[0], strict=True):
      np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(('network', 'step'), [('adamw', 3), ('bort', 7)])
def test_resuming_is_bit_exact(uninterrupted, tmp_path, network, step):
  expected_path, _ = uninterrupted
  path = tmp_path / 'run'
  config = TrainConfig(run_dir=path, checkpoint_steps=1, **SMALL)
  with pytest.raises(Interrupt):
    train(config, Interrupting(network, step))
  assert metrics_of(path) != metrics_of(expected_path)
  comparison = run(path, resume=True, checkpoint_steps=1)
  assert_same_end(path, expected_path)
  paces = read_paces(path, network)
  # A line for every step here, but for those in which a session compiles.
  assert [p.step for p in paces] == [
    *range(2, step),
    *range(step + 1, STEPS + 1),
  ]
  seconds = sum(pace.seconds for pace in paces)
  seconds += paces[0].seconds + paces[step - 2].seconds
  assert comparison.fits[network].seconds == pytest.approx(seconds)
  steps = [s.step for s in comparison.fits['bort'].steps]
  assert steps == list(range(1, STEPS + 1))


def test_resuming_a_finished_run_changes_nothing(uninterrupted):
  path, expected = uninterrupted
  before = metrics_of(path)
  comparison = run(path, resume=True, checkpoint_steps=1)
  assert metrics_of(path) == before
  assert comparison.rows == expected.rows  # the seconds too


def interrupted(path):
  config = TrainConfig(run_dir=path, checkpoint_steps=1, **SMALL)
  with pytest.raises(Interrupt):
    train(config, Interrupting('bort', 7))
  return ['--resume', '--run-dir', str(path)]


def test_a_resumed_run_takes_its_own_settings(uninterrupted, tmp_path):
  path = tmp_path / 'run'
  resume = interrupted(path)
  before = metrics_of(path)
  with pytest.raises(SystemExit, match='other settings: seed 0 to 1'):
    cli.main(['train', *resume, '--seed', '1'])
  assert metrics_of(path) == before
  cli.main(['train', *resume, '--keep', '2', '--no-resume', '--resume'])
  assert_same_end(path, uninterrupted[0])


def test_a_configuration_may_be_named_again(uninterrupted, tmp_path):
  path, config = tmp_path / 'run', tmp_path / 'config.py'
  settings = f'from bort_jax.train.augment import Recipe\n\nSMALL = {SMALL!r}\n'
  settings += 'from bort_jax.train import TrainConfig\n\n'
  config.write_text(settings + 'config = TrainConfig(**SMALL)\n')
  resume = interrupted(path)
  with pytest.raises(SystemExit, match='epochs 2 to None'):
    cli.main(['train', 'digits_cnn', *resume])
  cli.main(['train', str(config), *resume])
  assert_same_end(path, uninterrupted[0])


def test_resuming_where_nothing_is_says_so_and_starts(tmp_path, capsys):
  arguments = ['--epochs', '1', '--no-compare', '--batch-size', '128']
  arguments += ['--model-options', 'widths=(4,6,8,10,12)', '--devices', '1']
  resume = ['--resume', '--run-dir', str(tmp_path / 'new')]
  cli.main(['train', *arguments, *resume])
  said = ' '.join(capsys.readouterr().out.split())
  assert 'Nothing to resume in' in said
  assert 'a new run starts there' in said
  cli.main(['train', *resume])
  assert 'Nothing to resume' not in capsys.readouterr().out


def test_a_directory_without_a_run_is_not_resumed(tmp_path):
  with pytest.raises(RunError, match='Nothing to resume in .*no config.json'):
    run(tmp_path, resume=True)


def test_sigterm_saves_and_a_resumed_run_ends_alike(uninterrupted, tmp_path):
  class Preempted(Listener):
    def stepped(self, network, steps, pace):
      if network == 'adamw':
        os.kill(os.getpid(), signal.SIGTERM)

  path = tmp_path / 'run'
  with pytest.raises(PreemptedError, match=f'--resume --run-dir {path}'):
    train(TrainConfig(run_dir=path, **SMALL), Preempted())
  assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
  run(path, resume=True)
  assert_same_end(path, uninterrupted[0])


@pytest.mark.parametrize('network', ['bort', 'adamw'])
@pytest.mark.parametrize('moment', ['add', 'end_epoch'])
def test_sigterm_in_the_last_step_of_a_network(
  uninterrupted, tmp_path, monkeypatch, capsys, network, moment
):
  """Within the step, or when the word to stop has been asked for already."""
  done = getattr(Progress, moment)

  def killed(progress, *args):
    done(progress, *args)
    if progress.trainer.name == network and progress.done == STEPS:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(Progress, moment, killed)
  path = tmp_path / 'run'
  run_dir = ['--run-dir', str(path)]
  if (network, moment) == ('adamw', 'end_epoch'):  # nothing is left to stop
    cli.main(['train', *OPTIONS, *run_dir])
  else:
    with pytest.raises(SystemExit) as exit_:
      cli.main(['train', *OPTIONS, *run_dir])
    assert exit_.value.code == 143
    last = {'add': f'{STEPS} of {STEPS} of {network!r}'}
    after = last.get(moment, f"1 of {STEPS} of 'adamw'")
    assert f'SIGTERM after step {after}' in capsys.readouterr().err
  monkeypatch.undo()
  cli.main(['train', '--resume', *run_dir])
  assert_same_end(path, uninterrupted[0])


def test_other_settings_are_refused(uninterrupted):
  path, _ = uninterrupted
  before = metrics_of(path)
  with pytest.raises(RunError, match='other settings: seed 0 to 1'):
    run(path, resume=True, checkpoint_steps=1, seed=1)
  assert metrics_of(path) == before


OPTIONS = (
  *('--epochs', '2', '--batch-size', '256', '--devices', '1', '--ema', '0.9'),
  *('--model-options', 'widths=(4,6,8,10,12)', '--checkpoint-steps', '1'),
  *('--pad-crop', '1', '--cutout', '2', '--label-smoothing', '0.1'),
)
TRAIN = (
  *(sys.executable, '-c', 'from bort_jax.cli import main; main()', 'train'),
  *(*OPTIONS, '--resume', '--run-dir'),
)
FULL_DISK = """
disk="$1"
shift
mount -t tmpfs -o size=200k tmpfs "$disk" || exit 9
"$@" "$disk/run"
mount -o remount,size=50m "$disk"
"$@" "$disk/run" && cp -r "$disk/run" "$disk.copy"
"""


@pytest.mark.slow
def test_a_full_disk_is_named_and_nothing_is_lost(uninterrupted, tmp_path):
  if shutil.which('unshare') is None:
    pytest.skip('needs unshare, to mount a small disk')
  disk = tmp_path / 'disk'
  disk.mkdir()
  alone = ('unshare', '--map-root-user', '--mount', 'sh', '-c', FULL_DISK, 'sh')
  process = subprocess.run(
    [*alone, str(disk), *TRAIN], capture_output=True, text=True
  )
  if process.returncode == 9 or 'unshare failed' in process.stderr:
    pytest.skip('may not mount a small disk here')
  error = process.stderr
  assert process.returncode == 0, error
  assert 'No space left on device' in error
  assert 'Free some space, then go on with --resume.' in error
  assert_same_end(tmp_path / 'disk.copy', uninterrupted[0])


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(uninterrupted, tmp_path):
  rng = random.Random(0)
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['bort_jax.train', 'sklearn.datasets'])
  kills, runs = 0, 0
  while kills < KILLS:  # a fast machine ends a run before that, and begins one
    path = tmp_path / f'run{runs}'
    kills += killed_until_finished(context, path, rng, KILLS - kills)
    assert_same_end(path, uninterrupted[0])
    runs += 1


def killed_until_finished(context, path, rng, most_kills):
  """Trains, killed at random moments; returns how many kills that took."""
  kills = 0
  for _ in range(3 * KILLS):
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=train_and_tell, args=(path, sender))
    process.start()
    sender.close()
    told = [receiver.recv()]  # a first step
    if kills < most_kills and told != ['finished']:
      time.sleep(rng.uniform(0, 0.5))
      process.kill()
    with contextlib.suppress(EOFError):
      while True:
        told.append(receiver.recv())
    process.join()
    receiver.close()
    if told[-1] == 'finished':
      return kills
    kills += process.exitcode == -signal.SIGKILL
  pytest.fail('the run never finished')
