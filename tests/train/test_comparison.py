"""Whole runs: what they write, that they repeat, and how they fail."""

import json
import math
import pathlib
import re
import time
from typing import Any

import jax
import numpy as np
import pytest
from run_helpers import last_state

from bort_jax import cli, nn, spectrum, terminal
from bort_jax.progress_bars import cautions
from bort_jax.train import (
  TrainConfig,
  load_dataset,
  load_model,
  loop,
  train,
)
from bort_jax.train.augment import Recipe
from bort_jax.train.comparison import Listener
from bort_jax.train.errors import DivergedError, RunError
from bort_jax.train.metrics import Pace, read_paces, training_seconds
from bort_jax.train.network import make_model
from bort_jax.train.report import read_runs
from bort_jax.train.step import train_step

SMALL = {
  'epochs': 2,
  'model_options': ('widths=(4, 8, 12, 16, 24)',),
  'batch_size': 128,
  'learning_rate': 4e-3,
  'devices': 1,
}


def run(path, **options):
  return train(TrainConfig(run_dir=path, **{**SMALL, **options}))


def lines(path):
  text = (path / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  path = tmp_path_factory.mktemp('runs') / 'soft'
  return path, run(path)


def test_the_constraint_is_what_differs(finished):
  _, comparison = finished
  adamw, bort, control = comparison.rows
  assert bort.orthogonality_error < 0.25 * adamw.orthogonality_error
  assert control.orthogonality_error < 1e-5
  assert control.test_accuracy < 0.3
  starts = [fit.epochs[0] for fit in comparison.fits.values()]
  assert starts[0].test_accuracy == starts[1].test_accuracy
  first = [fit.steps[0].loss for fit in comparison.fits.values()]
  assert first[0] == first[1]


def test_the_run_directory_is_complete(finished):
  path, comparison = finished
  config = json.loads((path / 'config.json').read_text())
  assert config['epochs'] == 2
  assert config['model_options'] == ['widths=(4, 8, 12, 16, 24)']
  rows = lines(path)
  steps = [r for r in rows if 'loss' in r and r['network'] == 'bort']
  assert (path / 'timing.jsonl').exists()
  assert [r['step'] for r in steps] == list(range(1, 23))
  epochs = [r for r in rows if 'test_accuracy' in r and r['network'] == 'bort']
  assert [r['epoch'] for r in epochs] == [0, 1, 2]
  assert epochs[-1]['test_accuracy'] == comparison.rows[1].test_accuracy
  results = json.loads((path / 'results.json').read_text())
  assert [row['network'] for row in results] == ['adamw', 'bort', 'untrained']


def test_a_comparison_prints_as_its_table(finished):
  path, comparison = finished
  text = repr(comparison)
  assert str(path) in text
  assert "network='untrained'" in text
  assert len(text) < 1000
  assert 'rray' not in text


def test_the_checkpoint_holds_the_result(finished):
  path, comparison = finished
  restored = last_state(path, 'bort')
  assert restored['step'] == 22
  expected = comparison.fits['bort'].params
  np.testing.assert_array_equal(
    jax.tree.leaves(restored['params']['conv1']['kernel'])[0],
    expected['conv1']['kernel'][...],
  )


def test_a_trained_network_is_loaded_by_its_name(finished):
  path, comparison = finished
  digits = load_dataset('digits')
  pictures: Any = np.float32(digits.test_images) / 255
  accuracies = {row.network: row.test_accuracy for row in comparison.rows}
  for name in ('bort', 'adamw'):
    model: Any = load_model(path, name)
    found = model(pictures).argmax(-1) == digits.test_labels
    assert found.mean() == pytest.approx(accuracies[name])
  best: Any = load_model(path, which='best')
  assert best(pictures[:2]).shape == (2, 10)
  with pytest.raises(RunError, match="no network 'sgd'; it has bort, adamw"):
    load_model(path, 'sgd')
  with pytest.raises(RunError):
    load_model(path.parent / 'none')


def test_same_seed_same_result(finished, tmp_path):
  _, first = finished
  again = run(tmp_path / 'again', compare=False)  # alone, too
  other = run(tmp_path / 'other', seed=1, epochs=1, compare=False)
  losses = lambda c: [step.loss for step in c.fits['bort'].steps]
  assert losses(first) == losses(again)
  assert losses(first)[0] != losses(other)[0]


def test_sgd_learns_with_a_logit_scale(tmp_path):
  path = tmp_path / 'run'
  sgd = {'optimizer': 'sgd', 'learning_rate': 0.1, 'gamma': 0.1}
  steps = run(path, **sgd, epochs=4, compare=False).fits['bort'].steps
  assert steps[-1].loss < 0.7 * steps[0].loss


def test_the_hard_constraint_is_exact(tmp_path):
  comparison = run(tmp_path / 'hard', constraint='hard', amplitude=2.0)
  assert comparison.rows[1].orthogonality_error < 1e-5
  names = terminal.comparison_table(comparison).columns[0].cells
  assert list(names) == ['AdamW', 'Bort (hard)', 'untrained (control)']
  spread = comparison.fits['bort'].epochs[-1].kernels['conv2/kernel']
  np.testing.assert_allclose(spread[:3], np.sqrt(2), rtol=1e-5)
  assert spread.orthogonality_error < 1e-5


@pytest.mark.parametrize(('parallel', 'every'), [('jit', 1), ('pmap', None)])
def test_the_pace_is_without_compilation(
  tmp_path, monkeypatch, parallel, every
):
  traced = []

  def slow_to_trace(*args):
    traced.append(time.sleep(3))
    return train_step(*args)

  monkeypatch.setattr(loop, 'train_step', slow_to_trace)
  path = tmp_path / 'run'
  options = {'parallel': parallel, 'checkpoint_steps': every}
  comparison = run(path, epochs=1, compare=False, **options)
  assert len(traced) == 1
  assert 0 < comparison.fits['bort'].seconds < 3
  assert 11 * max(pace.seconds for pace in read_paces(path, 'bort')) < 3
  (history,) = read_runs([path])
  assert history.images_per_second > SMALL['batch_size'] / 3


def test_seconds_are_those_of_all_steps():
  pace = lambda step, seconds: Pace(step, seconds, 1.0, None)
  assert training_seconds([pace(2, 1.0), pace(5, 0.5)]) == 2 * 1.0 + 3 * 0.5
  assert training_seconds([]) == 0


def test_divergence_says_where_and_keeps_the_checkpoint(tmp_path):
  path = tmp_path / 'run'
  with pytest.raises(DivergedError) as error:
    run(path, learning_rate=1e38, gamma=1e-38, weight_decay=0.0)
  message = str(error.value)
  assert re.search(r"loss of 'bort' is (nan|inf) at step \d", message)
  assert 'after step 0 is kept' in message
  assert (path / 'checkpoints' / 'bort' / '0').is_dir()
  assert all(math.isfinite(row.get('loss', 0)) for row in lines(path))


@pytest.mark.parametrize(('optimizer', 'every'), [('adamw', 1), ('sgd', 2)])
def test_a_divergent_constraint_names_the_largest_safe_step(
  tmp_path, optimizer, every
):
  cautions = []

  class Cautioned(Listener):
    def started(self, start):
      cautions.extend(finding.message for finding in start.findings)

  settings = {**SMALL, 'optimizer': optimizer, 'gamma': 2000.0}
  settings |= {'learning_rate': 0.05, 'batch_size': 16, 'every': every}
  with pytest.raises(DivergedError) as error:
    train(TrainConfig(run_dir=tmp_path / 'run', **settings), Cautioned())
  message = str(error.value)
  assert "'bort'" in message
  assert 'as they were after step 0, the constraint alone' in message
  found = re.search(r'stable up to ([\d.e-]+)\)', message)
  assert found
  # The same limit as before the start, not another one.
  assert any(f'Stay below {found[1]}' in caution for caution in cautions)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'data': 'nothing', 'data_dir': pathlib.Path('nowhere')}, 'nowhere'),
    ({'batch_size': 5000}, 'An epoch would have no steps'),
    ({'model': 'simple_cn'}, "Did you mean 'simple_cnn'"),
    ({'model_options': ('width=3',)}, "Did you mean 'widths'"),
    ({'model_options': ('widths',)}, 'NAME=VALUE'),
    ({'model_options': ('kernel_sizes=(9, 9, 9)',)}, 'too small for kernels'),
    ({'devices': 99}, 'there are 8 cpu devices'),
    (
      {'batch_size': 36, 'devices': None},
      'not divisible by the 8 devices',
    ),
    ({'fsdp': 3, 'devices': 8}, 'does not divide the 8 devices'),
    ({'accumulate': 1000}, 'accumulate 1000 is more than all 22 steps'),
    (
      {
        'batch_size': 24,
        'devices': 8,
        'parallel': 'pmap',
        'augment': Recipe(mixup=0.2),
      },
      'an odd number',
    ),
    ({'gamma': 1.0, 'weight_decay': 2.0}, 'would decay to zero'),
  ],
)
def test_refusals_leave_nothing_behind(tmp_path, options, message):
  path = tmp_path / 'run'
  with pytest.raises(RunError, match=message):
    run(path, **options)
  assert not path.exists()


