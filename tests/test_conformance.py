"""What optax asks of its own optimizers, asked of ours.

After optax's contrib/_common_test.py, _src/alias_test.py, _src/float64_test.py
and _src/sharding_test.py, with targets that an orthogonal matrix can reach.
"""

import contextlib
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bort_jax
from bort_jax import MatrixAxes

RATE = 0.1
GAMMA = 0.5
DENSE = MatrixAxes(in_axes=0, out_axes=1)
NS_COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of optax.contrib.muon
SHAPES: Any = {
  'bias': (6,),
  'tall': {'kernel': (3, 5)},
  'wide': {'kernel': (5, 3)},
}
FLOATS = 'float16', 'bfloat16', 'float32', 'float64'


def bort_before_sgd(
  learning_rate: optax.ScalarOrSchedule,
  gamma: optax.ScalarOrSchedule,
  *,
  axes: Any = None,
) -> optax.GradientTransformationExtraArgs:
  return optax.chain(bort_jax.bort(gamma, axes=axes), optax.sgd(learning_rate))


def adam_kept_orthogonal(
  learning_rate: optax.ScalarOrSchedule, *, axes: Any = None
) -> optax.GradientTransformationExtraArgs:
  return optax.chain(
    optax.adam(learning_rate), bort_jax.keep_orthogonal(axes=axes)
  )


FACTORIES: dict[str, Any] = {
  'bort': bort_before_sgd,
  'bort_sgd': bort_jax.bort_sgd,
  'bort_adamw': bort_jax.bort_adamw,
  'bort_lamb': bort_jax.bort_lamb,
  'bort_muon': bort_jax.bort_muon,
  'keep_orthogonal': adam_kept_orthogonal,
}
SOFT = tuple(name for name in FACTORIES if name != 'keep_orthogonal')
CASES = [
  *((name, {'gamma': gamma}) for name in SOFT for gamma in (0.0, GAMMA)),
  ('keep_orthogonal', {}),
]
CONSTRAINED = [
  *((name, {'gamma': GAMMA}) for name in SOFT),
  ('keep_orthogonal', {}),
]


def parametrize(cases):
  ids = ['-'.join(map(str, (name, *kw.values()))) for name, kw in cases]
  return pytest.mark.parametrize(('name', 'arguments'), cases, ids=ids)


cases = parametrize(CASES)
constrained = parametrize(CONSTRAINED)


def make(name, arguments, learning_rate: Any = RATE, **more):
  return FACTORIES[name](learning_rate, **arguments, **more)


# Independent arithmetic, for kernels laid out (in, out).


def polar_factor(w):
  u, _, vh = np.linalg.svd(w, full_matrices=False)
  return u @ vh


def correction(w, amplitude=1.0):
  """C(W), transposed as w is: (W Wᴴ W)ᵀ = Wᵀ (Wᵀ)ᴴ Wᵀ."""
  return w @ w.conj().T @ w - amplitude * w


def adam_direction(g, eps=1e-8):
  """Adam's first step, where both moments are the gradient's own."""
  return g / (np.abs(g) + eps)


def muon_direction(g):
  """Muon's first step: Newton–Schulz on the normalized gradient."""
  first, second, third = NS_COEFFICIENTS
  x = g / np.linalg.norm(g)
  for _ in range(5):
    gram = x @ x.conj().T
    x = first * x + (second * gram + third * gram @ gram) @ x
  return np.sqrt(max(1.0, g.shape[1] / g.shape[0])) * x


def nesterov_adam_direction(g, b1=0.9, eps=1e-8):
  return (1 + b1 / (1 + b1)) * g / (np.abs(g) + eps)


def lamb_direction(g, w):
  direction = adam_direction(g, 1e-6)
  return np.linalg.norm(w) / np.linalg.norm(direction) * direction


def tangent(w, update):
  """Independent of the side: on a tall matrix it is the columns' tangent."""
  if w.shape[0] > w.shape[1]:
    return tangent(w.T, update.T).T
  product = update @ w.conj().T
  return update - (product + product.conj().T) @ w / 2


