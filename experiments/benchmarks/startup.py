"""Seconds until something happens: imports, and the first step of training.

Every measurement is that of a fresh process, without a compilation cache;
contestants take turns, each time is the median of several, and a ratio the
median of those of all rounds. The first step of training holds tracing and
compilation; networks and pictures are those of train_step.py, and each program
imports what its own step needs alone. From the project's root:

    python experiments/benchmarks/startup.py
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
from typing import Any

import tyro
from contestants import machine, ratio

IMPORTS = {  # the first is what the others are measured by
  'jax, optax': 'import jax, optax',
  'bort_jax': 'import bort_jax',
  'jax, optax, flax': 'import jax, optax, flax.nnx',
  'bort_jax.nn': 'import bort_jax.nn',
  'bort_jax.train': 'import bort_jax.train',
}
STEPS = ('ours', 'ours, Bort', 'Linen')
TIMED = """
import time
start = time.perf_counter()
{}
print(time.perf_counter() - start)
"""
STEPPED = """
import sys, time
start = time.perf_counter()
sys.path.insert(0, {folder!r})
import numpy as np
from train_step_cases import CASES
if {contestant!r} == 'Linen':
  from train_step_linen import linen_step
else:
  from train_step_ours import OURS, ours
imported = time.perf_counter() - start
case = CASES['resnet18']
images = np.zeros((case.batch, *case.image_shape), np.uint8)
labels = np.zeros(case.batch, np.int32)
if {contestant!r} == 'Linen':
  step = linen_step(case, images, labels)
else:
  step = ours(case, images, labels, **OURS[{contestant!r}])
made = time.perf_counter() - start - imported
times = []
for _ in range(2):
  before = time.perf_counter()
  step.run()
  times.append(time.perf_counter() - before)
print(imported, made, *times)
"""


def main(repeats: int = 9, step_repeats: int = 4) -> None:
  """Times imports and first steps.

  Args:
    repeats: processes for each import.
    step_repeats: processes for each contestant that trains.
  """
  imports = timed(
    {name: TIMED.format(code) for name, code in IMPORTS.items()}, repeats
  )
  folder = str(pathlib.Path(__file__).parent.resolve())
  steps = timed(
    {name: STEPPED.format(folder=folder, contestant=name) for name in STEPS},
    step_repeats,
  )
  found = {
    'machine': machine(),
    'imports': imports_of(imports),
    'steps': steps_of(steps),
  }
  text = '\n'.join(table(found)) + '\n'
  print(text)
  path = pathlib.Path(__file__).with_suffix('.json')
  path.write_text(json.dumps(found, indent=1) + '\n')
  path.with_suffix('.md').write_text(text)


def timed(programs: dict[str, str], repeats: int) -> dict[str, list[Any]]:
  """The numbers that programs print, each run several times in turn."""
  environment = {**os.environ, 'JAX_ENABLE_COMPILATION_CACHE': 'false'}
  found: dict[str, list[Any]] = {name: [] for name in programs}
  for turn in range(repeats + 1):
    for name, program in programs.items():
      done = subprocess.run(
        [sys.executable, '-c', program],
        capture_output=True,
        check=True,
        text=True,
        env=environment,
      )
      if turn:  # the first reads the disk
        found[name].append([float(x) for x in done.stdout.split()])
  return found


def imports_of(found: dict[str, list[Any]]) -> list[dict[str, Any]]:
  """A row for each import."""
  seconds = {name: [s for (s,) in runs] for name, runs in found.items()}
  medians = {name: statistics.median(s) for name, s in seconds.items()}
  return [
    {
      'import': name,
      'seconds': median,
      'spread': (max(seconds[name]) - min(seconds[name])) / median,
      'ratio': ratio(seconds[name], seconds['jax, optax']),
    }
    for name, median in medians.items()
  ]


def steps_of(found: dict[str, list[Any]]) -> list[dict[str, Any]]:
  """A row for each contestant that trains."""
  names = ('imports', 'weights', 'first_step', 'second_step')
  rows = []
  until = lambda runs: [float(sum(run[:3])) for run in runs]
  linen = until(found['Linen'])
  for contestant, runs in found.items():
    medians = [statistics.median(column) for column in zip(*runs, strict=True)]
    sums = until(runs)
    rows.append(
      {
        'contestant': contestant,
        **dict(zip(names, medians, strict=True)),
        'until_first_step': statistics.median(sums),
        'spread': (max(sums) - min(sums)) / statistics.median(sums),
        'ratio': ratio(sums, linen),
      }
    )
  return rows


def table(found: dict[str, Any]) -> list[str]:
  """Both tables."""
  return [
    '| import | seconds | spread | to jax, optax | 95 % interval |',
    '| --- | ---: | ---: | ---: | ---: |',
    *(
      f'| {r["import"]} | {r["seconds"]:.2f} | {r["spread"]:.0%} |'
      f' {r["ratio"][0]:.2f} | {r["ratio"][1]:.2f} … {r["ratio"][2]:.2f} |'
      for r in found['imports']
    ),
    '',
    'ResNet-18, as in train_step.md:',
    '',
    '| contestant | imports (s) | weights (s) | first step (s) | second step'
    ' (s) | until the first step (s) | spread | to Linen | range |',
    '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    *(
      f'| {r["contestant"]} | {r["imports"]:.1f} | {r["weights"]:.1f} |'
      f' {r["first_step"]:.1f} | {r["second_step"]:.2f} |'
      f' {r["until_first_step"]:.1f} | {r["spread"]:.0%} |'
      f' {r["ratio"][0]:.2f} | {r["ratio"][1]:.2f} … {r["ratio"][2]:.2f} |'
      for r in found['steps']
    ),
    '',
    f'{found["machine"]}.',
  ]


if __name__ == '__main__':
  tyro.cli(main)
