"""The directory of a run and the settings in it."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from bort_jax.train.adversarial import Adversarial
from bort_jax.train.augment import Recipe
from bort_jax.train.config import TrainConfig
from bort_jax.train.errors import RunError

# How a run is carried out, not what comes out: may change when it resumes.
_FREE = (
  'checkpoint_steps',
  'data_dir',
  'devices',
  'fsdp',
  'keep',
  'num_workers',
  'parallel',
  'resume',
  'run_dir',
)


def check_run_dir(config: TrainConfig) -> None:
  """Refuses a directory that :func:`open_run_dir` would refuse, early."""
  path = config.run_dir
  if path is not None:
    _on_first_process(lambda: _check(path, config))


def holds_run(path: pathlib.Path) -> bool:
  """Whether a directory is that of a run."""
  return (path / 'config.json').exists()


def _check(path: pathlib.Path, config: TrainConfig) -> None:
  if config.resume and holds_run(path):
    _check_same(path, config)
  elif path.exists():
    raise _exists(path, config.resume)


def _on_first_process(action: Callable[[], None]) -> None:
  """Does something there; where that is refused, all processes refuse."""
  refusal = None
  if jax.process_index() == 0:
    try:
      action()
    except RunError as error:
      refusal = error
  refused = np.uint8(refusal is not None)
  if multihost_utils.broadcast_one_to_all(refused):
    raise refusal or RunError('The first process refuses, and says why.')


def open_run_dir(config: TrainConfig) -> pathlib.Path:
  """Makes the directory of a run, or opens that of a run to resume.

  Args:
    config: the settings; they are written to ``config.json``.

  Returns:
    The directory.

  Raises:
    RunError: if it exists and is not to be resumed, was made with other
      settings, or cannot be made.
  """
  path = config.run_dir or pathlib.Path('runs') / f'{config.data}-{_now()}'
  _on_first_process(lambda: _make(path, config))
  return path


def _make(path: pathlib.Path, config: TrainConfig) -> None:
  if config.resume and holds_run(path):
    return
  try:
    path.mkdir(parents=True)
    settings = json.dumps(dataclasses.asdict(config), indent=2, default=str)
    (path / 'config.json').write_text(settings + '\n')
  except FileExistsError:
    raise _exists(path, config.resume) from None
  except OSError as error:
    raise RunError(
      f'Run directory {path} cannot be made: {error.strerror}. Choose another'
      ' with --run-dir.'
    ) from None


def _now() -> str:
  """The time of the first process, the same on all."""
  text = np.frombuffer(time.strftime('%Y%m%d-%H%M%S').encode(), np.uint8)
  return bytes(multihost_utils.broadcast_one_to_all(text)).decode()


def read_config(
  run_dir: pathlib.Path, data_dir: pathlib.Path | None = None
) -> TrainConfig:
  """The settings of a run.

  Args:
    run_dir: the run's directory.
    data_dir: TFDS directory, if it is no longer where the run found it.

  Returns:
    The settings, with this ``run_dir``.

  Raises:
    RunError: if there is no run, or its settings are not ones of this version.
  """
  path = run_dir / 'config.json'
  try:
    fields: dict[str, Any] = json.loads(path.read_text())
    fields['augment'] = Recipe(**fields['augment'])
    given = fields.get('adversarial', {})  # older runs have none
    layers = tuple(given.get('consistent_layers', ()))
    given = {**given, 'consistent_layers': layers}
    fields['adversarial'] = Adversarial(**given)
    fields['model_options'] = tuple(fields['model_options'])
    if fields['data_dir'] is not None:
      fields['data_dir'] = pathlib.Path(fields['data_dir'])
    if data_dir is not None:
      fields['data_dir'] = data_dir
    return TrainConfig(**{**fields, 'run_dir': run_dir})
  except OSError as error:
    raise RunError(
      f'{run_dir} is not the directory of a run: {path} cannot be read'
      f' ({error.strerror}).'
    ) from None
  except (RunError, ValueError, TypeError, KeyError) as error:
    raise RunError(
      f'{path} does not hold the settings of a run ({error}).'
    ) from None


def _exists(path: pathlib.Path, resume: bool) -> RunError:
  if resume:
    return RunError(
      f'Nothing to resume in {path}: it is there, but holds no config.json. Say'
      ' with --run-dir which run; a new one needs a directory of its own.'
    )
  return RunError(
    f'Run directory {path} exists already. Choose another with --run-dir,'
    ' remove it, or go on with the run in it with --resume.'
  )


def _check_same(path: pathlib.Path, config: TrainConfig) -> None:
  old, new = dataclasses.asdict(read_config(path)), dataclasses.asdict(config)
  changed = [k for k in new if k not in _FREE and old[k] != new[k]]
  if changed:
    what = ', '.join(f'{k} {old[k]!r} to {new[k]!r}' for k in changed)
    raise RunError(
      f'The run in {path} cannot be resumed with other settings: {what}.'
      ' Resume it with its own, or start another with a new --run-dir.'
    )