def expected_matrix(name, w, g, gamma=0.0):
  """The first update of a kernel, laid out (in, out)."""
  if name == 'keep_orthogonal':
    return polar_factor(w + tangent(w, -RATE * adam_direction(g))) - w
  direction = {
    'bort': lambda: g,
    'bort_sgd': lambda: g,
    'bort_adamw': lambda: adam_direction(g),
    'bort_lamb': lambda: lamb_direction(g, w),
    'bort_muon': lambda: muon_direction(g),
  }[name]()
  return -RATE * (direction + gamma * correction(w))


def expected_other(name, w, g):
  """The first update of a parameter that is no matrix."""
  direction = {
    'bort': lambda: g,
    'bort_sgd': lambda: g,
    'bort_lamb': lambda: lamb_direction(g, w),
    'bort_muon': lambda: nesterov_adam_direction(g),
  }.get(name, lambda: adam_direction(g))()
  return -RATE * direction


def expected_updates(name, params, grads, gamma=0.0):
  def update(w, g):
    w, g = (wide(x) for x in (w, g))
    if w.ndim == 2:
      return expected_matrix(name, w, g, gamma)
    return expected_other(name, w, g)

  return jax.tree.map(update, params, grads)


def wide(x):
  """In float64 or complex128, whatever it was."""
  x = np.asarray(x)
  is_complex = np.issubdtype(x.dtype, np.complexfloating)
  return x.astype(np.complex128 if is_complex else np.float64)


# Trees.


def random_array(rng, shape, dtype):
  x = rng.normal(size=shape)
  if np.issubdtype(dtype, np.complexfloating):
    x = x + 1j * rng.normal(size=shape)
  return x


def random_tree(seed, dtype: Any = 'float32'):
  rng = np.random.default_rng(seed)
  dtype = jnp.dtype(dtype)
  return jax.tree.map(
    lambda shape: jnp.asarray(random_array(rng, shape, dtype), dtype),
    SHAPES,
    is_leaf=lambda x: isinstance(x, tuple),
  )


def start_tree(seed, dtype: Any = 'float32'):
  """Random parameters whose kernels are orthogonal."""
  return jax.tree.map(
    lambda w: jnp.asarray(polar_factor(wide(w)) if w.ndim == 2 else w, dtype),
    random_tree(seed, dtype),
  )


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      wide(a), wide(b), rtol=rtol, atol=atol
    ),
    actual,
    expected,
  )


def types(tree):
  return jax.tree.map(jax.typeof, tree)


def abstract(tree):
  """Shapes, dtypes and weak types, comparable with jax.eval_shape's."""
  return jax.eval_shape(lambda tree: tree, tree)


@contextlib.contextmanager
def precision(dtype):
  with jax.enable_x64(jnp.dtype(dtype).itemsize >= 8 and dtype != 'complex64'):
    yield


def train(tx, objective, params, steps):
  def step(carry, _):
    params, state = carry
    grads = jax.tree.map(jnp.conj, jax.grad(objective)(params))
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), None

  run = lambda carry: jax.lax.scan(step, carry, length=steps)[0]
  return jax.jit(run)((params, tx.init(params)))[0]


def squared_distance(target):
  def objective(params):
    differences = jax.tree.map(jnp.subtract, params, target)
    return optax.tree.norm(differences, squared=True)

  return objective


# The first step of each against numpy: what everything below relies on.


@cases
@pytest.mark.parametrize('dtype', ['float64', 'complex128'])
def test_first_update_equals_numpy(name, arguments, dtype, float64):
  params, grads = start_tree(0, dtype), random_tree(1, dtype)
  if arguments:  # not orthogonal, so that the correction is not zero
    params = jax.tree.map(lambda w: 1.5 * w, params)
  tx = make(name, arguments)
  updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
  expected = expected_updates(name, params, grads, **arguments)
  assert_close(updates, expected, rtol=1e-6, atol=1e-8)


