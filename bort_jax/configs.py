"""Named configurations: Python files that define ``config``."""

import difflib
import pathlib
import runpy
import traceback

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
    RunError: if there is no such configuration, or the file fails or defines
      none.

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
  try:
    config = runpy.run_path(str(path)).get('config')
  except Exception as error:  # of any kind: it is the user's code that runs
    raise RunError(
      f'{path} cannot be used as a configuration: line {_line(error, path)}'
      f' fails with {type(error).__name__}: {error}'
    ) from error
  if not isinstance(config, TrainConfig):
    raise RunError(
      f'{path} defines no config; it must hold: from bort_jax.train import'
      ' TrainConfig; config = TrainConfig(...).'
    )
  return config


def _line(error: Exception, path: pathlib.Path) -> int | None:
  """The line of the file that led to the error."""
  if isinstance(error, SyntaxError) and error.filename == str(path):
    return error.lineno
  frames = traceback.extract_tb(error.__traceback__)
  return [f.lineno for f in frames if f.filename == str(path)][-1]


def _folder() -> pathlib.Path:
  return next(folder for folder in _FOLDERS if folder.is_dir())
