"""Writing a file as a whole or not at all."""

import os
import pathlib
import tempfile

from bort_jax.train.errors import RunError


def check_place(path: pathlib.Path) -> None:
  """Refuses a place where no file can be, before anything takes long."""
  if path.is_dir() or not path.parent.is_dir():
    what = 'is a directory' if path.is_dir() else 'is in no directory'
    raise RunError(
      f'The report cannot be written: {path} {what}. Choose another place with'
      ' --output.'
    )


def write_whole(path: pathlib.Path, text: str) -> None:
  """Writes beside the place and moves it there: nothing is half-written.

  Args:
    path: the file, which may be there already.
    text: what goes into it, in UTF-8.

  Raises:
    OSError: if it cannot be written; what was there stays.

  Examples:
    >>> import pathlib, tempfile
    >>> from bort_jax.report.write import write_whole
    >>> with tempfile.TemporaryDirectory() as directory:
    ...   write_whole(pathlib.Path(directory, 'page.html'), 'text')
    ...   [path.name for path in pathlib.Path(directory).iterdir()]
    ['page.html']
  """
  descriptor, name = tempfile.mkstemp(dir=path.parent, suffix='.part')
  part = pathlib.Path(name)
  try:
    with os.fdopen(descriptor, 'w', encoding='utf-8') as file:
      file.write(text)
    part.chmod(0o644)  # a temporary file is its owner's alone
    part.replace(path)
  except BaseException:
    part.unlink(missing_ok=True)
    raise
