"""The correction, BortS and BortA, against numpy with dense matrices."""

import math
from typing import Any, NamedTuple, get_args

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_array, trajectory
from hypothesis import assume, given, settings

import bort_jax
from bort_jax import MatrixAxes
from bort_jax.correction import Mode, bort_correction

MODES = get_args(Mode)
AMPLITUDES: tuple[Any, ...] = (1.0, 2.5, 'ada')
ROWS, COLUMNS = MatrixAxes(1, 0), MatrixAxes(0, 1)
LAYOUTS = {
  'wide': ((3, 5), ROWS),
  'tall': ((5, 3), ROWS),
  'square': ((4, 4), COLUMNS),
  'one row': ((1, 4), ROWS),
  'attention': ((4, 2, 3), MatrixAxes(0, (1, 2))),
  'attention out': ((2, 3, 4), MatrixAxes((0, 1), 2)),
  'scanned': ((2, 3, 5), MatrixAxes(1, 2)),
  'batch in the middle': ((3, 2, 5), MatrixAxes(-1, 0)),
  'HWIO': ((2, 3, 2, 5), MatrixAxes((0, 1, 2), 3)),
  'OIHW': ((5, 2, 3, 2), MatrixAxes((1, 2, 3), 0)),
  'grouped': ((2, 2, 2, 6), MatrixAxes((0, 1, 2), 3, groups=3)),
  'depthwise': ((2, 3, 1, 4), MatrixAxes((0, 1, 2), 3, groups=4)),
  'rank 5': ((2, 2, 1, 3, 4), MatrixAxes((1, 2, 3), 4)),
}
STEPS = 12

layouts = pytest.mark.parametrize(
  ('shape', 'axes'), LAYOUTS.values(), ids=LAYOUTS
)
modes = pytest.mark.parametrize('mode', MODES)


def positions(shape, axes):
  """For each matrix of a parameter, where its entries are, flat: (k, m, n)."""
  rank = len(shape)
  rows = [axis % rank for axis in axes.out_axes]
  columns = [axis % rank for axis in axes.in_axes]
  batch = [axis for axis in range(rank) if axis not in rows + columns]
  num_out = math.prod(shape[axis] for axis in rows) // axes.groups
  num_in = math.prod(shape[axis] for axis in columns)
  flat = np.arange(math.prod(shape)).reshape(shape)
  return flat.transpose(batch + rows + columns).reshape(-1, num_out, num_in)


def dense_correction(w, amplitude, mode):
  """C(W) of one matrix, with the whole Gram matrix and identity."""
  if amplitude == 'ada':
    amplitude = np.mean([np.linalg.norm(row) for row in w]) ** 2
  rows = w @ w.conj().T - amplitude * np.eye(len(w))
  columns = w.conj().T @ w - amplitude * np.eye(w.shape[1])
  diagonal = lambda matrix: np.diag(np.real(np.diag(matrix)))
  return {
    'l2-full': rows @ w,
    'l2-row': diagonal(rows) @ w,
    'l2-col': w @ diagonal(columns),
    'l1-fullrow': np.sign(rows) @ w,
    'l1-fullcol': w @ np.sign(columns),
    'l1-row': np.sign(diagonal(rows)) @ w,
    'l1-col': w @ np.sign(diagonal(columns)),
  }[mode]


def numpy_correction(w, axes, amplitude, mode):
  """C(W) of a parameter, matrix by matrix."""
  result = np.empty_like(w)
  for at in positions(w.shape, axes):
    result.flat[at] = dense_correction(w.flat[at], amplitude, mode)
  return result


def is_sign_of_noise(shape, axes, amplitude, mode):
  """The one row of a matrix has exactly the norm that 'ada' asks for."""
  one_row = positions(shape, axes).shape[1] == 1
  return one_row and amplitude == 'ada' and mode.startswith('l1')


