"""Singular values, polish, and the laws of stability: predicted, simulated."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import hermitian, polar_factor, random_array

from bort_jax import MatrixAxes, bort_adamw, bort_sgd, spectrum
from bort_jax.matrices import MatrixView
from bort_jax.train.kernels import measure_kernels

ROWS = MatrixAxes(1, 0)
STACK = MatrixAxes(2, 1)  # of matrices (k, m, n)
LAYOUTS = {
  'wide': ((4, 7), ROWS),
  'tall': ((7, 4), ROWS),
  'square': ((5, 5), ROWS),
  'one row': ((1, 6), ROWS),
  'scanned': ((3, 4, 6), STACK),
  'HWIO': ((2, 3, 2, 5), MatrixAxes((0, 1, 2), 3)),
  'grouped': ((2, 2, 2, 9), MatrixAxes((0, 1, 2), 3, groups=3)),
  'depthwise': ((2, 3, 1, 4), MatrixAxes((0, 1, 2), 3, groups=4)),
}

layouts = pytest.mark.parametrize(
  ('shape', 'axes'), LAYOUTS.values(), ids=LAYOUTS
)
optimizers = pytest.mark.parametrize('make', [bort_sgd, bort_adamw])


def matrices_of(w, axes):
  """The stack of matrices, in float64; test_matrices checks the layout."""
  matrices = np.asarray(MatrixView(w.shape, axes).to_matrices(jnp.asarray(w)))
  return matrices.astype(np.result_type(matrices, np.float64))


def smaller_gram(matrices):
  if matrices.shape[-2] > matrices.shape[-1]:
    matrices = hermitian(matrices)
  return matrices @ hermitian(matrices)


def with_singular_values(values, shape=(3, 4), seed=0):
  """A stack of one matrix U diag(values) Vᵀ, and its U and Vᵀ."""
  u, _, vh = np.linalg.svd(random_array(seed, shape), full_matrices=False)
  return (u * values @ vh)[None], u, vh


# Measures.


@pytest.mark.parametrize(
  'measure',
  [spectrum.singular_values, spectrum.orthogonality_error, spectrum.polish],
)
def test_eager_equals_jit(measure, float64):
  shape, axes = LAYOUTS['grouped']
  w = jnp.asarray(random_array(0, shape, np.complex128))
  measure = functools.partial(measure, axes=axes)
  np.testing.assert_allclose(
    measure(w), jax.jit(measure)(w), rtol=1e-12, atol=1e-14, strict=True
  )


@layouts
@pytest.mark.parametrize('dtype', [np.float64, np.complex128])
def test_singular_values(shape, axes, dtype, float64):
  w = random_array(0, shape, dtype)
  measure = jax.jit(functools.partial(spectrum.singular_values, axes=axes))
  expected = np.linalg.svd(matrices_of(w, axes), compute_uv=False)
  np.testing.assert_allclose(
    measure(jnp.asarray(w)), expected, rtol=1e-12, strict=True
  )


@layouts
@pytest.mark.parametrize('dtype', [np.float64, np.complex128])
@pytest.mark.parametrize('amplitude', [2.5, 'ada'])
def test_orthogonality_error(shape, axes, dtype, amplitude, float64):
  w = random_array(0, shape, dtype)
  measure = functools.partial(
    spectrum.orthogonality_error, amplitude=amplitude, axes=axes
  )
  matrices = matrices_of(w, axes)
  a = np.full(matrices.shape[:-2], amplitude if amplitude != 'ada' else 0.0)
  if amplitude == 'ada':
    a = np.linalg.norm(matrices, axis=-1).mean(-1) ** 2
  gram = smaller_gram(matrices) / a[..., None, None]
  expected = np.max(np.abs(gram - np.eye(gram.shape[-1])))
  np.testing.assert_allclose(
    jax.jit(measure)(jnp.asarray(w)),
    expected,
    rtol=1e-12,
    atol=1e-14,
    strict=True,
  )


@pytest.mark.parametrize('size', [3, 100])  # XLA takes maxima in two ways
def test_weights_that_are_not_finite_are_not_orthogonal(size):
  params = {'kernel': jnp.eye(size).at[1, 0].set(jnp.nan)}
  assert math.isnan(spectrum.orthogonality_error(params)['kernel'])
  (spread,) = measure_kernels(params, 1.0).values()
  assert math.isnan(spread.largest)
  assert math.isnan(spread.orthogonality_error)
  for mode in ('l2-full', 'l1-row'):
    (finding,) = spectrum.check(params, 0.1, gamma=1.0, mode=mode)
    assert finding.kind == 'not_finite'


@pytest.mark.parametrize(
  'measure', [spectrum.singular_values, spectrum.orthogonality_error]
)
def test_measures_are_float32_of_16_bits_and_none_elsewhere(measure):
  params = {'kernel': jnp.eye(2, dtype='bfloat16'), 'bias': jnp.ones(3)}
  measured = measure(params)
  assert measured['kernel'].dtype == jnp.float32
  assert measured['bias'] is None


# Polish.


@layouts
@pytest.mark.parametrize('dtype', [np.float64, np.complex128])
@pytest.mark.parametrize('amplitude', [1.0, 4.0])
def test_polish_is_the_polar_factor(shape, axes, dtype, amplitude, float64):
  w = random_array(0, shape, dtype)
  polish = functools.partial(spectrum.polish, amplitude=amplitude, axes=axes)
  got = matrices_of(jax.jit(polish)(jnp.asarray(w)), axes)
  expected = np.sqrt(amplitude) * polar_factor(matrices_of(w, axes))
  np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)


def test_polish_of_a_badly_conditioned_matrix(float64):
  w, u, vh = with_singular_values(np.geomspace(1, 1e-4, 6), (6, 9))
  got = spectrum.polish(jnp.asarray(w), axes=STACK)
  np.testing.assert_allclose(got[0], u @ vh, atol=1e-10)


@pytest.mark.parametrize('scale', [1e-30, 1e-15, 1e15, 1e30])
def test_polish_of_any_scale(scale):
  w = random_array(0, (4, 7), np.float32)
  got = spectrum.polish(jnp.asarray(w * np.float32(scale)), axes=ROWS)
  np.testing.assert_allclose(got, polar_factor(w), atol=1e-5)


def test_polish_keeps_zero_beside_others():
  w = np.stack([np.zeros((3, 5)), random_array(0, (3, 5))]).astype(np.float32)
  got = spectrum.polish(jnp.asarray(w), axes=STACK)
  assert not got[0].any()
  np.testing.assert_allclose(got[1], polar_factor(w[1]), atol=1e-5)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16', 'float32'])
def test_polish_keeps_dtypes_and_other_parameters(dtype):
  w = jnp.asarray(random_array(0, (4, 7)), dtype)
  params = {'kernel': w, 'bias': jnp.ones(7), 'count': jnp.arange(3)}
  got: Any = spectrum.polish(params)
  assert got['kernel'].dtype == dtype
  assert got['bias'] is params['bias']
  assert got['count'] is params['count']
  eps = float(jnp.finfo(dtype).eps)
  expected = polar_factor(np.asarray(w, float))
  np.testing.assert_allclose(
    np.asarray(got['kernel'], float), expected, atol=3 * eps
  )


def test_few_steps_of_polish_are_newton_schulz(float64):
  w = random_array(0, (3, 5))
  bound = np.sqrt(np.abs(w @ w.T).sum(1).max())
  expected = w / bound
  for _ in range(2):
    expected = 1.5 * expected - 0.5 * expected @ expected.T @ expected
  got = spectrum.polish(jnp.asarray(w), steps=2, axes=ROWS)
  np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize('steps', [0, -3])
def test_polish_refuses_to_take_no_steps(steps):
  with pytest.raises(ValueError, match=f'at least 1, got {steps}'):
    spectrum.polish(jnp.eye(2), steps=steps, axes=ROWS)


# The laws of stability, against the optimizers under zero gradients.


@functools.partial(jax.jit, static_argnames=('make', 'steps'))
def simulate(make, w, steps, **numbers):
  """The stack ``w`` after some steps; every number is traced."""
  tx = make(**numbers, axes=STACK)

  def step(_, carry):
    w, state = carry
    updates, state = tx.update(jnp.zeros_like(w), state, w)
    return optax.apply_updates(w, updates), state

  return jax.lax.fori_loop(0, steps, step, (w, tx.init(w)))[0]


def end_of(make, w, steps, h=0.1, gamma=2.0, **numbers):
  """The matrices after some steps of size h = learning_rate·gamma."""
  return np.asarray(
    simulate(
      make,
      jnp.asarray(w),
      steps,
      learning_rate=h / gamma,
      gamma=gamma,
      **numbers,
    )
  )


def error_of(matrices, a=1.0):
  gram = smaller_gram(matrices) / a
  return np.max(np.abs(gram - np.eye(gram.shape[-1])))


def diverged(matrices):
  return not np.all(np.abs(matrices) < 1e6)


STABLE_STEPS = [
  (a, h) for a in (0.25, 1.0, 4.0) for h in (0.05, 0.1, 0.4) if a * h < 1
]


@optimizers
@pytest.mark.parametrize('shape', [(3, 4), (4, 3)])
def test_singular_values_obey_the_cubic_and_vectors_stay(make, shape, float64):
  a, h, values = 1.5, 0.3, np.array([2.0, 1.1, 0.2])
  w, u, vh = with_singular_values(values, shape)
  for steps in range(1, 4):
    values = values - h * values * (values**2 - a)
    got = end_of(make, w, steps, h, amplitude=a)
    np.testing.assert_allclose(got[0], u * values @ vh, atol=1e-12)


@optimizers
@pytest.mark.parametrize(('a', 'h'), STABLE_STEPS)
def test_the_edge_of_the_basin(make, a, h, float64):
  edge = math.sqrt(a + 2 / h)
  start = lambda share: with_singular_values(
    [share * edge, 0.5 * math.sqrt(a), 0.1 * math.sqrt(a)]
  )[0]
  assert error_of(end_of(make, start(0.999), 2000, h, amplitude=a), a) < 1e-9
  assert diverged(end_of(make, start(1.001), 2000, h, amplitude=a))


@optimizers
@pytest.mark.parametrize('a', [0.25, 1.0, 4.0])
def test_the_fixed_point_is_stable_below_kappa_one(make, a, float64):
  w, _, _ = with_singular_values(np.sqrt(a) * np.array([1.1, 1.0, 0.8]))
  assert error_of(end_of(make, w, 2000, 0.95 / a, amplitude=a), a) < 1e-9
  cycling = end_of(make, w, 2000, 1.05 / a, amplitude=a)
  assert error_of(cycling, a) > 0.1
  assert not diverged(cycling)


@optimizers
@pytest.mark.parametrize(('a', 'h'), STABLE_STEPS)
def test_the_sign_flips_beyond_its_limit(make, a, h, float64):
  limit = math.sqrt(a + 1 / h)
  for share, sign in ((0.99, 1), (1.01, -1)):
    w, u, vh = with_singular_values([share * limit, 0.2, 0.1])
    end = end_of(make, w, 1, h, amplitude=a)
    assert np.sign(u[:, 0] @ end[0] @ vh[0]) == sign


@optimizers
def test_weight_decay_shifts_the_target(make, float64):
  """Exactly in SGD; in AdamW, whose decay comes first, up to O(lr·decay)."""
  a, gamma, decay, rate = 1.0, 0.5, 0.1, 0.05
  w, _, _ = with_singular_values([1.2, 1.0, 0.7])
  got = end_of(make, w, 3000, rate * gamma, gamma, weight_decay=decay)
  squares = np.linalg.svd(got[0], compute_uv=False) ** 2
  kept, h = 1 - rate * decay, rate * gamma
  exact = {
    bort_sgd: a - decay / gamma,
    bort_adamw: (1 + h * a - 1 / kept) / (h * kept**2),
  }[make]
  np.testing.assert_allclose(squares, exact, rtol=1e-9)
  assert abs(exact - (a - decay / gamma)) <= 2 * a * rate * decay


@optimizers
def test_weight_decay_collapses_from_gamma_a_on(make, float64):
  w, _, _ = with_singular_values([1.2, 1.0, 0.7])
  run = lambda decay: end_of(
    make, w, 20_000, 0.005, 0.5, amplitude=2.0, weight_decay=decay
  )
  assert np.max(np.abs(run(1.1))) < 1e-3
  smallest = np.linalg.norm(run(0.9)[0], -2)
  assert smallest**2 == pytest.approx(2.0 - 0.9 / 0.5, rel=0.1)


# Momentum. Matrices of one entry are as many singular values at once.


def scalars(values):
  return np.asarray(values)[:, None, None]


def safe_step(largest, gamma, **setting):
  """Of a matrix whose singular values go from near zero to the largest."""
  params = {'kernel': jnp.diag(jnp.array([largest / 64, largest]))}
  return float(spectrum.largest_safe_step(params, gamma, **setting)['kernel'])


def settled(w, a):
  return bool(np.all(np.abs(w**2 / a - 1) < 1e-3))


MOMENTA = pytest.mark.parametrize(
  ('momentum', 'nesterov'),
  [(0.5, False), (0.9, False), (0.5, True), (0.9, True)],
)
LARGEST = pytest.mark.parametrize(
  ('a', 'largest'), [(1.0, 1.2), (1.0, 2.0), (4.0, 10.0), (1.0, 20.0)]
)


@functools.cache
def sgd_with_momentum(nesterov):
  return functools.partial(bort_sgd, nesterov=nesterov)


@MOMENTA
@LARGEST
def test_every_start_converges_below_the_safe_step(
  momentum, nesterov, a, largest, float64
):
  gamma = 0.7
  setting = {'amplitude': a, 'momentum': momentum}
  rate = safe_step(largest, gamma, nesterov=nesterov, **setting)
  starts = scalars(largest * np.arange(1, 65) / 64)
  make = sgd_with_momentum(nesterov)
  end = end_of(make, starts, 5000, 0.99 * rate * gamma, gamma, **setting)
  failing = starts[np.abs(end**2 / a - 1) >= 1e-3]
  assert settled(end, a), f'from {failing}'


@MOMENTA
@LARGEST
def test_some_start_does_not_converge_above_the_safe_step(
  momentum, nesterov, a, largest, float64
):
  gamma = 0.7
  setting = {'amplitude': a, 'momentum': momentum}
  rate = safe_step(largest, gamma, nesterov=nesterov, **setting)
  starts = scalars(largest * np.arange(1, 257) / 256)
  make = sgd_with_momentum(nesterov)
  edge = rate / 0.95  # the rate returned has a margin
  ends = [
    end_of(make, starts, 5000, share * edge * gamma, gamma, **setting)
    for share in np.linspace(1.002, 1.02, 10)
  ]
  assert not all(settled(end, a) for end in ends)


@functools.partial(jax.jit, static_argnames='nesterov')
def end_of_scalars(s, kappa, momentum, nesterov, steps):
  """What the singular values are after some steps, by the law at a = 1."""

  def step(_, carry):
    s, buffer = carry
    pull = kappa * (s**3 - s)
    buffer = momentum * buffer + pull
    s = s - (pull + momentum * buffer if nesterov else buffer)
    return jnp.clip(s, -1e9, 1e9), buffer

  return jax.lax.fori_loop(0, steps, step, (s, jnp.zeros_like(s)))[0]


@MOMENTA
@pytest.mark.parametrize('low', [0.01, 0.9])
@pytest.mark.parametrize('high', [1.05, 1.5, 3.0, 10.0])
def test_thousands_of_random_starts_converge_at_the_safe_step(
  momentum, nesterov, low, high, float64
):
  """Between the values of one matrix, at and below the rate returned."""
  params = jnp.asarray(scalars([low, high]))
  setting = {'momentum': momentum, 'nesterov': nesterov}
  rate = spectrum.largest_safe_step(params, 1.0, axes=STACK, **setting)
  rng = np.random.default_rng(0)
  starts = jnp.asarray(rng.uniform(low, high, (8000, 1)))
  kappa = jnp.asarray(float(rate) * np.array([[1.0, 0.98, 0.9, 0.8, 0.5]]))
  starts, kappa = jnp.broadcast_arrays(starts, kappa)
  ends = end_of_scalars(starts, kappa, momentum, nesterov, 4000)
  assert np.max(np.abs(np.asarray(ends) ** 2 - 1)) < 1e-3


@pytest.mark.parametrize('momentum', [0.99, 0.999])
def test_a_safe_step_is_found_for_slow_momentum(momentum, float64):
  """Where one decay time is a thousand steps, and still in about a second."""
  values = jnp.linspace(0.98, 1.02, 64)[:, None, None]
  rate = spectrum.largest_safe_step(values, 1.0, momentum=momentum, axes=STACK)
  assert 1.0 < float(rate) < 1 + momentum
  end = end_of_scalars(values, float(rate), momentum, False, 40_000)
  assert np.max(np.abs(np.asarray(end) ** 2 - 1)) < 1e-3


def test_a_matrix_on_the_constraint_takes_any_step_its_fixed_point_takes():
  for momentum, nesterov in ((0.5, False), (0.9, False), (0.9, True)):
    limit = (1 + momentum) / (1 + 2 * momentum if nesterov else 1)
    got = spectrum.largest_safe_step(
      jnp.eye(3), 1.0, momentum=momentum, nesterov=nesterov, axes=ROWS
    )
    assert float(got) == pytest.approx(0.95 * limit, rel=1e-5)


@pytest.mark.parametrize(
  ('largest', 'a', 'gamma', 'expected'),
  [
    (3.0, 1.0, 0.5, 2 / (9 - 1) / 0.5),
    (1.0, 1.0, 0.5, 1 / 0.5),
    (0.1, 1.0, 1.0, 1.0),
    (0.0, 4.0, 1.0, 0.25),
    (5.0, 4.0, 2.0, 2 / (25 - 4) / 2),
    (2.5, 4.0, 2.0, 1 / 4 / 2),
  ],
)
def test_safe_step_without_momentum(largest, a, gamma, expected):
  got = safe_step(largest, gamma, amplitude=a)
  assert got == pytest.approx(expected, rel=1e-6)


def test_safe_step_takes_the_largest_value_of_the_stack():
  w = jnp.stack([jnp.eye(2), 3.0 * jnp.eye(2)])
  step = spectrum.largest_safe_step({'w': w}, 1.0, axes=STACK)
  assert float(step['w']) == pytest.approx(0.25)


@pytest.mark.parametrize('momentum', [0.0, 0.9])
def test_safe_step_under_jit_and_of_other_parameters(momentum):
  params = {'kernel': 3.0 * jnp.eye(2), 'bias': jnp.ones(2)}
  measure = functools.partial(
    spectrum.largest_safe_step, gamma=1.0, momentum=momentum
  )
  eager, jitted = measure(params), jax.jit(measure)(params)
  assert eager['bias'] is None
  assert jitted['bias'] is None
  np.testing.assert_allclose(eager['kernel'], jitted['kernel'], rtol=1e-6)


def test_a_gamma_of_zero_has_no_limit():
  assert safe_step(3.0, 0.0) == math.inf


def test_no_momentum_and_a_little_agree():
  """Two ways of computing what should hardly differ."""
  for largest in (0.5, 2.0, 8.0):
    assert safe_step(largest, 1.0, momentum=1e-6) == pytest.approx(
      0.95 * safe_step(largest, 1.0), rel=0.01
    )


# Findings.


def check(params, learning_rate=0.01, gamma=1.0, **setting):
  """The findings by kind; there must be at most one of each."""
  setting = {'axes': STACK if params.ndim == 3 else ROWS, **setting}
  findings = spectrum.check(params, learning_rate, gamma, **setting)
  by_kind = {finding.kind: finding for finding in findings}
  assert len(by_kind) == len(findings)
  return by_kind


def assert_says(finding, *parts):
  for part in parts:
    assert part in str(finding), str(finding)


@pytest.mark.parametrize('a', [1.0, 4.0])
@pytest.mark.parametrize('mode', ['l2-full', 'l2-row', 'l2-col'])
def test_finds_nothing_on_an_orthogonal_matrix(a, mode):
  assert check(math.sqrt(a) * jnp.eye(3), amplitude=a, mode=mode) == {}


def test_finds_nothing_if_gamma_is_zero():
  params = 100.0 * jnp.eye(3)
  assert check(params, 10.0, 0.0, weight_decay=1.0) == {}


@pytest.mark.parametrize(('a', 'h'), STABLE_STEPS)
def test_finds_divergence_beyond_the_basin(a, h):
  edge, gamma = math.sqrt(a + 2 / h), 2.0
  start = lambda share: jnp.asarray(
    with_singular_values([share * edge, 0.5, 0.1])[0], jnp.float32
  )
  run = lambda w: check(w, h / gamma, gamma, amplitude=a)
  assert 'diverges' not in run(start(0.999))
  finding = run(start(1.001))['diverges']
  assert finding.value == h / gamma
  assert finding.limit == pytest.approx(h / gamma, rel=0.01)
  assert finding.limit < finding.value
  assert_says(finding, f'learning_rate {h / gamma:g} diverges', 'basin')
  assert_says(finding, f'{1.001 * edge:.3g}', f'{finding.limit:.3g}', 'polish')


@pytest.mark.parametrize('a', [0.25, 1.0, 4.0])
def test_finds_an_unstable_fixed_point(a):
  w = math.sqrt(a) * jnp.eye(3)
  assert 'diverges' not in check(w, 0.95 / a, amplitude=a)
  finding = check(w, 1.05 / a, amplitude=a)['diverges']
  assert finding.limit == pytest.approx(1 / a)
  assert_says(finding, 'does not converge: the fixed point itself is unstable')
  assert_says(finding, f'Stay below {1 / a:.3g}')
  assert 'polish' not in str(finding)


@pytest.mark.parametrize('momentum', [0.5, 0.9])
@pytest.mark.parametrize('nesterov', [False, True])
def test_finds_divergence_with_momentum(momentum, nesterov):
  setting = {'momentum': momentum, 'nesterov': nesterov}
  params = jnp.diag(jnp.array([5.0, 1.0]))
  limit = float(spectrum.largest_safe_step(params, 1.0, axes=ROWS, **setting))
  assert 'diverges' not in check(params, 0.999 * limit, **setting)
  finding = check(params, 1.001 * limit, **setting)['diverges']
  assert_says(finding, f'with momentum {momentum}', 'need not converge')
  assert_says(finding, 'between 1 and 5', f'below {limit:.3g}', 'polish')


@pytest.mark.parametrize('kappa', [0.8, 1.2, 1.6])
def test_finds_nothing_where_momentum_converges(kappa, float64):
  """From weights near the constraint, up to almost 1 + momentum."""
  noise = 0.01 * random_array(0, (8, 8)) / math.sqrt(8)
  w = np.eye(8) + noise
  assert check(jnp.asarray(w), kappa, momentum=0.9) == {}
  end = end_of(bort_sgd, w[None], 2000, kappa, momentum=0.9)
  assert error_of(end) < 1e-9


@pytest.mark.parametrize('nesterov', [False, True])
def test_finds_an_unstable_fixed_point_with_momentum(nesterov):
  limit = 1.9 / 2.8 if nesterov else 1.9
  run = lambda share: check(
    jnp.eye(3), share * limit, momentum=0.9, nesterov=nesterov
  )
  assert run(0.94) == {}
  assert_says(run(0.97)['diverges'], 'need not converge')
  finding = run(1.01)['diverges']
  assert_says(finding, 'does not converge: the fixed point itself is unstable')
  assert 'polish' not in str(finding)


@pytest.mark.parametrize(
  ('mode', 'shape'), [('l2-row', (1, 4)), ('l2-col', (4, 1))]
)
def test_norm_modes_have_the_same_edge_in_the_norm(mode, shape):
  edge = math.sqrt(1 + 2 / 0.1)
  direction = np.full(shape, 0.5)
  run = lambda norm: check(jnp.asarray(norm * direction), 0.1, mode=mode)
  assert 'diverges' not in run(0.999 * edge)
  assert 'diverges' in run(1.001 * edge)


def test_finds_a_sign_flip():
  a, h = 2.0, 0.1
  limit = math.sqrt(a + 1 / h)
  run = lambda share: check(share * limit * jnp.eye(2), h, amplitude=a)
  assert run(0.99) == {}
  assert set(run(1.01)) == {'sign_flip'}
  finding = run(1.01)['sign_flip']
  assert finding.value == pytest.approx(1.01 * limit)
  assert finding.limit == pytest.approx(limit)
  assert_says(finding, f'{1.01 * limit:.3g}', f'{limit:.3g}', 'polish')


def test_finds_a_decay_shift_above_one_percent():
  run = lambda decay: check(
    2.0 * jnp.eye(2), gamma=0.5, amplitude=4.0, weight_decay=decay
  )
  assert run(0.0) == {}
  assert run(0.019) == {}
  assert set(run(0.5)) == {'decay_shift'}
  finding = run(0.5)['decay_shift']
  assert (finding.value, finding.limit) == (3.0, 4.0)
  assert_says(finding, 'weight_decay 0.5', 'from 4 to', '= 3', 'raise gamma')
  assert_says(finding, 'the squared values')


@pytest.mark.parametrize('mode', ['l2-full', 'l2-row', 'l2-col'])
def test_finds_a_decay_collapse(mode):
  run = lambda decay: check(
    2.0 * jnp.eye(2), gamma=0.5, amplitude=4.0, weight_decay=decay, mode=mode
  )
  assert set(run(1.99)) == {'decay_shift'}
  assert set(run(2.0)) == {'decay_collapse'}
  finding = run(2.5)['decay_collapse']
  assert (finding.value, finding.limit) == (2.5, 2.0)
  assert_says(finding, 'weight_decay 2.5', 'decay to zero')


def test_decay_collapse_of_an_l1_mode(float64):
  """The pull on a row is gamma whatever its norm."""
  w, gamma, rate = jnp.ones((1, 2, 2)), 0.5, 0.01
  l1_row = functools.partial(bort_sgd, mode='l1-row')
  for decay, collapses in ((0.45, False), (0.55, True)):
    setting = {'amplitude': 4.0, 'weight_decay': decay}
    found = check(w, rate, gamma, mode='l1-row', **setting)
    assert ('decay_collapse' in found) == collapses
    end = end_of(l1_row, w, 20_000, rate * gamma, gamma, **setting)
    assert (np.max(np.abs(end)) < 1e-3) == collapses


def test_finds_matrices_that_are_zero():
  w = jnp.stack([jnp.zeros((2, 3)), jnp.eye(2, 3), jnp.zeros((2, 3))])
  finding = check(w)['zero']
  assert (finding.value, finding.limit) == (2, 0)
  assert_says(finding, '2 of 3 matrices are exactly zero', 'axes')
  assert 'zero' not in check(jnp.eye(2, 3)[None])


def moved_share(w, learning_rate, gamma):
  """The share of entries that a real step changes."""
  tx = bort_sgd(learning_rate, gamma, axes=ROWS)
  updates, _ = tx.update(jnp.zeros_like(w), tx.init(w), w)
  return float(jnp.mean(optax.apply_updates(w, updates) != w))


def test_finds_weights_frozen_in_bfloat16():
  w = jnp.asarray(random_array(0, (16, 32)) / 8, jnp.bfloat16)
  finding = check(w, 1e-5)['frozen']
  assert finding.value == pytest.approx(moved_share(w, 1e-5, 1.0), abs=0.02)
  assert finding.value < finding.limit == 0.05
  assert_says(finding, f'only {finding.value:.1%} of the entries', 'float32')


def test_one_frozen_matrix_of_a_stack_is_found():
  w = jnp.asarray(random_array(0, (2, 16, 32)) / 8, jnp.bfloat16)
  w = w.at[0].multiply(64)  # its correction is large enough
  assert moved_share(w[0], 1e-5, 1.0) > 0.5
  finding = check(w, 1e-5)['frozen']
  assert finding.value == pytest.approx(moved_share(w[1], 1e-5, 1.0), abs=0.02)
  assert 'frozen' not in check(w[:1], 1e-5)


def test_an_orthogonal_matrix_of_a_stack_is_not_frozen():
  orthogonal = spectrum.polish(
    jnp.asarray(random_array(0, (1, 16, 32))), axes=STACK
  )
  moving = jnp.asarray(random_array(1, (1, 16, 32)))
  w = jnp.concatenate([orthogonal, moving]).astype(jnp.bfloat16)
  assert 'frozen' not in check(w, 1e-3)


def test_no_step_says_nothing_of_the_dtype():
  w = jnp.asarray(random_array(0, (16, 32)) / 8, jnp.bfloat16)
  assert check(w, 0.0) == {}


@pytest.mark.parametrize('shape', [(0, 3), (3, 0)])
@pytest.mark.parametrize('momentum', [0.0, 0.9])
def test_an_empty_parameter_is_orthogonal(shape, momentum):
  w = jnp.zeros(shape)
  assert check(w, momentum=momentum, weight_decay=0.1) == {}
  assert check(w, amplitude='ada') == {}
  assert spectrum.orthogonality_error(w, axes=ROWS) == 0
  assert spectrum.polish(w, axes=ROWS).shape == shape
  assert spectrum.largest_safe_step(w, 1.0, momentum=momentum, axes=ROWS) > 0


def test_finds_nothing_frozen_where_steps_are_seen():
  w = jnp.asarray(random_array(0, (16, 32)) / 8)
  bfloat16 = w.astype(jnp.bfloat16)
  assert moved_share(bfloat16, 1e-2, 1.0) > 0.5
  assert 'frozen' not in check(bfloat16, 1e-2)
  assert 'frozen' not in check(w, 1e-5)
  orthogonal = spectrum.polish(bfloat16, axes=ROWS)
  assert 'frozen' not in check(orthogonal, 1e-5)


def test_finds_a_tall_matrix_that_ada_lets_decay(float64):
  w = random_array(0, (1, 6, 2))
  finding = check(jnp.asarray(w), amplitude='ada')['ada_tall']
  assert (finding.value, finding.limit) == (3.0, 1.0)
  assert_says(finding, "amplitude='ada'", '6 outputs, 2 inputs', 'a number')
  ada = functools.partial(bort_sgd, amplitude='ada')
  largest = lambda steps: np.linalg.norm(end_of(ada, w, steps)[0], 2)
  assert largest(20_000) < 0.05
  assert largest(20_000) < largest(2000) / 3 < largest(200) / 9


@pytest.mark.parametrize(
  ('shape', 'mode', 'amplitude'),
  [
    ((2, 6), 'l2-full', 'ada'),
    ((4, 4), 'l2-full', 'ada'),
    ((6, 2), 'l2-row', 'ada'),
    ((6, 2), 'l2-full', 1.0),
  ],
)
def test_finds_no_ada_tall_elsewhere(shape, mode, amplitude):
  w = jnp.asarray(random_array(0, shape), jnp.float32)
  assert 'ada_tall' not in check(w, 1e-3, amplitude=amplitude, mode=mode)


# The l1 modes: a step of size h leaves a relative error of about 2h.

L1_MODES = ('l1-row', 'l1-col', 'l1-fullrow', 'l1-fullcol')


def l1_end(mode, shape, h, steps=3000):
  start = random_array(0, (1, *shape)) / math.sqrt(max(shape))
  return end_of(functools.partial(bort_sgd, mode=mode), start, steps, h)[0]


def l1_error(mode, w):
  """The largest deviation of what the mode constrains."""
  if mode.endswith('col'):
    w = w.T
  excess = w @ w.T - np.eye(len(w))
  return np.max(np.abs(excess if 'full' in mode else np.diag(excess)))


def l1_shape(mode):
  return (8, 16) if mode.endswith('row') else (16, 8)


@pytest.mark.parametrize('mode', L1_MODES)
def test_l1_modes_chatter_at_twice_the_step(mode, float64):
  h = 0.01
  errors = [
    l1_error(mode, l1_end(mode, l1_shape(mode), h, steps))
    for steps in range(3000, 3006)
  ]
  assert h < max(errors) < 3 * h


@pytest.mark.parametrize('mode', L1_MODES)
def test_finds_chatter_that_can_be_seen(mode):
  w = jnp.eye(*l1_shape(mode))
  assert check(w, 0.0049, mode=mode) == {}
  finding = check(w, 0.02, mode=mode)['l1_chatter']
  assert finding.limit == 2.0
  side = 8 if 'full' in mode else 1
  assert finding.value == pytest.approx(0.02 * side)
  assert_says(finding, mode, '= 0.02', f'side {side}', '0.04 forever', 'l2')


@pytest.mark.parametrize('mode', ['l1-fullrow', 'l1-fullcol'])
def test_l1_modes_collapse_or_diverge_beyond_h_side_two(mode, float64):
  shape = (16, 48) if mode == 'l1-fullrow' else (48, 16)
  largest = lambda reach: np.max(np.abs(l1_end(mode, shape, reach / 16)))
  for reach in (2.1, 3.0, 4.0):
    finding = check(jnp.eye(*shape), reach / 16, mode=mode)['l1_chatter']
    assert finding.value == pytest.approx(reach)
    assert_says(finding, 'collapses or diverges')
    assert not 0.1 < largest(reach) < 10
  assert 0.1 < largest(1.0) < 1
  finding = check(jnp.eye(*shape), 1.0 / 16, mode=mode)['l1_chatter']
  assert_says(finding, 'forever')


@pytest.mark.parametrize('mode', ['l1-row', 'l1-fullcol'])
def test_l1_modes_have_no_basin(mode):
  w = 20.0 * jnp.eye(2)
  assert check(w, 0.004, mode=mode) == {}


def test_findings_come_parameter_by_parameter():
  params = {
    'a': {'kernel': 5.0 * jnp.eye(3), 'bias': 9.0 * jnp.ones(3)},
    'b': {'kernel': jnp.eye(3)},
    'c': [{'kernel': jnp.zeros((3, 3))}],
  }
  findings = spectrum.check(params, 0.1, 1.0)
  assert [(finding.parameter, finding.kind) for finding in findings] == [
    ('a/kernel', 'diverges'),
    ('a/kernel', 'sign_flip'),
    ('c/0/kernel', 'zero'),
  ]
  assert str(findings[0]) == f'a/kernel: {findings[0].message}'