def test_lamb_moves_a_scalar_as_adam_does(float64):
  """A trust ratio would hold one of zero where it is."""
  params = {'kernel': jnp.eye(2), 'log_scale': jnp.asarray(1e-6)}
  grads = {'kernel': jnp.ones((2, 2)), 'log_scale': jnp.asarray(0.3)}
  tx = bort_jax.bort_lamb(RATE, GAMMA)
  updates: Any = tx.update(grads, tx.init(params), params)[0]
  assert float(updates['log_scale']) == pytest.approx(-RATE, rel=1e-4)


@pytest.mark.parametrize('make', [bort_jax.bort_adamw, bort_jax.bort_muon])
def test_float16_needs_an_eps_that_it_holds(make):
  params = {'kernel': jnp.eye(3), 'bias': jnp.ones(3)}
  params = jax.tree.map(lambda w: w.astype(jnp.float16), params)
  zeros = jax.tree.map(jnp.zeros_like, params)
  for eps, is_finite in ((1e-8, False), (1e-4, True)):
    tx = make(RATE, GAMMA, eps=eps)
    updates, _ = tx.update(zeros, tx.init(params), params)
    assert bool(jnp.all(jnp.isfinite(updates['kernel']))) == is_finite


@pytest.mark.parametrize(
  'make',
  [
    bort_jax.bort_sgd,
    bort_jax.bort_adamw,
    bort_jax.bort_lamb,
    bort_jax.bort_muon,
  ],
)
def test_injected_with_a_static_mask_of_the_decay(make):
  mask = lambda params: {name: name == 'bias' for name in params}
  arguments = {'weight_decay': 0.5, 'weight_decay_mask': mask}
  injected = optax.inject_hyperparams(make, static_args='weight_decay_mask')
  params = {'kernel': 1.1 * jnp.eye(3), 'bias': jnp.ones(3)}
  grads = jax.tree.map(lambda w: 0.1 * w, params)
  plain, same = (
    make(RATE, GAMMA, **arguments),
    injected(RATE, GAMMA, **arguments),
  )
  expected, _ = plain.update(grads, plain.init(params), params)
  got, _ = same.update(grads, same.init(params), params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, expected
  )


