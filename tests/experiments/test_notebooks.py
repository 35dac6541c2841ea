"""The notebooks run, and what is committed of them is fit to be read."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / 'experiments' / 'notebooks'
NAMES = sorted(path.stem for path in FOLDER.glob('*.ipynb'))
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
REPOSITORY = PROJECT['urls']['Repository']
COLAB = REPOSITORY.replace('//github.com', '//colab.research.google.com/github')
LARGEST = 300_000  # bytes
OF_A_MACHINE = re.compile(r'/(?:tmp|home|root|work|usr|Users)/|site-packages')

each = pytest.mark.parametrize('name', NAMES)


def cells_of(name, kind):
  notebook = json.loads((FOLDER / f'{name}.ipynb').read_text())
  return [cell for cell in notebook['cells'] if cell['cell_type'] == kind]


def source_of(cell):
  return ''.join(cell['source'])


def outputs_of(name):
  return [o for cell in cells_of(name, 'code') for o in cell['outputs']]


def text_of(output):
  return ''.join(output.get('text') or output['data'].get('text/plain', ''))


def test_there_are_five():
  assert [name[0] for name in NAMES] == list('12345')


@each
def test_the_badge_opens_it_in_colab(name):
  first = source_of(cells_of(name, 'markdown')[0])
  (link,) = re.findall(r'badge\.svg\)\]\((.*?)\)', first)
  assert link == f'{COLAB}/blob/main/experiments/notebooks/{name}.ipynb'


@each
def test_the_first_cell_installs_where_the_library_is_missing(name):
  assert source_of(cells_of(name, 'code')[0]).splitlines() == [
    'import importlib.util',
    '',
    f"REPOSITORY = '{REPOSITORY}'",
    "if importlib.util.find_spec('bort_jax') is None:",
    '  %pip install --quiet "bort-jax[train] @ git+{REPOSITORY}"',
  ]


@each
def test_links_into_the_repository_exist(name):
  text = '\n'.join(map(source_of, cells_of(name, 'markdown')))
  for path in re.findall(rf'{REPOSITORY}/blob/main/([^)#\s]+)', text):
    assert (ROOT / path).exists(), path


@each
def test_what_is_committed_is_small_and_of_no_machine(name):
  assert (FOLDER / f'{name}.ipynb').stat().st_size < LARGEST
  assert outputs_of(name)
  for output in outputs_of(name):
    assert output['output_type'] != 'error'
    assert output.get('name') != 'stderr'
    assert not OF_A_MACHINE.search(text_of(output))
    assert output.get('execution_count') is None
    assert not output.get('metadata')
  for cell in cells_of(name, 'code'):
    assert cell['execution_count'] is None
    assert not cell['metadata']


@each
def test_pictures_are_of_the_digits(name):
  code = '\n'.join(map(source_of, cells_of(name, 'code')))
  assert re.findall(r"'BORT_DATA'(.*?)\)", code) in ([], [", 'digits'"])
  assert set(re.findall(r'(?:load_dataset\(|data=)(.*?)[,)]', code)) <= {
    "'digits'",
    'DATA',
  }


@each
@pytest.mark.slow
def test_it_runs(name):
  pytest.importorskip('nbclient', reason='needs pip install ".[notebooks]"')
  pytest.importorskip('ipykernel', reason='needs pip install ".[notebooks]"')
  # A clean kernel: devices and compilation are not those of the tests.
  of_tests = 'XLA_FLAGS', 'JAX_DISABLE_MOST_OPTIMIZATIONS'
  environment = {k: v for k, v in os.environ.items() if k not in of_tests}
  environment |= {'PYTHONPATH': str(ROOT), 'BORT_DATA': 'digits'}
  done = subprocess.run(
    [sys.executable, str(FOLDER / 'run.py'), name, '--fast'],
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
