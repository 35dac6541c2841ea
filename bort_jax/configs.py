"""Named configurations: Python files that define ``config``."""

import difflib
import pathlib
import runpy

from bort_jax.train.config import TrainConfig
from bort_jax.train.errors import RunError

_PACKAGE = pathlib.Path(__file__).parent
# Beside the package in a checkout, inside it when installed from a wheel.
_FOLDERS = (
  _PACKAGE.parent / 'experiments' / 'configs',
  _PACKAGE / 'named_configs',
)


def config_names() -> list[str]:
  """The names of the configurations that come with the package."""
  return sorted(path.stem for path in _folder().glob('[a-z]*.py'))


def load_config(name: str) -> TrainConfig:
  """The settings of a named configuration.

  Args:
    name: a name of :func:`config_names`, or the path of a Python file that
      defines ``config``, a :class:`bort_jax.train.TrainConfig`.

  Returns:
    The settings.

  Raises:
    RunError: if there is no such configuration or the file defines none.

  Examples:
    >>> from bort_jax.configs import load_config
    >>> load_config('cifar10_resnet20').model
    'resnet20'
  """
  path = pathlib.Path(name)
  if path.suffix != '.py':
    path = _folder() / f'{name}.py'
  if not path.is_file():
    names = config_names()
    near = difflib.get_close_matches(name, names, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise RunError(
      f'No configuration is called {name!r}; there are {", ".join(names)}, and'
      f' the paths of your own Python files.{hint}'
    )
  config = runpy.run_path(str(path)).get('config')
  if not isinstance(config, TrainConfig):
    raise RunError(
      f'{path} defines no config; it must hold: config = TrainConfig(...).'
    )
  return config


def _folder() -> pathlib.Path:
  return next(folder for folder in _FOLDERS if folder.is_dir())