def test_the_correction_conjugates():
  """A unitary matrix has no correction, and its transpose would have one."""
  w = np.array([[1, 1j], [1j, 1]]) / np.sqrt(2)
  assert np.linalg.norm(w @ w.T @ w - w) > 1
  tx = bort_jax.bort(1.0, axes=DENSE)
  for scale, expected in ((1.0, 0 * w), (2.0, 6 * w)):
    params = {'w': jnp.asarray(scale * w, jnp.complex64)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    assert types(updates) == types(params)
    assert_close(updates, {'w': expected})


# optax/contrib/_common_test.py and _src/alias_test.py.


@cases
def test_accepts_extra_args_and_does_not_recompile(name, arguments):
  tx = make(name, arguments)
  traces = []

  @jax.jit
  def step(params, state):
    traces.append(None)
    updates, state = tx.update(params, state, params, unexpected=1, value=2.0)
    return optax.apply_updates(params, updates), state

  params = start_tree(0)
  state = tx.init(params)
  for _ in range(3):
    params, state = step(params, state)
  assert len(traces) == 1


@constrained
@pytest.mark.parametrize('dtype', ['float32', 'complex64'])
def test_converges_to_a_feasible_target(name, arguments, dtype):
  start, target = start_tree(0, dtype), start_tree(1, dtype)
  rates = optax.cosine_decay_schedule(0.1, 1500)
  tx = make(name, arguments, rates)
  got = train(tx, squared_distance(target), start, 1500)
  assert_close(got, target, rtol=1e-3, atol=1e-3)


@parametrize([(name, {'gamma': 0.0}) for name in SOFT])
@pytest.mark.parametrize('dtype', ['float32', 'complex64'])
def test_without_gamma_converges_to_the_targets_of_optax(
  name, arguments, dtype
):
  target = {
    'bias': jnp.array([1.0, -1.0, 2.0], dtype),
    'kernel': jnp.array([[3.0, -2.0], [1.0, 4.0]], dtype),
    'other': {'kernel': jnp.array([[1.0, 0.0], [-1.0, 1.0]], dtype)},
  }
  start = jax.tree.map(lambda x: jnp.full_like(x, 0.1), target)
  rates = optax.cosine_decay_schedule(0.1, 2000)
  tx = make(name, arguments, rates)
  got = train(tx, squared_distance(target), start, 2000)
  assert_close(got, target, rtol=3e-2, atol=3e-2)


@parametrize([(name, {'gamma': 10.0}) for name in SOFT])
def test_gamma_keeps_away_from_an_infeasible_target(name, arguments):
  """The converse of the above: the constraint is there."""
  target = {'kernel': jnp.array([[3.0, -2.0], [1.0, 4.0]])}
  rates = optax.cosine_decay_schedule(0.02, 1000)
  start = {'kernel': jnp.eye(2)}
  tx = make(name, arguments, rates)
  got = train(tx, squared_distance(target), start, 1000)
  values = np.linalg.svd(wide(got['kernel']), compute_uv=False)
  assert np.all(np.abs(values - 1) < 0.3), values


@cases
def test_map_params(name, arguments):
  tx = make(name, arguments)
  params = random_tree(0)
  state = tx.init(params)
  mapped = optax.tree.map_params(tx, lambda x: jnp.full_like(x, 7.0), state)
  assert types(mapped) == types(state)
  shapes = {x.shape for x in jax.tree.leaves(params)}
  for before, after in zip(
    jax.tree.leaves(state), jax.tree.leaves(mapped), strict=True
  ):
    expected = 7.0 if before.shape in shapes else before
    np.testing.assert_array_equal(after, expected)


@cases
def test_inject_hyperparams_equals_the_plain_form(name, arguments):
  params, grads = start_tree(0), random_tree(1)
  inject = optax.inject_hyperparams(FACTORIES[name])
  plain, injected = make(name, arguments), inject(RATE, **arguments)
  state = jax.jit(plain.init)(params)
  injected_state = jax.jit(injected.init)(params)
  updates, state = jax.jit(plain.update)(grads, state, params)
  got, injected_state = jax.jit(injected.update)(grads, injected_state, params)
  assert_close(got, updates)
  assert_close(injected_state.inner_state, state)
  assert_close(got, expected_updates(name, params, grads, **arguments))


@pytest.mark.parametrize('name', SOFT)
def test_injected_gamma_can_be_changed(name):
  params, grads = random_tree(0), random_tree(1)
  inject = optax.inject_hyperparams(FACTORIES[name])
  tx = inject(RATE, gamma=0.0)
  state: Any = tx.init(params)
  state.hyperparams['gamma'] = jnp.float32(GAMMA)
  updates, state = jax.jit(tx.update)(grads, state, params)
  assert_close(updates, expected_updates(name, params, grads, GAMMA), atol=1e-5)


@pytest.mark.parametrize('name', SOFT)
def test_injected_schedule_of_gamma(name):
  """Behind an update of zero there is only the correction."""
  inject = optax.inject_hyperparams(FACTORIES[name])
  tx = inject(RATE, gamma=lambda count: 0.25 * (1 + count))
  params = random_tree(0)
  grads = jax.tree.map(jnp.zeros_like, params)
  state: Any = tx.init(params)
  update = jax.jit(tx.update)
  for step in range(3):
    updates, state = update(grads, state, params)
    gamma = 0.25 * (1 + step)
    assert_close(updates, corrections(params, -RATE * gamma), atol=1e-5)
    assert state.hyperparams['gamma'] == gamma


def corrections(params, factor):
  return jax.tree.map(
    lambda w: factor * correction(wide(w)) if w.ndim == 2 else 0 * w, params
  )


@constrained
def test_injected_with_a_static_rule(name, arguments):
  seen = []

  def rule(path, leaf):
    seen.append(path)
    return DENSE if path == 'wide/kernel' else None

  inject = optax.inject_hyperparams(FACTORIES[name], static_args=('axes',))
  tx = inject(RATE, axes=rule, **arguments)
  params = jax.tree.map(lambda w: 1.5 * w, start_tree(0))
  grads = jax.tree.map(jnp.zeros_like, params)
  updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
  assert set(seen) == {'bias', 'tall/kernel', 'wide/kernel'}
  moved = jax.tree.map(lambda u: bool(jnp.any(u != 0)), updates)
  assert moved == {
    'bias': False,
    'tall': {'kernel': False},
    'wide': {'kernel': True},
  }


def test_injected_adaptive_amplitude_and_mode():
  """Words are no numbers: they stay as they are."""
  inject = optax.inject_hyperparams(bort_jax.bort)
  tx = inject(1.0, amplitude='ada', mode='l2-row')
  params = random_tree(0)
  grads = jax.tree.map(jnp.zeros_like, params)
  updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
  w = wide(params['wide']['kernel'])
  norms = np.linalg.norm(w, axis=0)  # a row of W is a column of the kernel
  expected = w * (norms**2 - norms.mean() ** 2)
  assert_close(updates['wide']['kernel'], expected, rtol=1e-4)


def test_injected_amplitude_of_keep_orthogonal():
  tx = optax.inject_hyperparams(bort_jax.keep_orthogonal, 'steps')(4.0)
  params = {'kernel': 2 * start_tree(0)['wide']['kernel']}
  ones = jax.tree.map(jnp.ones_like, params)
  updates, _ = jax.jit(tx.update)(ones, tx.init(params), params)
  w = wide(params['kernel']) / 2
  expected = 2 * polar_factor(w + tangent(w, np.full((5, 3), 0.5)))
  assert_close(updates, {'kernel': expected - 2 * w}, atol=1e-5)


@cases
@pytest.mark.parametrize('dtype', FLOATS)
def test_preserves_dtype(name, arguments, dtype):
  with precision(dtype):
    params, grads = start_tree(0, dtype), random_tree(1, dtype)
    tx = make(name, arguments)
    state = tx.init(params)
    got = jax.eval_shape(tx.update, grads, state, params)
    assert got == abstract((params, state))


@pytest.mark.parametrize('dtype', FLOATS)
def test_16_bit_parameters_are_corrected_in_float32(dtype):
  """The result is rounded once, when it is added to the gradient."""
  with precision(dtype):
    params, grads = random_tree(0, dtype), random_tree(1, dtype)
    tx = bort_jax.bort(GAMMA)
    updates, _ = tx.update(grads, tx.init(params), params)
    expected = jax.tree.map(
      lambda g, c: wide(g) + wide(c), grads, corrections(params, GAMMA)
    )
    eps = float(jnp.finfo(dtype).eps)
    assert_close(updates, expected, rtol=eps, atol=1e-6)


@cases
def test_mixed_tree_keeps_the_dtype_of_each_leaf(name, arguments, float64):
  params = {
    dtype: {'kernel': start_tree(0, dtype)['wide']['kernel']}
    for dtype in FLOATS
  }
  tx = make(name, arguments)
  state = tx.init(params)
  got = jax.eval_shape(tx.update, params, state, params)
  assert got == abstract((params, state))


@cases
def test_multi_steps_applies_the_mean_gradient(name, arguments):
  params = jax.tree.map(lambda w: 1.1 * w, start_tree(0))
  params = params if arguments else start_tree(0)
  first, second = random_tree(1), random_tree(2)
  tx = optax.MultiSteps(make(name, arguments), every_k_schedule=2)
  update = jax.jit(tx.update)
  updates, state = update(first, tx.init(params), params)
  assert_close(updates, jax.tree.map(np.zeros_like, params), atol=0)
  updates, state = update(second, state, params)
  mean = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
  expected = expected_updates(name, params, mean, **arguments)
  assert_close(updates, expected, rtol=1e-4, atol=1e-5)


@cases
@pytest.mark.parametrize('dtype', [*FLOATS, 'complex64'])
def test_state_is_stable_through_cond_and_scan(name, arguments, dtype):
  """Neither accepts a state of another type than it had."""
  with precision(dtype):
    params = start_tree(0, dtype)
    tx = make(name, arguments)

    def step(carry, apply):
      params, state = carry
      updates, state = jax.lax.cond(
        apply,
        lambda: tx.update(params, state, params),
        lambda: (jax.tree.map(jnp.zeros_like, params), state),
      )
      return (optax.apply_updates(params, updates), state), None

    carry = params, tx.init(params)
    after, _ = jax.eval_shape(
      lambda *args: jax.lax.scan(step, *args), carry, jnp.array([True, False])
    )
    assert after == abstract(carry)


@pytest.mark.parametrize('name', SOFT)
@pytest.mark.parametrize('argument', ['learning_rate', 'gamma'])
def test_annotation_says_that_schedules_are_accepted(name, argument):
  parameters = inspect.signature(FACTORIES[name]).parameters
  assert parameters[argument].annotation == optax.ScalarOrSchedule


def test_annotation_of_bort():
  parameters = inspect.signature(bort_jax.bort).parameters
  assert parameters['gamma'].annotation == optax.ScalarOrSchedule


@cases
def test_constant_schedules_equal_numbers(name, arguments):
  constant = optax.constant_schedule
  scheduled = make(
    name, {key: constant(x) for key, x in arguments.items()}, constant(RATE)
  )
  params = jax.tree.map(lambda w: 1.1 * w, start_tree(0))
  params = params if arguments else start_tree(0)
  updates, _ = jax.jit(scheduled.update)(
    random_tree(1), scheduled.init(params), params
  )
  expected = expected_updates(name, params, random_tree(1), **arguments)
  assert_close(updates, expected, rtol=1e-4, atol=1e-5)


# optax/_src/sharding_test.py and what else a state is asked for.


@cases
def test_init_on_abstract_parameters(name, arguments):
  params = random_tree(0)
  tx = make(name, arguments)
  expected = abstract(tx.init(params))
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params
  )
  assert abstract(tx.init(shapes)) == expected
  assert jax.eval_shape(tx.init, shapes) == expected


