"""Results of single trainings, kept as lines of JSON as soon as they are known.

A line has ``facts``, on which the numbers depend, ``found``, the numbers, and
``made``, by what they were found. What is there with the same facts is not done
again, so a command that keeps its results here may be stopped at any time and
repeated.
"""

import datetime
import json
import os
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

import jax

Facts = Mapping[str, Any]
Row = dict[str, Any]


class KeptRuns:
  """The lines of one file."""

  def __init__(self, path: pathlib.Path):
    self.path = path
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text() if path.exists() else ''
    self.rows = [row for row in map(_parsed, text.splitlines()) if row]
    if text and not text.endswith('\n'):  # it was stopped while writing
      path.write_text(''.join(_line(row) for row in self.rows))
    self._index = {_key(row['facts']): row for row in self.rows}

  def find(self, facts: Facts) -> Row | None:
    """The numbers that are there, or None."""
    row = self._index.get(_key(facts))
    return row['found'] if row else None

  def add(self, facts: Facts, found: Row) -> Row:
    """Keeps numbers, and returns them as JSON has them."""
    line = _line({'facts': facts, 'found': found, 'made': _made_by()})
    with self.path.open('a') as file:
      file.write(line)
    row = json.loads(line)
    self.rows.append(row)
    self._index[_key(facts)] = row
    return row['found']


def _key(facts: Facts) -> str:
  return json.dumps(facts, sort_keys=True)


def _line(row: Row) -> str:
  return json.dumps(row) + '\n'


def _parsed(line: str) -> Row | None:
  try:
    return json.loads(line)
  except json.JSONDecodeError:
    return None


def _made_by() -> dict[str, str]:
  kind = jax.devices()[0].device_kind
  return {
    'commit': _commit(),
    'device': f'{kind}, {os.cpu_count()} cores',
    'jax': jax.__version__,
    'date': datetime.date.today().isoformat(),
  }


def _commit() -> str:
  done = subprocess.run(
    ['git', 'rev-parse', '--short', 'HEAD'],
    cwd=pathlib.Path(__file__).parent,
    capture_output=True,
    text=True,
    check=False,
  )
  return done.stdout.strip() or 'not in git'
