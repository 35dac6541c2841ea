"""Benchmarks in their smallest form: that they run and compare like to like."""

import json
import math
import pathlib
from functools import partial
from typing import Any

import attribution
import condition
import contestants
import input as input_benchmark
import jax
import jax.numpy as jnp
import metrics as metrics_benchmark
import numpy as np
import pytest
import startup
import train_step
import train_step_linen
from flax import nnx
from train_step_cases import CASES, Case, config_of

from bort_jax.train.network import make_model

FOLDER = pathlib.Path(train_step.__file__).parent
SMALL = Case('resnet8', 2, (8, 8, 3), 4)


def test_a_ratio_is_of_the_same_round_and_has_its_interval():
  times = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]
  found = contestants.ratio([3 * t for t in times], times)
  assert found == (3.0, 3.0, 3.0)
  found = contestants.ratio([*range(1, 10)], [1.0] * 9)
  assert found == (5, 2, 8)  # misses the median once in 25 times
  assert contestants.ratio([1, 2, 3], [1.0] * 3) == (2, 1, 3)


def test_rounds_differ_in_their_order_and_the_first_does_not_count():
  order = []
  timed = {n: contestants.Contestant(partial(order.append, n)) for n in 'abc'}
  contestants.take_turns(timed, 20)
  assert [len(c.seconds) for c in timed.values()] == [20] * 3
  rounds = [tuple(order[i : i + 3]) for i in range(0, 63, 3)]
  assert all(sorted(names) == ['a', 'b', 'c'] for names in rounds)
  assert len(set(rounds)) == 6


def test_linen_has_the_same_parameters():
  case = CASES['resnet18']
  make = partial(
    make_model, config_of(case), case.image_shape, case.num_classes
  )
  ours = nnx.state(nnx.eval_shape(make), nnx.Param)
  variables = jax.eval_shape(
    train_step_linen.network_of(case).init,
    jax.random.key(0),
    jnp.zeros((1, *case.image_shape)),
  )
  sizes = lambda tree: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
  assert sizes(variables['params']) == sizes(ours)


def test_a_step_in_linen_trains(monkeypatch):
  tiny = train_step_linen.ResNet(train_step_linen.BasicBlock, (1,), True, 4)
  monkeypatch.setattr(train_step_linen, 'network_of', lambda case: tiny)
  images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
  step = train_step_linen.linen_step(SMALL, images, np.array([0, 1], np.int32))
  step.run()
  assert step.parameters > 1000


def test_tables_are_those_of_the_numbers():
  kept = lambda name: json.loads((FOLDER / name).read_text())
  page = train_step.page(kept('train_step.json'), kept('update.json'))
  assert page == (FOLDER / 'train_step.md').read_text()
  for module in (startup, metrics_benchmark):
    name = module.__name__
    page = '\n'.join(module.table(kept(f'{name}.json'))) + '\n'
    assert page == (FOLDER / f'{name}.md').read_text()


def test_what_was_made_ahead_is_taken_away(monkeypatch):
  monkeypatch.setattr(input_benchmark, 'AHEAD', 3)

  class Source:
    def train(self, first_step):
      yield from range(first_step, 100)

  source: Any = Source()
  with input_benchmark.opened(source) as batches:
    assert next(batches) == 3
  given = []
  assert input_benchmark.fed(given.append, source, 5) > 0
  assert given == [3, 4, 5, 6, 7]


def test_startup():
  programs = {'a': startup.TIMED.format('pass'), 'b': 'print(1, 2, 3, 4)'}
  found = startup.timed(programs, 1)
  assert len(found['a'][0]) == 1
  (row,) = startup.steps_of({'Linen': found['b']})
  assert (row['first_step'], row['until_first_step']) == (3, 6)
  assert row['ratio'] == (1, 1, 1)


def test_an_orthogonal_segment_takes_one_step():
  cases = {case[0]: case for case in condition.cases(np.random.default_rng(0))}
  row = condition.counted(*cases['convolution, 0% random'], 0, 2)
  assert row['steps'] == 1
  assert row['condition'] == pytest.approx(1, abs=1e-4)
  assert row['residual'] < 1e-5


def test_the_bound_is_at_the_residual_that_was_reached():
  row = {'condition': 4.0, 'residual': 2e-3}
  assert condition.bound_of(row) == pytest.approx(2 * math.log(1e3))


def test_bare_gradient_is_ours():
  ours, bare = attribution._ours('gradient', 1)(), attribution._bare(1)()
  np.testing.assert_allclose(np.moveaxis(ours, 1, -1), bare, atol=1e-5)
