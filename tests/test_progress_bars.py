"""What the command line shows while a run goes on."""

import pathlib

import pytest
from rich.console import Console

from bort_jax.progress_bars import ProgressBars
from bort_jax.train.comparison import Start
from bort_jax.train.metrics import Pace, Step


@pytest.mark.parametrize('constraint', ['soft', 'hard'])
def test_a_line_of_progress_fits_into_80_columns(constraint):
  console = Console(width=80)
  bars = ProgressBars(console, constraint)
  bars.started(Start(pathlib.Path('run'), ('bort',), 450_360, ()))
  last, pace = Step(450_360, 12.3456, 1.0), Pace(450_360, 0.01, 99_999.0, None)
  bars.stepped('bort', [last], pace)
  with console.capture() as capture:
    console.print(bars.get_renderable())
  (line,) = capture.get().splitlines()
  assert line.startswith('Bort (hard)' if constraint == 'hard' else 'Bort ')
  status = '450360/450360 loss 12.346 acc 100.0% 99999 images/s '
  assert status in line
  assert line.rstrip().endswith('0:00:00')
