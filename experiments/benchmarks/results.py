"""Where the benchmarks leave what they found."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any


def write_results(script: str, rows: Any, lines: Sequence[str]) -> None:
  """Prints a table, and writes it and its numbers beside the script."""
  text = '\n'.join(lines)
  print(text)
  path = pathlib.Path(script).with_suffix('.json')
  path.write_text(json.dumps(rows, indent=1) + '\n')
  path.with_suffix('.md').write_text(text + '\n')