@cases
def test_init_on_abstract_grouped_kernels(name, arguments):
  axes = MatrixAxes((0, 1, 2), 3, groups=2)
  tx = make(name, arguments, axes=axes)
  shape = 2, 2, 3, 8
  expected = abstract(tx.init({'kernel': jnp.zeros(shape)}))
  shapes = {'kernel': jax.ShapeDtypeStruct(shape, jnp.float32)}
  assert abstract(tx.init(shapes)) == expected


@cases
def test_needs_params(name, arguments):
  params = random_tree(0)
  tx = make(name, arguments)
  # In bort_lamb it is optax.add_decayed_weights that says so.
  message = r'call update\(updates, state, params\)|not passing `params`'
  with pytest.raises(ValueError, match=message):
    tx.update(params, tx.init(params))


@pytest.mark.parametrize(
  'tx', [bort_jax.bort(0.0), bort_jax.bort(1.0), bort_jax.keep_orthogonal()]
)
def test_needs_params_alone(tx):
  params = random_tree(0)
  with pytest.raises(ValueError, match='function of the parameters'):
    tx.update(params, tx.init(params), None)


# Around other transformations.


@constrained
def test_masked_parameters_pass_through(name, arguments):
  """Inside optax.masked what is off arrives as it was."""
  mask = {'bias': True, 'tall': {'kernel': True}, 'wide': False}
  tx = optax.masked(make(name, arguments), mask)
  params, grads = start_tree(0), random_tree(1)
  updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
  expected = expected_updates(name, params, grads, **arguments)
  assert_close(updates, expected | {'wide': grads['wide']}, rtol=1e-4)


