"""Training on many devices is training on one."""

import functools
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bort_jax.selection import matrix_views
from bort_jax.train import TrainConfig
from bort_jax.train.augment import Recipe
from bort_jax.train.comparison import network_of
from bort_jax.train.network import make_model, make_network
from bort_jax.train.optimizer import make_optimizer
from bort_jax.train.parallel import make_parallel
from bort_jax.train.step import (
  StepOptions,
  evaluation_step,
  init_state,
  train_step,
)

STEPS = 20
NETWORKS = {
  'resnet': {'model': 'resnet8', 'optimizer': 'sgd', 'gamma': 0.1},
  # Not Adam: the gradient of a key's bias is zero but for rounding, which Adam
  # would make a full step of.
  'vit': {
    'optimizer': 'sgd',
    'model': 'vit_ti',
    'model_options': ('patch_size=4', 'width=24', 'num_heads=2', 'depth=1'),
    'gamma': 0.1,
  },
}
LAYOUTS = {
  'jit': {},
  'fsdp': {'fsdp': 4},
  'pmap': {'parallel': 'pmap'},
}


class Shapes:
  """As much of a source as a network needs."""

  image_shape = (8, 8, 3)
  num_classes = 10


def config_of(network, **options):
  return TrainConfig(
    batch_size=32,
    learning_rate=0.01,
    warmup=0.0,
    init='default',
    **NETWORKS[network],
    **options,
  )


def make_steps(config, options):
  parallel = make_parallel(config)
  network = network_of(config, Shapes(), parallel)  # pyright: ignore
  tx = make_optimizer(config, STEPS, True)
  options = options._replace(axis_name=parallel.axis_name)
  start = functools.partial(init_state, network, tx, options.ema is not None)
  step = functools.partial(train_step, network, tx, options)
  evaluation = functools.partial(
    evaluation_step, network, parallel.axis_name, loss='softmax'
  )
  return parallel, start, parallel.step(step), parallel.evaluation(evaluation)


@functools.cache
def run(network, layout):
  """The losses, the final state and the final counts."""
  config = config_of(network, **layout_of(layout))
  options = StepOptions(Recipe(pad_crop=2, flip=True, mixup=0.5), 0.1, 0.9)
  parallel, start, step, evaluation = make_steps(config, options)
  state = parallel.init(start)
  rng = np.random.default_rng(0)
  losses = []
  images = rng.integers(0, 256, (32, 8, 8, 3)).astype(np.uint8)
  labels = rng.integers(0, 10, 32).astype(np.int32)
  for _ in range(STEPS):
    batch = parallel.batch(images, labels)
    state, metrics = step(state, *batch, jax.random.key(0))
    losses.append(float(metrics.loss))
    images, labels = np.roll(images, 5, 0), np.roll(labels, 5, 0)
  if config.parallel == 'jit':
    assert getattr(step, '_cache_size')() == 1  # noqa: B009
  mask = np.arange(32) < 27
  counts = evaluation(
    state.params, state.stats, *parallel.batch(images, labels, mask)
  )
  return np.array(losses), jax.tree.map(np.asarray, state), counts


def layout_of(name):
  return {'devices': 1} if name == 'one' else LAYOUTS[name]


def assert_close(state, expected):
  leaves = jax.tree_util.tree_leaves_with_path(expected)
  for (path, x), y in zip(leaves, jax.tree.leaves(state), strict=True):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      continue
    np.testing.assert_allclose(
      y, x, rtol=1e-5, atol=1e-5, err_msg=jax.tree_util.keystr(path)
    )


CASES = [
  *(('resnet', layout) for layout in LAYOUTS),
  *(('vit', layout) for layout in ('fsdp', 'pmap')),
]


def test_a_pmap_of_one_device_averages_nothing():
  config = config_of('resnet', parallel='pmap', devices=1)
  parallel = make_parallel(config)
  add = lambda state, images, labels, key: (state + images.sum(), labels)
  batch = parallel.batch(np.ones((4, 2)), np.arange(4))
  state, labels = parallel.step(add)(np.float32(1), *batch, jax.random.key(0))
  assert parallel.axis_name is None
  assert float(state) == 9
  assert labels.shape == (4,)
  assert make_parallel(config_of('resnet', parallel='pmap')).axis_name


@pytest.mark.slow
@pytest.mark.parametrize(('network', 'layout'), CASES)
def test_many_devices_give_the_result_of_one(network, layout):
  losses, state, counts = run(network, layout)
  expected_losses, expected, expected_counts = run(network, 'one')
  np.testing.assert_allclose(losses, expected_losses, rtol=1e-5, atol=1e-5)
  assert_close(state.params, expected.params)
  assert_close(state.stats, expected.stats)
  assert_close(state.ema, expected.ema)
  assert int(counts.pictures) == 27 == int(expected_counts.pictures)
  np.testing.assert_allclose(counts.loss, expected_counts.loss, rtol=1e-4)


SCRIPT = (
  pathlib.Path(__file__).parents[2]
  / 'experiments'
  / 'benchmarks'
  / 'fsdp_collectives.py'
)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('model', 'options'),
  [('resnet8', ()), ('vit_ti', ('patch_size=4', 'depth=1'))],  # wide, and tall
)
def test_the_constraint_gathers_no_sharded_weight(model, options):
  """Between the plain step and that with Bort lie the Gram matrices alone."""
  script = runpy.run_path(str(SCRIPT))
  config = TrainConfig(
    model=model,
    model_options=options,
    init='default',
    optimizer='sgd',
    gamma=0.1,
    fsdp=8,
  )
  plain, bort = (script['collectives'](config, 8, c) for c in (False, True))
  assert plain['all-gather'][0] > 0
  for kind in plain:
    if kind != 'all-reduce':
      assert bort[kind] == plain[kind]
  make = functools.partial(make_model, config, (8, 8, 3), 10)
  params, _ = jax.eval_shape(make_network(make).init)
  sides = [
    min(v.num_out, v.num_in) for v in matrix_views(None, params).values()
  ]
  added = bort['all-reduce'][1] - plain['all-reduce'][1]
  assert 0 < added <= 4 * sum(side**2 for side in sides)
