"""The optimizers of a run."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bort_jax import spectrum
from bort_jax.train import TrainConfig
from bort_jax.train.adaptive_clip import adaptive_clip
from bort_jax.train.errors import RunError
from bort_jax.train.optimizer import kernels, make_optimizer, schedule

PARAMS = {'kernel': jnp.diag(jnp.array([0.5, 1.0, 1.5])), 'bias': jnp.ones(3)}
OPTIMIZERS = ['sgd', 'adamw', 'lamb', 'muon']


def end_of(tx, steps=300, scale=1e-2):
  def step(carry, key):
    params, state = carry
    grads = jax.tree.map(
      lambda p: scale * jax.random.normal(key, p.shape), params
    )
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), None

  keys = jax.random.split(jax.random.key(0), steps)
  (params, _), _ = jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), keys)
  return params


def error_of(params):
  return float(spectrum.orthogonality_error(params)['kernel'])


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_the_constraint_is_what_differs(optimizer):
  config = TrainConfig(
    optimizer=optimizer, learning_rate=1e-2, gamma=20.0, warmup=0.0
  )
  plain = end_of(make_optimizer(config, 300, constrained=False))
  bort = end_of(make_optimizer(config, 300, constrained=True))
  assert error_of(bort) < 0.1 < error_of(plain)


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_kernels_take_turns(optimizer):
  options: Any = {'optimizer': optimizer, 'warmup': 0.0, 'weight_decay': 0.0}
  options |= {'schedule': 'constant', 'learning_rate': 1e-2, 'momentum': 0.0}
  params = {name: {'kernel': PARAMS['kernel']} for name in 'abc'}
  none = jax.tree.map(jnp.zeros_like, params)

  def moves(every, gamma, steps):
    config = TrainConfig(every=every, gamma=gamma, **options)
    tx = make_optimizer(config, 9, True)
    state = tx.init(params)
    for _ in range(steps):
      updates: Any
      updates, state = tx.update(none, state, params)
      yield {name: updates[name]['kernel'] for name in params}

  (whole,) = moves(1, 3.0, 1)
  moved = dict.fromkeys(params, 0)
  for updates in moves(3, 1.0, 3):  # with γ of a third
    for name, update in updates.items():
      if jnp.any(update):
        moved[name] += 1
        np.testing.assert_allclose(update, whole[name], rtol=1e-5)
  assert moved == {'a': 1, 'b': 1, 'c': 1}


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_hard_is_exact(optimizer):
  config = TrainConfig(optimizer=optimizer, constraint='hard')
  assert error_of(end_of(make_optimizer(config, 300, True))) < 1e-5


def test_plain_adamw_is_that_of_optax():
  config = TrainConfig(weight_decay=0.1)
  expected = optax.adamw(schedule(config, 300), weight_decay=0.1, mask=kernels)
  got = end_of(make_optimizer(config, 300, constrained=False))
  for x, y in zip(
    jax.tree.leaves(got), jax.tree.leaves(end_of(expected)), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=1e-5)


def test_accumulated_batches_are_one_large_batch():
  config = TrainConfig(optimizer='sgd', gamma=0.5, accumulate=4, warmup=0.0)
  tx = make_optimizer(config, 40, True)
  whole = make_optimizer(
    TrainConfig(**{'optimizer': 'sgd', 'gamma': 0.5, 'warmup': 0.0}), 10, True
  )
  parts = [
    {
      'kernel': jax.random.normal(jax.random.key(i), (3, 3)),
      'bias': jnp.full(3, float(i)),
    }
    for i in range(4)
  ]
  mean = jax.tree.map(lambda *x: sum(x) / 4, *parts)
  expected, _ = whole.update(mean, whole.init(PARAMS), PARAMS)
  state = tx.init(PARAMS)
  for grads in parts[:3]:
    updates, state = tx.update(grads, state, PARAMS)
    assert all(not jnp.any(u) for u in jax.tree.leaves(updates))
  updates, state = tx.update(parts[3], state, PARAMS)
  for x, y in zip(
    jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('clip', ['clip_norm', 'clip_adaptive'])
def test_clipping_spares_the_constraint(clip):
  options: Any = {'optimizer': 'sgd', 'gamma': 1.0, 'warmup': 0, 'momentum': 0}
  limit: Any = {clip: 1e-6}
  clipped = TrainConfig(**options, **limit)
  huge = jax.tree.map(lambda p: 1e6 * jnp.ones_like(p), PARAMS)
  none = jax.tree.map(jnp.zeros_like, PARAMS)
  tx = make_optimizer(clipped, 10, True)
  got: Any
  expected: Any
  got, _ = tx.update(huge, tx.init(PARAMS), PARAMS)
  free = make_optimizer(TrainConfig(**options), 10, True)
  expected, _ = free.update(none, free.init(PARAMS), PARAMS)
  np.testing.assert_allclose(got['kernel'], expected['kernel'], atol=1e-8)


def test_units_are_clipped_by_the_norm_of_their_weights():
  config = TrainConfig(
    optimizer='sgd',
    learning_rate=1.0,
    warmup=0.0,
    momentum=0.0,
    weight_decay=0.0,
    clip_adaptive=0.5,
  )
  params = {'kernel': jnp.array([[3.0, 0.0], [4.0, 1.0]])}
  grads = {'kernel': jnp.array([[60.0, 0.3], [80.0, 0.0]])}
  tx = make_optimizer(config, 10, False)
  got: Any
  got, _ = tx.update(grads, tx.init(params), params)
  # The first unit's weights have norm 5, the second's 1.
  np.testing.assert_allclose(
    got['kernel'], [[-1.5, -0.3], [-2.0, 0.0]], rtol=1e-6
  )


@pytest.mark.parametrize(
  ('path', 'shape', 'axes'),
  [
    (('conv', 'kernel'), (3, 4, 2), (0, 1)),
    (('query', 'kernel'), (4, 2, 3), (0,)),
    (('position', 'table'), (2, 3, 4), (0, 1, 2)),
  ],
)
def test_units_of_rank_3_are_rows_of_the_matrix(path, shape, axes):
  outer, name = path
  w, g = (np.random.default_rng(seed).normal(size=shape) for seed in (0, 1))
  g[..., 0] /= 100  # some of it is small enough
  params, grads = ({outer: {name: jnp.asarray(x)}} for x in (w, g))
  tx = adaptive_clip(0.5)
  got: Any
  got, _ = tx.update(grads, tx.init(params), params)
  of_weights, of_grads = (
    np.sqrt((x**2).sum(axes, keepdims=True)) for x in (w, g)
  )
  expected = g * np.minimum(1, 0.5 * of_weights / of_grads)
  np.testing.assert_allclose(got[outer][name], expected, rtol=1e-5)


def test_the_schedule_warms_up_and_falls():
  rate: Any = schedule(TrainConfig(learning_rate=0.5, warmup=0.2), 100)
  assert float(rate(0)) == 0.0
  np.testing.assert_allclose(rate(20), 0.5)
  assert float(rate(100)) < 1e-6
  constant: Any = schedule(TrainConfig(schedule='constant', warmup=0.0), 100)
  np.testing.assert_allclose([constant(0), constant(99)], 1e-3)


def test_a_decay_that_wins_is_refused():
  config = TrainConfig(weight_decay=2.0, gamma=1.0)
  with pytest.raises(RunError, match='would decay to zero'):
    make_optimizer(config, 100, True).init(PARAMS)
