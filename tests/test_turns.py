"""Corrections in turns: which matrix, when, by how much, and what is stable."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import random_array, trajectory
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import bort_jax
from bort_jax import MatrixAxes, spectrum
from bort_jax.spectrum.stability import stable_kappa
from bort_jax.turns import take_turns

GAMMA, RATE = 0.5, 0.1
STACK = MatrixAxes(2, 1)
MAKERS = {
  'bort': lambda gamma, **kw: optax.chain(
    bort_jax.bort(gamma, **kw), optax.sgd(RATE)
  ),
  'bort_sgd': functools.partial(
    bort_jax.bort_sgd, RATE, momentum=0.9, weight_decay=0.1
  ),
  'bort_adamw': functools.partial(
    bort_jax.bort_adamw, RATE, weight_decay=0.1, amplitude=2.0
  ),
  'bort_lamb': functools.partial(bort_jax.bort_lamb, RATE, weight_decay=0.1),
  'bort_muon': functools.partial(bort_jax.bort_muon, RATE, weight_decay=0.1),
}
makers = pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)


def tree_of(seed, steps=()):
  """A large kernel, whose turn is the first, a small one, and a bias."""
  shapes = {'a': (3, 4), 'b': (8, 16)}
  tree: dict[str, Any] = {
    name: {'kernel': jnp.asarray(random_array(seed, (*steps, *shape)) / 3)}
    for name, shape in shapes.items()
  }
  return tree | {'bias': jnp.ones((*steps, 4))}


@makers
def test_each_matrix_is_corrected_by_k_gamma_at_its_turn(make, float64):
  """As by a strength that is zero at all other steps."""
  every, steps = 3, 7
  params, grads = tree_of(0), tree_of(1, (steps,))
  got = trajectory(make(GAMMA, every=every), params, grads)
  for turn, name in enumerate('ba'):
    alone = make(lambda count, t=turn: every * GAMMA * (count % every == t))
    expected = trajectory(alone, params, grads)
    np.testing.assert_allclose(
      got[name]['kernel'], expected[name]['kernel'], rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(got['bias'], expected['bias'], rtol=1e-12)


@makers
def test_a_period_of_one_is_every_step(make):
  params, grads = tree_of(0), tree_of(1, (3,))
  got, expected = (
    trajectory(make(GAMMA, **kw), params, grads) for kw in ({'every': 1}, {})
  )
  close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7)
  jax.tree.map(close, got, expected)


@pytest.mark.parametrize('every', [1, 2, 5, 40])
def test_every_matrix_has_one_turn_in_a_period(every):
  rng = np.random.default_rng(0)
  sizes = rng.integers(1, 300, (30, 2))
  kernel = lambda size: jax.ShapeDtypeStruct(tuple(size), 'float32')
  params: Any = {str(i): {'kernel': kernel(s)} for i, s in enumerate(sizes)}
  params['bias'] = jax.ShapeDtypeStruct((3,), 'float32')
  turns = [take_turns(None, params, every, step) for step in range(every)]
  times = jax.tree.map(lambda *is_turn: sum(is_turn), *turns)
  assert times.pop('bias') == 0
  assert set(jax.tree.leaves(times)) == {1}
  work = sizes.prod(1) * sizes.min(1)
  loads = [
    sum(w for w, t in zip(work, is_turn.values(), strict=False) if t['kernel'])
    for is_turn in (
      {str(i): turn[str(i)] for i in range(len(sizes))} for turn in turns
    )
  ]
  assert sum(loads) == work.sum()
  assert max(loads) <= work.sum() / every + work.max()


def test_the_device_decides_and_nothing_is_compiled_again():
  tx = bort_jax.bort_sgd(RATE, GAMMA, every=2)
  params = tree_of(0)
  state = tx.init(params)
  update = jax.jit(tx.update)
  _, state = update(params, state, params)
  with jax.transfer_guard('disallow'):
    for _ in range(3):
      _, state = update(params, state, params)
  assert getattr(update, '_cache_size')() == 1  # noqa: B009
  jaxpr = jax.make_jaxpr(tx.update)(params, state, params)
  assert str(jaxpr).count(' cond[') == 2
  assert 'callback' not in str(jaxpr)


def test_the_state_counts_only_where_there_are_turns():
  params = tree_of(0)
  assert bort_jax.bort(GAMMA).init(params) == optax.EmptyState()
  state: Any = bort_jax.bort(GAMMA, every=3).init(params)
  assert (state.count.shape, state.count.dtype) == ((), jnp.int32)


def test_networks_at_different_steps_under_vmap():
  tx = bort_jax.bort(GAMMA, every=2)
  grads, params = tree_of(0), tree_of(1)
  state: Any = tx.init(params)
  states = state._replace(count=jnp.arange(3, dtype=jnp.int32))
  mapped: Any = jax.vmap(lambda state: tx.update(grads, state, params))(states)
  got, _ = mapped
  for i in range(3):
    one = state._replace(count=states.count[i])
    expected: Any = tx.update(grads, one, params)[0]
    for name in 'ab':
      np.testing.assert_allclose(
        got[name]['kernel'][i], expected[name]['kernel'], rtol=1e-6
      )


# On several devices.


def two_steps(tx, grads, params):
  state = tx.init(params)
  for _ in range(2):
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  return params


@pytest.mark.parametrize('make', ['bort_sgd', 'bort_adamw'])
@pytest.mark.parametrize(
  'axis_type', [AxisType.Auto, AxisType.Explicit], ids=['auto', 'explicit']
)
def test_sharded_equals_one_device(make, axis_type):
  tx = MAKERS[make](GAMMA, every=2)
  grads, params = tree_of(0), tree_of(1)
  run = jax.jit(functools.partial(two_steps, tx))
  expected = run(grads, params)
  mesh = jax.make_mesh((8,), ('x',), axis_types=(axis_type,))
  specs = {'a': (), 'b': (None, 'x'), 'bias': ()}
  with jax.set_mesh(mesh):
    lay = lambda tree: {
      name: jax.device_put(
        leaf, NamedSharding(mesh, PartitionSpec(*specs[name]))
      )
      for name, leaf in tree.items()
    }
    got = run(lay(grads), lay(params))
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5), got, expected
  )


@pytest.mark.parametrize('check_vma', [False, True])
def test_shard_map_of_replicated_parameters(check_vma):
  tx = MAKERS['bort_sgd'](GAMMA, every=2)
  grads, params = tree_of(0), tree_of(1)
  run = functools.partial(two_steps, tx)
  mesh = jax.make_mesh((8,), ('x',), axis_types=(AxisType.Auto,))
  mapped = jax.shard_map(
    run,
    mesh=mesh,
    in_specs=PartitionSpec(),
    out_specs=PartitionSpec(),
    check_vma=check_vma,
  )
  got, expected = jax.jit(mapped)(grads, params), jax.jit(run)(grads, params)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-6), got, expected
  )


def test_pmap_of_replicated_parameters():
  tx = MAKERS['bort_adamw'](GAMMA, every=2)
  grads, params = tree_of(0), tree_of(1)
  run = functools.partial(two_steps, tx)
  mapped = jax.pmap(lambda _, *args: run(*args), in_axes=(0, None, None))
  got, expected = mapped(jnp.arange(8), grads, params), run(grads, params)
  jax.tree.map(
    lambda g, e: np.testing.assert_allclose(g[5], e, rtol=1e-5, atol=1e-6),
    got,
    expected,
  )


# Laws of stability.


def linear_edge(momentum, nesterov, every):
  """The κ of a correction at which an eigenvalue of a period reaches −1."""
  low, high = 0.0, 3.0
  for _ in range(50):
    kappa = (low + high) / 2
    period = np.eye(2)
    for step in range(every):
      k = 2 * kappa if step == 0 else 0.0
      pull = k * (1 + momentum) if nesterov else k
      passed_on = momentum**2 if nesterov else momentum
      period = np.array([[1 - pull, -passed_on], [k, momentum]]) @ period
    stable = np.abs(np.linalg.eigvals(period)).max() < 1
    low, high = (kappa, high) if stable else (low, kappa)
  return low


@pytest.mark.parametrize('nesterov', [False, True])
@pytest.mark.parametrize('momentum', [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize('every', [1, 2, 3, 8])
def test_fixed_points_are_stable_up_to_the_law(momentum, nesterov, every):
  expected = linear_edge(momentum, nesterov, every)
  law = stable_kappa(momentum, nesterov, every)
  np.testing.assert_allclose(law, expected, rtol=1e-6)


def ends(starts, kappa, momentum, nesterov, every, steps=3000):
  """Singular values in the end, a = 1, corrected at one step of ``every``."""
  s, buffer = starts.copy(), np.zeros_like(starts)
  for step in range(steps):
    pull = kappa * (s**3 - s) if step % every == 0 else 0.0
    buffer = momentum * buffer + pull
    s = s - (pull + momentum * buffer if nesterov else buffer)
    s, buffer = np.clip(s, -1e9, 1e9), np.clip(buffer, -1e9, 1e9)
  return s


@pytest.mark.parametrize(
  ('momentum', 'nesterov'),
  [(0.0, False), (0.5, False), (0.9, False), (0.9, True)],
)
@pytest.mark.parametrize('every', [2, 5])
def test_random_starts_converge_at_the_safe_step(
  momentum, nesterov, every, float64
):
  rng = np.random.default_rng(0)
  for low, high in ((0.05, 1.1), (0.05, 3.0)):
    rate = spectrum.largest_safe_step(
      jnp.diag(jnp.array([low, high]))[None],
      1.0,
      momentum=momentum,
      nesterov=nesterov,
      axes=STACK,
      every=every,
    )
    starts = rng.uniform(low, high, 2000)
    args = (momentum, nesterov, every)
    safe = ends(starts, 0.99 * float(rate) * every, *args)
    assert np.max(np.abs(safe**2 - 1)) < 1e-3
    starts[0] = high
    above = ends(starts, 1.15 * float(rate) * every, *args)
    assert np.max(np.abs(above**2 - 1)) > 1e-3


@pytest.mark.parametrize('momentum', [0.0, 0.9])
def test_a_run_of_the_optimizer_obeys_the_law(momentum, float64):
  """The same matrix under the same step, with and without turns."""
  params = {'kernel': jnp.diag(jnp.array([0.5, 1.2]))}
  gamma, rate = 1.0, 0.9 if momentum == 0 else 0.5
  kinds = lambda every: {
    f.kind
    for f in spectrum.check(params, rate, gamma, momentum=momentum, every=every)
  }
  assert kinds(None) == set()
  assert 'diverges' in kinds(4)
  grads = jax.tree.map(lambda w: jnp.zeros((400, *w.shape)), params)
  for every, settles in ((None, True), (4, False)):
    tx = bort_jax.bort_sgd(rate, gamma, momentum=momentum, every=every)
    end = trajectory(tx, params, grads)['kernel'][-1]
    is_settled = np.allclose(np.abs(np.diag(end)), 1, atol=1e-3)
    assert is_settled == settles


def test_the_sign_is_kept_by_the_larger_step():
  params = {'kernel': 2.0 * jnp.eye(2)}
  alone = spectrum.check(params, 0.1, 1.0)
  (found,) = spectrum.check(params, 0.1, 1.0, every=4)
  assert alone == ()
  assert found.kind == 'sign_flip'
  np.testing.assert_allclose(found.limit, np.sqrt(1 + 1 / 0.4))


# What is refused.


@makers
@pytest.mark.parametrize('every', [0, -1, 1.5, 'two', True])
def test_refuses_what_is_no_number_of_steps(make, every):
  with pytest.raises(ValueError, match='every must be an integer, at least 1'):
    make(GAMMA, every=every)


@makers
def test_a_number_that_is_traced_is_refused_with_the_remedy(make):
  with pytest.raises(ValueError, match='name it in static_args'):
    jax.jit(lambda every: make(GAMMA, every=every).init(tree_of(0)))(2)


def test_injected_with_static_turns():
  inject = optax.inject_hyperparams(bort_jax.bort_sgd, static_args='every')
  params = tree_of(0)
  tx: Any = inject(RATE, GAMMA, every=2)
  plain = bort_jax.bort_sgd(RATE, GAMMA, every=2)
  got, _ = tx.update(params, tx.init(params), params)
  expected, _ = plain.update(params, plain.init(params), params)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-6), got, expected
  )


@pytest.mark.parametrize(
  'refusing',
  [
    lambda: spectrum.check({'kernel': jnp.eye(2)}, 0.1, 1.0, every=0),
    lambda: spectrum.largest_safe_step({'kernel': jnp.eye(2)}, 1.0, every=0),
  ],
)
def test_measures_refuse_it_too(refusing):
  with pytest.raises(ValueError, match='every must be an integer'):
    refusing()
