"""Step-by-step equality with the published BortS and BortA, in float64.

The numbers were computed by the published PyTorch code; see tests/golden.
"""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import trajectory

import bort_jax

GOLDEN = pathlib.Path(__file__).parent / 'golden'
CASES = json.loads((GOLDEN / 'bort_trajectories.json').read_text())
PARAMETERS = (
  'linear_wide',
  'linear_tall',
  'linear_square',
  'conv',
  'conv_1x1',
)
TOLERANCE = 1e-10


def output_first(path, leaf):
  del path
  return bort_jax.MatrixAxes(tuple(range(1, leaf.ndim)), 0)


def make_optimizer(case):
  arguments = dict(case['arguments'])
  learning_rate = arguments.pop('lr')
  make = {'BortS': bort_jax.bort_sgd, 'BortA': bort_jax.bort_adamw}
  return make[case['optimizer']](learning_rate, axes=output_first, **arguments)


def load(case_name):
  """The start, the gradients and the results of a case, as trees."""
  with np.load(GOLDEN / 'bort_trajectories.npz') as data:
    pick = lambda what: {
      name: data[f'{case_name}/{name}/{what}'] for name in PARAMETERS
    }
    return pick('param0'), pick('grads'), pick('params')


def deviations(case_name):
  """The largest absolute deviation over all steps, per parameter."""
  start, grads, expected = load(case_name)
  as_jax = lambda tree: jax.tree.map(jnp.asarray, tree)
  got = trajectory(
    make_optimizer(CASES[case_name]), as_jax(start), as_jax(grads)
  )
  return {
    name: float(np.max(np.abs(np.asarray(got[name]) - expected[name])))
    for name in PARAMETERS
  }


@pytest.mark.parametrize('case_name', CASES)
def test_equals_the_published_optimizer(case_name, float64, record_property):
  worst = deviations(case_name)
  record_property('parity', (case_name, worst))  # conftest prints the table
  assert max(worst.values()) <= TOLERANCE, worst


@pytest.mark.slow
def test_the_table_is_printed_once_when_other_processes_run_the_cases():
  case = 'sgd l2-full'
  run = subprocess.run(
    [sys.executable, '-m', 'pytest', '-q', '-n', '2']
    + [f'{__file__}::test_equals_the_published_optimizer[{case}]'],
    capture_output=True,
    text=True,
  )
  assert run.returncode == 0, run.stdout
  assert run.stdout.count('largest deviation from the published code') == 1
  row = next(line for line in run.stdout.splitlines() if case in line)
  assert len(row.removeprefix(case).split()) == len(PARAMETERS)


@pytest.mark.parametrize('nesterov', [False, True])
def test_chain_with_sgd_equals_bort_sgd(nesterov, float64):
  start, grads, _ = load('sgd l2-full')
  chained = optax.chain(
    bort_jax.bort(0.5, axes=output_first), optax.sgd(0.1, 0.9, nesterov)
  )
  alone = bort_jax.bort_sgd(
    0.1, 0.5, momentum=0.9, nesterov=nesterov, axes=output_first
  )
  for a, b in zip(
    jax.tree.leaves(trajectory(chained, start, grads)),
    jax.tree.leaves(trajectory(alone, start, grads)),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)