def test_an_existing_run_directory_is_left_alone(tmp_path):
  (tmp_path / 'mine').write_text('precious')
  with pytest.raises(RunError, match='exists already'):
    run(tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ['mine']


def test_a_run_directory_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(RunError, match='cannot be made: Not a directory'):
    run(tmp_path / 'file' / 'run')


def test_small_pictures_take_small_kernels():
  model = make_model(TrainConfig(), (8, 8, 1), 10)
  assert isinstance(model, nn.SimpleCNN)
  assert nn.functional(model)[1]['conv2']['kernel'][...].shape[0] == 3
  larger = make_model(TrainConfig(), (28, 28, 1), 10)
  assert nn.functional(larger)[1]['conv2']['kernel'][...].shape[0] == 4


def test_command_line_end_to_end(tmp_path, capsys, monkeypatch):
  path = tmp_path / 'run'
  arguments = '--epochs 1 --model-options widths=(4,8,12,16,24)'
  arguments += ' --batch-size 128 --devices 1 --run-dir'
  cli.main(['train', 'digits_cnn', *arguments.split(), str(path)])
  out = capsys.readouterr().out
  for text in ('Bort', 'AdamW', 'untrained', 'orthogonality', 'Figures are in'):
    assert text in out
  assert f'bort-jax explain {path}\n' in out
  figures = {p.name: p.stat().st_size for p in (path / 'figures').iterdir()}
  assert set(figures) == {
    'curves.png',
    'singular_values.png',
    'reconstructions.png',
  }
  assert min(figures.values()) > 10_000
  cli.main(['evaluate', str(path)])
  results = json.loads((path / 'results.json').read_text())
  out = capsys.readouterr().out
  for row in results[:2]:
    assert f'{row["test_accuracy"]:.2%}' in out
  monkeypatch.chdir(tmp_path)
  cli.main(['compare', str(path), str(path)])
  assert capsys.readouterr().out.count('AdamW') == 2
  assert (tmp_path / 'comparison.png').stat().st_size > 10_000


@pytest.mark.parametrize(
  ('arguments', 'code'),
  [
    (['train', '--gamma', '-1'], 'gamma must be a finite number >= 0'),
    (['train', '--magnitude', '30'], 'magnitude must be 0 … 10, got 30.0.'),
    (['train', 'digit_cnn'], "Did you mean 'digits_cnn'"),
    (['train', '--resume'], 'resume needs run_dir'),
    (['train', '--process-id', '1'], 'go together'),
    (['evaluate', 'nowhere'], 'nowhere is not the directory of a run'),
    (['compare', 'nowhere'], 'nowhere is not the directory of a run'),
    (['compare'], 'compare needs at least one run'),
    (['train', '--gama', '1'], 2),
  ],
)
def test_command_line_errors(arguments, code, capsys):
  with pytest.raises(SystemExit) as exit_:
    cli.main(arguments)
  if isinstance(code, str):
    assert code in str(exit_.value.code)
    assert str(exit_.value.code).startswith('bort-jax: ')
    assert not capsys.readouterr().err
  else:
    assert exit_.value.code == code
    assert '--gamma' in capsys.readouterr().err


def test_what_is_said_of_several_kernels_is_said_once():
  finding = lambda name, message: spectrum.Finding(
    name, 'decay_shift', 0.5, 1.0, message
  )
  found = [finding('a', 'too weak'), finding('b', 'odd'), finding('c', 'odd')]
  assert cautions(found) == ['a: too weak', 'b, c: odd']


def test_help_explains_every_setting(capsys):
  with pytest.raises(SystemExit):
    cli.main(['train', '--help'])
  out = capsys.readouterr().out
  for name in TrainConfig.__dataclass_fields__:
    if name in ('augment', 'adversarial'):
      continue  # their own fields, below
    assert f'--{name.replace("_", "-")}' in out
  assert re.search(r'default:\s+digits', out)
  assert '--pad-crop' in out
  assert '--attack' in out
  assert 'cifar10_resnet20' in out