@constrained
def test_partition(name, arguments):
  labels = {'bias': 'rest', 'tall': 'rest', 'wide': 'orthogonal'}
  tx = optax.partition(
    {'orthogonal': make(name, arguments), 'rest': optax.sgd(1.0)}, labels
  )
  params, grads = start_tree(0), random_tree(1)
  updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
  expected = expected_updates(name, params, grads, **arguments)
  rest = jax.tree.map(jnp.negative, grads) | {'wide': expected['wide']}
  assert_close(updates, rest, rtol=1e-4)


@constrained
@pytest.mark.parametrize(
  ('axes', 'constrains_tall'),
  [
    ({'wide': DENSE, 'tall': None}, False),
    ({'wide': DENSE, 'bias': None}, False),
    ({'wide': {'kernel': DENSE}, 'tall': DENSE}, True),
    (DENSE, True),
  ],
)
def test_prefix_specs_inside_partition(name, arguments, axes, constrains_tall):
  """The specs are of the whole tree, the parameters are partly masked."""
  labels = {'bias': 'plain', 'tall': 'mine', 'wide': 'mine'}
  tx = optax.partition(
    {
      'mine': make(name, arguments, axes=axes),
      'plain': optax.sgd(1.0),
    },
    labels,
  )
  params = jax.tree.map(lambda w: 1.5 * w, start_tree(0))
  grads = jax.tree.map(jnp.zeros_like, params)
  updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
  assert jnp.any(updates['wide']['kernel'] != 0)
  assert jnp.any(updates['tall']['kernel'] != 0) == constrains_tall
  assert not jnp.any(updates['bias'])