@layouts
@pytest.mark.parametrize('dtype', [np.float64, np.complex128])
def test_correction(shape, axes, dtype, float64):
  cases = [
    (mode, a)
    for mode in MODES
    for a in AMPLITUDES
    if not is_sign_of_noise(shape, axes, a, mode)
  ]

  @jax.jit
  def all_corrections(w):
    return [
      bort_correction(w, axes, amplitude=a, mode=mode) for mode, a in cases
    ]

  w = random_array(0, shape, dtype)
  for got, (mode, a) in zip(
    all_corrections(jnp.asarray(w)), cases, strict=True
  ):
    np.testing.assert_allclose(
      got,
      numpy_correction(w, axes, a, mode),
      rtol=1e-12,
      atol=1e-12,
      err_msg=f'{mode}, amplitude {a}',
      strict=True,
    )


def half_soft_orthogonality(w, a):
  gram = w @ w.conj().T - a * jnp.eye(len(w))
  return jnp.sum(jnp.abs(gram) ** 2) / 4


@pytest.mark.parametrize('shape', [(3, 5), (5, 3), (4, 4)])
@pytest.mark.parametrize('dtype', [np.float64, np.complex128])
def test_l2_full_is_the_gradient_of_soft_orthogonality(shape, dtype, float64):
  w = jnp.asarray(random_array(0, shape, dtype))
  gradient = jax.grad(half_soft_orthogonality)(w, 2.5).conj()
  got = bort_correction(w, ROWS, amplitude=2.5)
  np.testing.assert_allclose(got, gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
  ('mode', 'of_the_transpose'),
  [
    ('l2-full', 'l2-full'),
    ('l2-row', 'l2-col'),
    ('l1-fullrow', 'l1-fullcol'),
    ('l1-row', 'l1-col'),
  ],
)
@pytest.mark.parametrize('shape', [(3, 5), (5, 3)])
def test_transpose_invariance(mode, of_the_transpose, shape, float64):
  w = jnp.asarray(random_array(0, shape))
  rows = bort_correction(w, ROWS, amplitude=1.5, mode=mode)
  columns = bort_correction(w, COLUMNS, amplitude=1.5, mode=of_the_transpose)
  transposed = bort_correction(w.T, ROWS, amplitude=1.5, mode=of_the_transpose)
  np.testing.assert_allclose(rows, columns, rtol=1e-12, atol=1e-12)
  np.testing.assert_allclose(rows, transposed.T, rtol=1e-12, atol=1e-12)


@modes
def test_vanishes_on_the_constraint(mode, float64):
  """Exact in binary: 2·I has squared norms of exactly a = 4."""
  w = 2.0 * jnp.eye(3)
  assert not bort_correction(w, ROWS, amplitude=4.0, mode=mode).any()


@modes
def test_vanishes_at_zero(mode):
  w = jnp.zeros((3, 5))
  for amplitude in AMPLITUDES:
    assert not bort_correction(w, ROWS, amplitude=amplitude, mode=mode).any()


def sub_jaxprs(equation):
  for value in equation.params.values():
    for part in value if isinstance(value, tuple | list) else [value]:
      if hasattr(part, 'eqns'):
        yield getattr(part, 'jaxpr', part)


def equations(jaxpr):
  """All equations of a jaxpr, those of the functions it calls included."""
  for equation in jaxpr.eqns:
    yield equation
    for below in sub_jaxprs(equation):
      yield from equations(below)


def work_of(mode, shape, axes, amplitude=1.0):
  """Largest intermediate size, and multiplications of all matrix products."""
  jaxpr = jax.make_jaxpr(
    lambda w: bort_correction(w, axes, amplitude=amplitude, mode=mode)
  )(jnp.ones(shape))
  largest = products = 0
  for equation in equations(jaxpr.jaxpr):
    sizes = [math.prod(x.aval.shape) for x in equation.outvars]
    largest = max(largest, *sizes)
    if equation.primitive.name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      shape_of_first = equation.invars[0].aval.shape
      summed = math.prod(shape_of_first[axis] for axis in contracted)
      products += sizes[0] * summed
  return largest, products


@pytest.mark.parametrize(
  ('shape', 'axes'),
  [
    ((3, 50), ROWS),
    ((50, 3), ROWS),
    ((3, 50), COLUMNS),
    ((5, 5, 2, 3), MatrixAxes((0, 1, 2), 3)),
    ((1, 1, 3, 50), MatrixAxes((0, 1, 2), 3)),
  ],
)
def test_l2_full_works_on_the_smaller_side(shape, axes):
  largest, products = work_of('l2-full', shape, axes)
  size = math.prod(shape)
  assert largest == size
  assert products == 2 * 3 * size


