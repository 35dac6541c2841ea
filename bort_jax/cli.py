"""The command ``bort-jax``."""

import importlib.util
import sys
from collections.abc import Sequence

_NEEDED = ('flax', 'matplotlib', 'orbax', 'rich', 'sklearn', 'tyro')


def main(args: Sequence[str] | None = None) -> None:
  """Runs the command line.

  Args:
    args: the arguments; by default those of the process.

  Raises:
    SystemExit: with code 1 and a message for an error that the user can mend,
      with code 2 for arguments that cannot be parsed.
  """
  missing = [name for name in _NEEDED if not importlib.util.find_spec(name)]
  if missing:
    sys.exit(
      f'bort-jax needs {", ".join(missing)}; install the extra: pip install'
      " 'bort-jax[train]'."
    )
  from bort_jax.terminal import run

  run(args)