@cases
def test_none_leaves_and_masked_nodes(name, arguments):
  params, grads = start_tree(0), random_tree(1)
  absent = {'none': None, 'masked': optax.MaskedNode(), 'empty': {}}
  tx = make(name, arguments)
  updates, _ = jax.jit(tx.update)(
    grads | absent, tx.init(params | absent), params | absent
  )
  expected = expected_updates(name, params, grads, **arguments)
  assert_close(updates, expected | absent, rtol=1e-4)


@pytest.mark.parametrize('tx', [bort_jax.bort(1.0), bort_jax.keep_orthogonal()])
def test_frozen_parameter_has_no_update(tx):
  """A None among the updates, where there is a parameter: it is frozen."""
  params = start_tree(0)
  updates = random_tree(1) | {'tall': {'kernel': None}}
  got, _ = tx.update(updates, tx.init(params), params)
  assert got['tall']['kernel'] is None
  assert got['wide']['kernel'].shape == (5, 3)


@cases
def test_apply_if_finite_and_clipping_around(name, arguments):
  tx = optax.apply_if_finite(
    optax.chain(optax.clip_by_global_norm(1e6), make(name, arguments)), 3
  )
  params, grads = start_tree(0), random_tree(1)
  state: Any = tx.init(params)
  update = jax.jit(tx.update)
  bad = jax.tree.map(lambda g: g * jnp.nan, grads)
  updates, state = update(bad, state, params)
  assert not any(jnp.any(u) for u in jax.tree.leaves(updates))
  updates, state = update(grads, state, params)
  expected = expected_updates(name, params, grads, **arguments)
  assert_close(updates, expected, rtol=1e-4, atol=1e-5)


@cases
def test_vmap_equals_a_loop(name, arguments):
  params = [start_tree(seed) for seed in range(3)]
  grads = [random_tree(seed) for seed in range(3, 6)]
  tx = make(name, arguments)
  stack = lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)

  def first(grads, params):
    return tx.update(grads, tx.init(params), params)[0]

  updates = jax.jit(jax.vmap(first))(stack(grads), stack(params))
  for i in range(3):
    expected = expected_updates(name, params[i], grads[i], **arguments)
    got = jax.tree.map(lambda u, i=i: u[i], updates)
    assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_differentiable_through_an_update():
  """Meta-gradients: the update with respect to gamma is the correction."""
  params = random_tree(0)
  zeros = jax.tree.map(jnp.zeros_like, params)

  def updated(gamma):
    tx = bort_jax.bort(gamma)
    return tx.update(zeros, tx.init(params), params)[0]

  got = jax.jacobian(updated)(1.0)
  assert_close(got, corrections(params, 1.0), rtol=1e-4, atol=1e-5)


# Schedules.


def test_schedule_of_gamma_advances_with_the_count(float64):
  params, grads = random_tree(0, 'float64'), random_tree(1, 'float64')
  tx = bort_jax.bort(lambda count: 0.5 * (count + 1))
  state: Any = tx.init(params)
  for step in range(4):
    assert state.count == step
    updates, state = jax.jit(tx.update)(grads, state, params)
    expected = jax.tree.map(
      lambda g, c: wide(g) + wide(c),
      grads,
      corrections(params, 0.5 * (step + 1)),
    )
    assert_close(updates, expected, rtol=1e-10)


