"""Configurations by name, and in files of one's own."""

import pytest
from test_readme import SNIPPETS

from bort_jax.configs import config_names, load_config
from bort_jax.train.errors import RunError


def load(path, text):
  path.write_text(text)
  return load_config(str(path))


@pytest.mark.parametrize('name', config_names())
def test_every_name_is_a_configuration(name):
  assert load_config(name).batch_size > 0


def test_the_file_in_the_readme_is_one(tmp_path):
  (text,) = [s for s in SNIPPETS if 'config = TrainConfig' in s]
  config = load(tmp_path / 'my_config.py', text)
  assert config.model == 'resnet20'
  assert config.augment.flip


def test_a_file_without_config_is_shown_how_to_make_one(tmp_path):
  with pytest.raises(RunError, match=r'import TrainConfig; config = Train'):
    load(tmp_path / 'my_config.py', 'settings = 1\n')


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('x = 1\nconfig = TrainConfig()\n', 'line 2 fails with NameError: name'),
    ('x = 1\n\nif x\n', 'line 3 fails with SyntaxError: expected'),
    ('import nowhere\n', 'line 1 fails with ModuleNotFoundError: No module'),
    (
      'from bort_jax.train import TrainConfig\nTrainConfig(gamma=-1.0)\n',
      'line 2 fails with RunError: gamma must be a finite number >= 0',
    ),
    (
      'import json\ndef read():\n  json.loads("{")\nread()\n',
      'line 3 fails with JSONDecodeError',
    ),
  ],
)
def test_an_error_in_a_file_is_named_with_its_line(tmp_path, text, message):
  path = tmp_path / 'my_config.py'
  with pytest.raises(RunError, match=message) as error:
    load(path, text)
  assert str(path) in str(error.value)