def test_l2_full_keeps_groups_apart():
  shape, axes = (1, 1, 2, 20), MatrixAxes((0, 1, 2), 3, groups=5)
  largest, products = work_of('l2-full', shape, axes)
  assert (largest, products) == (40, 2 * 2 * 40)


@pytest.mark.parametrize('mode', ['l2-row', 'l2-col', 'l1-row', 'l1-col'])
@pytest.mark.parametrize('amplitude', [1.0, 'ada'])
@pytest.mark.parametrize('shape', [(3, 50), (50, 3)])
def test_norm_modes_build_no_gram(mode, amplitude, shape):
  assert work_of(mode, shape, ROWS, amplitude) == (150, 0)


def test_full_l1_modes_build_the_gram_they_are_named_after():
  assert work_of('l1-fullrow', (3, 50), ROWS) == (150, 2 * 3 * 150)
  assert work_of('l1-fullcol', (50, 3), ROWS) == (150, 2 * 3 * 150)


@modes
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_16_bits_are_worked_on_in_float32(mode, dtype):
  w = random_array(0, (3, 5)).astype(dtype)
  got = bort_correction(jnp.asarray(w), ROWS, amplitude=2.5, mode=mode)
  exact = dense_correction(w.astype(np.float64), 2.5, mode)
  assert got.dtype == dtype
  half_a_unit = float(jnp.finfo(dtype).eps) / 2
  np.testing.assert_allclose(
    np.asarray(got, np.float64), exact, rtol=1.01 * half_a_unit, atol=1e-5
  )


def test_amplitude_may_be_traced(float64):
  w = random_array(0, (3, 5))
  correct = jax.jit(lambda w, a: bort_correction(w, ROWS, amplitude=a))
  np.testing.assert_allclose(
    correct(w, 2.5), dense_correction(w, 2.5, 'l2-full'), rtol=1e-12
  )


@pytest.mark.parametrize('mode', ['l1-full', 'row', 'default', '', None])
def test_refuses_an_unknown_mode(mode):
  with pytest.raises(ValueError, match='Unknown mode') as error:
    bort_correction(jnp.ones((2, 3)), ROWS, mode=mode)
  assert repr(mode) in str(error.value)
  assert ', '.join(MODES) in str(error.value)


@pytest.mark.parametrize('amplitude', [0.0, -1, math.nan, math.inf, 'adaptive'])
def test_refuses_a_bad_amplitude(amplitude):
  with pytest.raises(ValueError, match='amplitude must be') as error:
    bort_correction(jnp.ones((2, 3)), ROWS, amplitude=amplitude)
  assert repr(amplitude) in str(error.value)


def test_refuses_axes_that_do_not_fit():
  with pytest.raises(ValueError, match='names an axis'):
    bort_correction(jnp.ones((2, 3)), MatrixAxes(0, 2))


# BortS and BortA, step by step, from their published order of operations.


class Settings(NamedTuple):
  learning_rate: float
  gamma: float
  weight_decay: float
  amplitude: Any
  mode: Mode
  momentum: float | None = None
  nesterov: bool = False


def numpy_bort_sgd(w, grads, axes, settings):
  buffer, trajectory = None, []
  for grad, s in zip(grads, settings, strict=True):
    grad = grad + s.gamma * numpy_correction(w, axes, s.amplitude, s.mode)
    grad = grad + s.weight_decay * w
    if s.momentum:
      buffer = grad if buffer is None else s.momentum * buffer + grad
      grad = grad + s.momentum * buffer if s.nesterov else buffer
    w = w - s.learning_rate * grad
    trajectory.append(w)
  return np.stack(trajectory)


def numpy_bort_adamw(w, grads, axes, settings, b1=0.9, b2=0.999, eps=1e-8):
  first, second, trajectory = np.zeros_like(w), np.zeros_like(w), []
  for step, (grad, s) in enumerate(zip(grads, settings, strict=True), start=1):
    w = w * (1 - s.learning_rate * s.weight_decay)
    correction = numpy_correction(w, axes, s.amplitude, s.mode)
    w = w - s.learning_rate * s.gamma * correction
    first = b1 * first + (1 - b1) * grad
    second = b2 * second + (1 - b2) * grad**2
    denominator = np.sqrt(second) / np.sqrt(1 - b2**step) + eps
    w = w - s.learning_rate / (1 - b1**step) * first / denominator
    trajectory.append(w)
  return np.stack(trajectory)


