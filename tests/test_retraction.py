"""keep_orthogonal: orthogonal after every step, whatever the update."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import hermitian, polar_factor, random_array, trajectory

from bort_jax import MatrixAxes, keep_orthogonal
from bort_jax.matrices import MatrixView
from bort_jax.retraction import project

STEPS = 1000
BOUND = 1e-5
ROWS = MatrixAxes(1, 0)
LAYOUTS = {
  'wide': ((16, 48), ROWS),
  'tall': ((48, 16), ROWS),
  'square': ((24, 24), ROWS),
  'one row': ((1, 20), ROWS),
  'HWIO': ((3, 3, 4, 16), MatrixAxes((0, 1, 2), 3)),
  'grouped': ((3, 3, 2, 12), MatrixAxes((0, 1, 2), 3, groups=3)),
  'depthwise': ((3, 3, 1, 6), MatrixAxes((0, 1, 2), 3, groups=6)),
  'scanned': ((3, 8, 12), MatrixAxes(1, 2)),
}
VIEWS = {name: MatrixView(*layout) for name, layout in LAYOUTS.items()}
AXES = {name: view.axes for name, view in VIEWS.items()}

layouts = pytest.mark.parametrize('name', LAYOUTS)


def orthogonal(view, seed, amplitude=1.0, dtype: Any = np.float32):
  """A random parameter with W Wᴴ = aI, or Wᴴ W = aI if it is tall."""
  wide = np.result_type(dtype, np.float64)
  start = random_array(seed, (*view.stack, view.num_out, view.num_in), wide)
  factor = np.sqrt(amplitude) * polar_factor(start)
  return view.from_matrices(jnp.asarray(factor.astype(dtype)))


def rank_one(view, seed):
  """A parameter of rank one and of spectral norm one."""
  u = random_array([seed, 0], (*view.stack, view.num_out, 1), np.float32)
  v = random_array([seed, 1], (*view.stack, 1, view.num_in), np.float32)
  matrices = u @ v
  norm = np.linalg.norm(matrices, axis=(-2, -1), keepdims=True)
  return view.from_matrices(jnp.asarray(matrices / norm))


def error_of(matrices, amplitude=1.0):
  """max|G/a − I| of the smaller Gram matrices, in float64."""
  matrices = np.asarray(matrices)
  matrices = matrices.astype(np.result_type(matrices, np.float64))
  if matrices.shape[-2] > matrices.shape[-1]:
    matrices = hermitian(matrices)
  gram = matrices @ hermitian(matrices) / amplitude
  return np.max(np.abs(gram - np.eye(gram.shape[-1])))


def error_of_parameter(view, w, amplitude=1.0):
  return error_of(view.to_matrices(jnp.asarray(w)), amplitude)


def one_step(w, update, axes, **arguments) -> Any:
  tx = keep_orthogonal(axes=axes, **arguments)
  updates, _ = tx.update(update, tx.init(w), w)
  return optax.apply_updates(w, updates)


def for_all(make, *args):
  """A tree with one parameter of every layout."""
  return {name: make(view, *args) for name, view in VIEWS.items()}


def assert_orthogonal(trajectories, amplitude=1.0):
  """At every step of every parameter."""
  worst = {}
  for name, view in VIEWS.items():
    matrices = jax.vmap(view.to_matrices)(trajectories[name])
    worst[name] = error_of(matrices, amplitude)
  assert max(worst.values()) <= BOUND, worst


def noisy(view):
  return random_array(1, (STEPS, *view.shape), np.float32)


def coherent(view):
  return jnp.broadcast_to(rank_one(view, 1), (STEPS, *view.shape))


@jax.jit
def adam_trajectories(learning_rate, amplitude, start, gradients):
  hard = keep_orthogonal(amplitude, axes=AXES)
  return trajectory(
    optax.chain(optax.adam(learning_rate), hard), start, gradients
  )


@pytest.mark.parametrize('make_gradients', [noisy, coherent])
@pytest.mark.parametrize('amplitude', [1.0, 4.0])
@pytest.mark.parametrize('learning_rate', [1e-3, 1e-2])
def test_a_thousand_steps_of_adam(make_gradients, learning_rate, amplitude):
  start = for_all(orthogonal, 0, amplitude)
  gradients = for_all(make_gradients)
  trajectories = adam_trajectories(learning_rate, amplitude, start, gradients)
  assert_orthogonal(trajectories, amplitude)


def test_one_update_of_ten_times_the_weight():
  start = for_all(orthogonal, 0)
  updates = jax.tree.map(lambda u: 10 * u[None], for_all(rank_one, 1))
  assert_orthogonal(trajectory(keep_orthogonal(axes=AXES), start, updates))


def of_size_fifty(update, w):
  return 50 * jnp.linalg.norm(w) / jnp.linalg.norm(update) * update


@pytest.mark.parametrize('make_update', [orthogonal, rank_one])
def test_recovers_from_a_huge_update(make_update):
  start = for_all(orthogonal, 0)
  update = jax.tree.map(of_size_fifty, for_all(make_update, 1), start)
  updates = jax.tree.map(
    lambda x: jnp.zeros((30, *x.shape)).at[0].set(x), update
  )
  trajectories = trajectory(keep_orthogonal(axes=AXES), start, updates)
  assert all(np.all(np.isfinite(x)) for x in trajectories.values())
  assert_orthogonal({name: x[-1:] for name, x in trajectories.items()})


def test_huge_updates_again_and_again_are_finite():
  start = for_all(orthogonal, 0)
  make = lambda view: random_array(1, (100, *view.shape), np.float32)
  scale = lambda all_steps, w: 10 * of_size_fifty(all_steps, w)  # √100
  updates = jax.tree.map(scale, for_all(make), start)
  trajectories = trajectory(keep_orthogonal(axes=AXES), start, updates)
  assert all(np.all(np.isfinite(x)) for x in trajectories.values())


@pytest.mark.parametrize(('steps', 'size'), [(6, 10), (8, 60), (10, 400)])
@pytest.mark.parametrize('shape', [(96, 64), (256, 256)])
@pytest.mark.parametrize('rank', [1, 64])
def test_the_number_of_steps_bounds_the_update(steps, size, shape, rank):
  w = polar_factor(random_array(0, shape, np.float32))
  left, right = (
    random_array(1, (shape[0], rank)),
    random_array(2, (rank, shape[1])),
  )
  update = left @ right
  update *= size / np.linalg.norm(update, 2)
  error = lambda factor, steps: error_of(
    one_step(w, (factor * update).astype(np.float32), ROWS, steps=steps)
  )
  assert error(1, steps) <= 1e-5
  assert error(10, steps) > 1e-3
  assert error(10, steps + 3) <= 1e-5


def test_the_rounding_of_the_updates_dtype_is_left():
  w = polar_factor(random_array(0, (64, 32), np.float32))
  update = jnp.asarray(0.01 * random_array(1, (64, 32)), jnp.bfloat16)
  tx = keep_orthogonal(axes=ROWS)
  got: Any = tx.update(update, tx.init(w), w)[0]
  assert got.dtype == jnp.bfloat16
  assert 1e-5 < error_of(w + np.asarray(got, np.float32)) < 5e-4


def test_converges_from_another_start():
  start = for_all(
    lambda view: jnp.asarray(random_array(0, view.shape, np.float32))
  )
  updates = for_all(lambda view: jnp.zeros((30, *view.shape)))
  end = trajectory(keep_orthogonal(4.0, axes=AXES), start, updates)
  for name, view in VIEWS.items():
    read = lambda w, view=view: np.asarray(view.to_matrices(w), float)
    expected = 2 * polar_factor(read(start[name]))
    np.testing.assert_allclose(
      read(end[name][-1]), expected, atol=2e-5, err_msg=name
    )


def test_a_zero_matrix_stays_zero():
  w = jnp.stack([jnp.zeros((3, 5)), jnp.eye(3, 5)])
  got = one_step(w, jnp.zeros(w.shape), MatrixAxes(2, 1))
  assert not got[0].any()
  np.testing.assert_allclose(got[1], np.eye(3, 5), atol=1e-6)


def test_a_zero_matrix_that_gets_updates_becomes_orthogonal():
  updates = random_array(0, (30, 3, 5), np.float32)
  params = trajectory(keep_orthogonal(axes=ROWS), jnp.zeros((3, 5)), updates)
  assert error_of(params[-1]) <= BOUND


def numpy_tangent(w, update, amplitude=1.0):
  if w.shape[-2] > w.shape[-1]:
    transposed = numpy_tangent(hermitian(w), hermitian(update), amplitude)
    return hermitian(transposed)
  gram = update @ hermitian(w)
  return update - (gram + hermitian(gram)) @ w / (2 * amplitude)


@layouts
@pytest.mark.parametrize('dtype', [np.float64, np.complex128])
def test_projection_is_tangent_and_idempotent(name, dtype, float64):
  view = VIEWS[name]
  w = view.split(orthogonal(view, 0, dtype=dtype))
  update = view.split(jnp.asarray(random_array(1, view.shape, dtype)))
  once = project(view, w, update)
  twice = project(view, w, once)
  read = lambda split: np.asarray(view.to_matrices(view.merge(split)))
  expected = numpy_tangent(read(w), read(update))
  np.testing.assert_allclose(read(once), expected, atol=1e-13)
  np.testing.assert_allclose(once, twice, atol=1e-13)
  small = hermitian if view.num_out > view.num_in else lambda matrices: matrices
  moved = small(read(once)) @ hermitian(small(read(w)))
  np.testing.assert_allclose(moved + hermitian(moved), 0, atol=1e-13)


@layouts
def test_projection_is_orthogonal(name, float64):
  """What it takes away is orthogonal to every tangent update."""
  view = VIEWS[name]
  w = view.split(orthogonal(view, 0, dtype=np.float64))
  random = lambda seed: view.split(jnp.asarray(random_array(seed, view.shape)))
  taken = random(1) - project(view, w, random(1))
  tangent = project(view, w, random(2))
  assert jnp.linalg.norm(taken) > 1e-3
  assert abs(jnp.vdot(taken, tangent)) < 1e-12


@layouts
@pytest.mark.parametrize('amplitude', [1.0, 4.0])
@pytest.mark.parametrize('dtype', [np.float64, np.complex128])
def test_many_iterations_give_the_polar_factor(name, amplitude, dtype, float64):
  view = VIEWS[name]
  w = orthogonal(view, 0, amplitude, dtype)
  update = jnp.asarray(random_array(1, view.shape, dtype))
  got = one_step(w, update, view.axes, amplitude=amplitude, steps=40)
  read = lambda x: np.asarray(view.to_matrices(x))
  moved = read(w) + numpy_tangent(read(w), read(update), amplitude)
  expected = np.sqrt(amplitude) * polar_factor(moved)
  np.testing.assert_allclose(read(got), expected, atol=1e-12)


def test_few_iterations_are_enough_for_small_updates(float64):
  """Quadratic convergence: each iteration doubles the digits."""
  w = orthogonal(VIEWS['wide'], 0, dtype=np.float64)
  update = jnp.asarray(1e-3 * random_array(1, w.shape))
  errors = [
    error_of(one_step(w, update, ROWS, steps=steps)) for steps in (1, 2, 3)
  ]
  assert errors[0] < 1e-6
  assert errors[1] < 1e-11
  assert errors[2] < 1e-14


def test_bfloat16_keeps_its_dtype_and_stays_near():
  view = VIEWS['wide']
  start = orthogonal(view, 0).astype('bfloat16')
  gradients = random_array(1, (200, *view.shape), jnp.bfloat16)
  tx = optax.chain(optax.sgd(1e-2), keep_orthogonal(axes=ROWS))
  params = trajectory(tx, start, gradients)
  assert params.dtype == jnp.bfloat16
  assert error_of(params.astype(jnp.float32)) < 0.03


def test_complex_parameters_stay_unitary():
  view = VIEWS['wide']
  start = orthogonal(view, 0, dtype=np.complex64)
  gradients = random_array(1, (200, *view.shape), np.complex64)
  tx = optax.chain(optax.sgd(1e-2), keep_orthogonal(axes=ROWS))
  params = trajectory(tx, start, gradients)
  assert params.dtype == jnp.complex64
  assert error_of(params) <= BOUND


def test_other_parameters_are_untouched():
  params = {'kernel': jnp.eye(3), 'bias': jnp.ones(3), 'count': jnp.arange(3)}
  updates = {
    'kernel': jnp.ones((3, 3)),
    'bias': jnp.full(3, 0.25),
    'count': jnp.ones(3, jnp.int32),
  }
  tx = keep_orthogonal()
  got: Any = tx.update(updates, tx.init(params), params)[0]
  assert got['bias'] is updates['bias']
  assert got['count'] is updates['count']
  assert not np.array_equal(got['kernel'], updates['kernel'])


def test_absent_updates_stay_absent():
  params = {'kernel': jnp.eye(3), 'frozen': None, 'masked': optax.MaskedNode()}
  tx = keep_orthogonal()
  got: Any = tx.update(params, tx.init(params), params)[0]
  assert got['frozen'] is None
  assert got['masked'] == optax.MaskedNode()


def test_vmap_equals_a_loop():
  view = VIEWS['wide']
  w = jnp.stack([orthogonal(view, seed) for seed in range(3)])
  update = jnp.asarray(random_array(0, w.shape, np.float32))
  step = lambda w, update: one_step(w, update, ROWS)
  looped = jnp.stack([step(*pair) for pair in zip(w, update, strict=True)])
  np.testing.assert_allclose(jax.vmap(step)(w, update), looped, atol=1e-6)


def test_batch_axes_equal_vmap():
  view = VIEWS['wide']
  w = jnp.stack([orthogonal(view, seed) for seed in range(3)])
  update = jnp.asarray(random_array(0, w.shape, np.float32))
  mapped = jax.vmap(lambda w, update: one_step(w, update, ROWS))(w, update)
  stacked = one_step(w, update, MatrixAxes(2, 1))
  np.testing.assert_allclose(stacked, mapped, atol=1e-6)


@pytest.mark.parametrize('amplitude', [0, 0.0, -1.0, math.nan, math.inf])
def test_refuses_a_bad_amplitude(amplitude):
  with pytest.raises(ValueError, match='amplitude must be a finite number > 0'):
    keep_orthogonal(amplitude)


@pytest.mark.parametrize('steps', [0, -1])
def test_refuses_to_take_no_steps(steps):
  with pytest.raises(ValueError, match=f'at least 1, got {steps}'):
    keep_orthogonal(steps=steps)


def test_refuses_to_update_without_parameters():
  tx = keep_orthogonal(axes=ROWS)
  state = tx.init(jnp.eye(3))
  with pytest.raises(ValueError, match='params is None'):
    tx.update(jnp.eye(3), state)


def test_refuses_axes_that_do_not_fit_when_it_is_initialized():
  with pytest.raises(ValueError, match='names an axis that no parameter'):
    keep_orthogonal(axes=MatrixAxes(0, 2)).init(jnp.eye(3))
