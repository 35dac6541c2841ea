"""Runs the notebooks, each from a clean kernel.

    python experiments/notebooks/run.py
    python experiments/notebooks/run.py 4_bcos --fast
    python experiments/notebooks/run.py --write

With ``--write`` they run in full, and their outputs go into the files without
what differs from run to run: counts, times, what an editor adds. A notebook
that raises or warns is an error, and is not written. Needs the extra
``notebooks``.
"""

import os
import pathlib
import re
import sys
import time

import nbformat
import tyro
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

FOLDER = pathlib.Path(__file__).parent
_METADATA = {
  'kernelspec': {
    'display_name': 'Python 3',
    'language': 'python',
    'name': 'python3',
  },
  'language_info': {'name': 'python'},
}
_COLORS = re.compile(r'\x1b\[[\d;]*m')  # of a terminal


def main(
  names: tyro.conf.Positional[tuple[str, ...]] = (),
  fast: bool = False,
  write: bool = False,
  timeout: int = 600,
) -> None:
  """Runs notebooks.

  Args:
    names: which, without .ipynb; by default all.
    fast: whether they are cut short, by BORT_FAST=1 in their environment.
    write: whether the outputs are written into the files.
    timeout: most seconds for a cell.
  """
  if write and (fast or os.environ.get('BORT_DATA', 'digits') != 'digits'):
    sys.exit(
      'What is committed is of full runs on the digits: leave out --fast and'
      ' BORT_DATA, or leave out --write.'
    )
  paths = [FOLDER / f'{name}.ipynb' for name in names]
  there = sorted(path.stem for path in FOLDER.glob('*.ipynb'))
  for path in paths:
    if path.stem not in there:
      sys.exit(
        f'No notebook is called {path.stem!r}; there are {", ".join(there)}.'
      )
  failed = False
  for path in paths or sorted(FOLDER.glob('*.ipynb')):
    notebook = nbformat.read(path, as_version=4)
    start = time.monotonic()
    problem = run(notebook, fast, timeout)
    print(f'{path.name}: {time.monotonic() - start:.0f} s', flush=True)
    if problem:
      failed = True
      print(problem, file=sys.stderr)
    elif write:
      path.write_text(nbformat.writes(stripped(notebook), indent=1) + '\n')
  sys.exit(failed)


def run(
  notebook: nbformat.NotebookNode, fast: bool, timeout: int = 600
) -> str | None:
  """Runs all cells of a notebook, which get their outputs.

  Args:
    notebook: the notebook; it is changed.
    fast: whether it is cut short.
    timeout: most seconds for a cell.

  Returns:
    What is wrong: an error, a cell that took too long, or what was written to
    standard error.
  """
  client = NotebookClient(
    notebook,
    timeout=timeout,
    kernel_name='python3',
    resources={'metadata': {'path': str(FOLDER)}},
    coalesce_streams=True,
  )
  try:
    client.execute(env={**os.environ, 'BORT_FAST': str(int(fast))})
  except (CellExecutionError, CellTimeoutError) as error:
    return _COLORS.sub('', str(error))
  warnings = [
    output.text
    for cell in notebook.cells
    for output in cell.get('outputs', ())
    if output.get('name') == 'stderr'
  ]
  return '\n'.join(warnings) or None


def stripped(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
  """The notebook with its outputs, but without what only a run has."""
  notebook.metadata = nbformat.from_dict(_METADATA)
  for cell in notebook.cells:
    cell.metadata = nbformat.from_dict({})
    if cell.cell_type == 'code':
      cell.execution_count = None
      for output in cell.outputs:
        if 'metadata' in output:
          output.metadata = nbformat.from_dict({})
        if 'execution_count' in output:
          output.execution_count = None
  return notebook


if __name__ == '__main__':
  tyro.cli(main)