def test_gamma_can_be_scheduled_off():
  params = random_tree(0)
  tx = bort_jax.bort(optax.piecewise_constant_schedule(1.0, {2: 0.0}))
  zeros = jax.tree.map(jnp.zeros_like, params)
  state = tx.init(params)
  update = jax.jit(tx.update)
  moved = []
  for _ in range(4):
    updates, state = update(zeros, state, params)
    moved.append(bool(jnp.any(updates['wide']['kernel'])))
  assert moved == [True, True, False, False]


RATES = 0.1, 0.03, 0.2, 0.05
GAMMAS = 0.5, 1.0, 0.2, 0.7
DECAY = 0.1


def published_adamw(w, gradients, b1=0.9, b2=0.999, eps=1e-8):
  """BortA with η and γ of each step: decay, correct, then Adam."""
  first, second = np.zeros_like(w), np.zeros_like(w)
  steps = zip(gradients, RATES, GAMMAS, strict=True)
  for t, (g, rate, gamma) in enumerate(steps, start=1):
    first = b1 * first + (1 - b1) * g
    second = b2 * second + (1 - b2) * g**2
    w = w * (1 - rate * DECAY)
    if w.ndim == 2:
      w = w - rate * gamma * correction(w)
    moment = np.sqrt(second / (1 - b2**t)) + eps
    w = w - rate * first / (1 - b1**t) / moment
  return w


def published_sgd(w, gradients, momentum=0.9):
  """BortS with η and γ of each step: correct, decay, momentum."""
  buffer = np.zeros_like(w)
  for g, rate, gamma in zip(gradients, RATES, GAMMAS, strict=True):
    if w.ndim == 2:
      g = g + gamma * correction(w)
    buffer = momentum * buffer + g + DECAY * w
    w = w - rate * buffer
  return w


@pytest.mark.parametrize(
  ('make_tx', 'published'),
  [
    (bort_jax.bort_adamw, published_adamw),
    (lambda *a, **kw: bort_jax.bort_sgd(*a, momentum=0.9, **kw), published_sgd),
  ],
  ids=['bort_adamw', 'bort_sgd'],
)
def test_scheduled_rates_in_the_published_order(make_tx, published, float64):
  rates, gammas = jnp.array(RATES), jnp.array(GAMMAS)
  tx = make_tx(
    lambda count: rates[count],
    lambda count: gammas[count],
    weight_decay=DECAY,
  )
  start = params = random_tree(0, 'float64')
  grads = [random_tree(1 + step, 'float64') for step in range(len(RATES))]
  state = tx.init(params)
  for gradient in grads:
    updates, state = jax.jit(tx.update)(gradient, state, params)
    params = optax.apply_updates(params, updates)
  expected = jax.tree.map(
    lambda w, *gradients: published(wide(w), [wide(g) for g in gradients]),
    start,
    *grads,
  )
  assert_close(params, expected, rtol=1e-7, atol=1e-7)


def test_small_decay_is_not_rounded_away_in_half_precision():
  """Of (1 − ηλ)W = 0.9975 I, of which bfloat16 would make 0.996 I."""
  w = {'kernel': jnp.eye(4, dtype='bfloat16')}
  tx = bort_jax.bort_adamw(0.05, 100.0, weight_decay=0.05)
  zero = jax.tree.map(jnp.zeros_like, w)
  update: Any = tx.update(zero, tx.init(w), w)[0]
  found = jnp.diag(update['kernel'].astype('float32'))
  np.testing.assert_allclose(found, 0.0224, rtol=0.01)


@pytest.mark.parametrize('decay', [0.0, 0.1])
def test_a_parameter_may_be_a_number(decay):
  w = {'kernel': jnp.eye(4), 'temperature': 0.5}
  tx = bort_jax.bort_adamw(0.1, 1.0, weight_decay=decay)
  grads = {'kernel': jnp.zeros((4, 4)), 'temperature': 0.0}
  update: Any = tx.update(grads, tx.init(w), w)[0]
  np.testing.assert_allclose(
    update['temperature'], -0.05 * decay, rtol=1e-6, atol=1e-9
  )
