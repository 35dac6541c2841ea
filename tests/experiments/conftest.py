"""The experiments' modules import each other by bare names."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[2]
sys.path.append(str(ROOT / 'experiments' / 'reproduce'))