@st.composite
def shapes(draw):
  """A parameter of rank 2 to 4 with random axes, one a batch axis at most."""
  shape = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
  order = draw(st.permutations(range(len(shape))))
  rows = draw(st.integers(1, len(shape) - 1))
  batch = draw(st.integers(0, int(len(shape) - rows > 1)))
  axes = MatrixAxes(order[rows : len(shape) - batch], order[:rows])
  return tuple(shape), axes


@st.composite
def settings_of_optimizers(draw):
  """Steps small enough that no weight leaves the basin."""
  return Settings(
    learning_rate=draw(st.floats(1e-3, 0.05)),
    gamma=draw(st.floats(0.05, 0.5)),
    weight_decay=draw(st.sampled_from([0.0, 0.01, 0.02])),
    amplitude=draw(st.sampled_from([0.5, 1.0, 2.0, 'ada'])),
    mode=draw(st.sampled_from(MODES)),
    momentum=draw(st.sampled_from([None, 0.0, 0.5, 0.9])),
    nesterov=draw(st.booleans()),
  )


examples = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**32 - 1)


@examples
@given(shapes(), settings_of_optimizers(), seeds)
def test_bort_sgd_step_by_step(layout, s, seed):
  shape, axes = layout
  assume(not is_sign_of_noise(shape, axes, s.amplitude, s.mode))
  w, grads = random_array(seed, shape), random_array([seed], (STEPS, *shape))
  with jax.enable_x64(True):
    tx = bort_jax.bort_sgd(**s._asdict(), axes=axes)
    got = trajectory(tx, w, grads)
  expected = numpy_bort_sgd(w, grads, axes, [s] * STEPS)
  np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@examples
@given(shapes(), settings_of_optimizers(), seeds)
def test_bort_adamw_step_by_step(layout, s, seed):
  shape, axes = layout
  assume(not is_sign_of_noise(shape, axes, s.amplitude, s.mode))
  w, grads = random_array(seed, shape), random_array([seed], (STEPS, *shape))
  arguments = s._asdict()
  del arguments['momentum'], arguments['nesterov']
  with jax.enable_x64(True):
    tx = bort_jax.bort_adamw(**arguments, axes=axes)
    got = trajectory(tx, w, grads)
  expected = numpy_bort_adamw(w, grads, axes, [s] * STEPS)
  np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('mode', ['l2-full', 'l1-fullrow'])
def test_adams_own_numbers_reach_adam(mode, float64):
  w, grads = random_array(0, (3, 5)), random_array(1, (STEPS, 3, 5))
  s = Settings(0.05, 0.5, 0.02, 2.0, mode)
  tx = bort_jax.bort_adamw(
    0.05,
    0.5,
    b1=0.5,
    b2=0.9,
    eps=0.1,
    weight_decay=0.02,
    amplitude=2.0,
    mode=mode,
    axes=ROWS,
  )
  expected = numpy_bort_adamw(w, grads, ROWS, [s] * STEPS, 0.5, 0.9, 0.1)
  np.testing.assert_allclose(
    trajectory(tx, w, grads), expected, rtol=1e-12, atol=1e-12
  )


@pytest.mark.parametrize(
  ('make', 'reference'),
  [
    (bort_jax.bort_sgd, numpy_bort_sgd),
    (bort_jax.bort_adamw, numpy_bort_adamw),
  ],
)
def test_schedules_are_read_at_every_step(make, reference, float64):
  w, grads = random_array(0, (3, 5)), random_array(1, (STEPS, 3, 5))
  rate = lambda step: 0.05 / (1 + step)
  gamma = lambda step: 0.1 + 0.05 * step
  settings = [
    Settings(rate(step), gamma(step), 0.02, 1.0, 'l2-full')
    for step in range(STEPS)
  ]
  tx = make(rate, gamma, weight_decay=0.02, axes=ROWS)
  np.testing.assert_allclose(
    trajectory(tx, w, grads),
    reference(w, grads, ROWS, settings),
    rtol=1e-12,
    atol=1e-12,
  )
