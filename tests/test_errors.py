"""Settings that cannot be meant are refused at once, in words."""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bort_jax
from bort_jax import spectrum

PARAMS = {'kernel': 2.0 * jnp.eye(3), 'bias': jnp.ones(3)}
OPTIMIZERS = {
  'bort_sgd': bort_jax.bort_sgd,
  'bort_adamw': bort_jax.bort_adamw,
  'bort_lamb': bort_jax.bort_lamb,
  'bort_muon': bort_jax.bort_muon,
}
MAKERS = {name: functools.partial(f, 0.1) for name, f in OPTIMIZERS.items()}
MAKERS['bort'] = bort_jax.bort  # pyright: ignore[reportArgumentType]
BAD = [
  -1,
  -0.5,
  math.nan,
  math.inf,
  -math.inf,
  np.float32(-1),
  np.float64('nan'),
  np.int64(-2),
  np.array(-1.0),
  jnp.float32(-1),
  None,
  1j,
  [1.0],
]
ZEROS = [0, 0.0, np.float32(0), np.array(0.0), jnp.float32(0)]
DECAY_HAS_A_LIMIT = [
  bort_jax.bort_sgd,
  bort_jax.bort_adamw,
  bort_jax.bort_muon,
]

optimizers = pytest.mark.parametrize(
  'optimizer', OPTIMIZERS.values(), ids=OPTIMIZERS
)
makers = pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)
bad_numbers = pytest.mark.parametrize('bad', BAD, ids=repr)


def refuses(name, bad: Any, bound='>= 0'):
  """Expects the message that names the number, its range and what was given."""
  message = f'{name} must be a finite number {bound}, got {bad!r}.'
  return pytest.raises(ValueError, match=f'^{re.escape(message)}$')


@optimizers
@bad_numbers
def test_optimizers_refuse_bad_numbers(optimizer, bad):
  with refuses('learning_rate', bad):
    optimizer(bad, 1.0)
  with refuses('gamma', bad):
    optimizer(0.1, bad)
  with refuses('weight_decay', bad):
    optimizer(0.1, 1.0, weight_decay=bad)


@bad_numbers
def test_bort_refuses_a_bad_gamma(bad):
  with refuses('gamma', bad):
    bort_jax.bort(bad)


@makers
@pytest.mark.parametrize('bad', BAD + ZEROS, ids=repr)
def test_a_bad_amplitude_is_refused(make, bad):
  with refuses('amplitude', bad, '> 0'):
    make(1.0, amplitude=bad)


@makers
def test_an_amplitude_in_words_is_ada_or_refused(make):
  message = "amplitude must be a number > 0 or 'ada', got 'adaptive'."
  with pytest.raises(ValueError, match=re.escape(message)):
    make(1.0, amplitude='adaptive')
  make(1.0, amplitude='ada')


@makers
@pytest.mark.parametrize('mode', ['default', 'l1-full', 'row', '', None])
def test_an_unknown_mode_is_refused(make, mode):
  with pytest.raises(ValueError, match='the modes are l2-full, ') as error:
    make(1.0, mode=mode)
  assert f'Unknown mode {mode!r}' in str(error.value)


@pytest.mark.parametrize('bad', BAD + ZEROS, ids=repr)
@pytest.mark.parametrize(
  'call',
  [
    lambda a: bort_jax.keep_orthogonal(a),
    lambda a: spectrum.polish(PARAMS, amplitude=a),
    lambda a: spectrum.orthogonality_error(PARAMS, amplitude=a),
    lambda a: spectrum.largest_safe_step(PARAMS, 1.0, amplitude=a),
    lambda a: spectrum.check(PARAMS, 0.1, 1.0, amplitude=a),
  ],
  ids=['keep_orthogonal', 'polish', 'error', 'safe_step', 'check'],
)
def test_the_rest_refuses_a_bad_amplitude_too(call, bad):
  with refuses('amplitude', bad, '> 0'):
    call(bad)


@pytest.mark.parametrize(
  'call',
  [
    lambda a: bort_jax.keep_orthogonal(a),
    lambda a: spectrum.polish(PARAMS, amplitude=a),
    lambda a: spectrum.largest_safe_step(PARAMS, 1.0, amplitude=a),
  ],
  ids=['keep_orthogonal', 'polish', 'safe_step'],
)
def test_ada_is_refused_where_it_means_nothing(call):
  with pytest.raises((TypeError, ValueError), match="amplitude .*'ada'"):
    call('ada')


@pytest.mark.parametrize('name', ['gamma', 'momentum'])
@bad_numbers
def test_safe_step_refuses_bad_numbers(name, bad):
  with refuses(name, bad):
    spectrum.largest_safe_step(PARAMS, **{'gamma': 1.0, name: bad})


@pytest.mark.parametrize(
  'name', ['learning_rate', 'gamma', 'weight_decay', 'momentum']
)
@bad_numbers
def test_check_refuses_bad_numbers(name, bad):
  good = {'learning_rate': 0.1, 'gamma': 1.0}
  with refuses(name, bad):
    spectrum.check(PARAMS, **{**good, name: bad})


@pytest.mark.parametrize('momentum', [math.nan, -0.1, 1.0, 1.5, jnp.ones(())])
def test_sgd_refuses_a_momentum_out_of_range(momentum):
  with pytest.raises(ValueError, match='momentum must be .*, got'):
    bort_jax.bort_sgd(0.1, 1.0, momentum=momentum)


@pytest.mark.parametrize('steps', [2.5, 0, -1, True, '3', None])
@pytest.mark.parametrize(
  'call',
  [
    lambda steps: bort_jax.keep_orthogonal(steps=steps),
    lambda steps: spectrum.polish(PARAMS, steps=steps),
    lambda steps: bort_jax.bort_muon(0.1, 1.0, ns_steps=steps),
  ],
  ids=['keep_orthogonal', 'polish', 'muon'],
)
def test_numbers_of_steps_are_positive_integers(call, steps):
  message = f'steps must be an integer, at least 1, got {steps!r}'
  with pytest.raises(ValueError, match=re.escape(message)):
    call(steps)


@pytest.mark.parametrize('name', ['learning_rate', 'gamma', 'weight_decay'])
def test_check_refuses_a_schedule(name):
  good = {'learning_rate': 0.1, 'gamma': 1.0}
  with pytest.raises(ValueError, match=f'{name} must be a finite number'):
    spectrum.check(PARAMS, **{**good, name: lambda count: 0.1})


@pytest.mark.parametrize('momentum', [1, 1.0, 1.5])
def test_spectrum_refuses_a_momentum_of_one_and_more(momentum):
  with pytest.raises(ValueError, match='momentum') as error:
    spectrum.largest_safe_step(PARAMS, 1.0, momentum=momentum)
  assert repr(momentum) in str(error.value)
  with pytest.raises(ValueError, match='momentum'):
    spectrum.check(PARAMS, 0.1, 1.0, momentum=momentum)


def test_check_refuses_an_unknown_mode_even_without_gamma():
  with pytest.raises(ValueError, match="Unknown mode 'row'"):
    spectrum.check(PARAMS, 0.1, 0.0, mode='row')  # pyright: ignore


def test_check_does_not_call_weights_well_that_are_no_numbers():
  assert spectrum.check({'kernel': jnp.full((2, 3), jnp.nan)}, 0.1, 1.0)


@pytest.mark.parametrize('optimizer', DECAY_HAS_A_LIMIT)
@pytest.mark.parametrize(
  ('gamma', 'amplitude', 'mode', 'pull'),
  [
    (0.5, 1.0, 'l2-full', 0.5),
    (0.5, 4.0, 'l2-full', 2.0),
    (0.5, 4.0, 'l2-row', 2.0),
    (0.5, 4.0, 'l2-col', 2.0),
    (0.5, 4.0, 'l1-row', 0.5),
    (0.5, 4.0, 'l1-fullcol', 0.5),
    (np.float32(0.5), np.float64(4.0), 'l2-full', 2.0),
  ],
)
def test_a_weight_decay_that_wins_is_refused(
  optimizer, gamma, amplitude, mode, pull
):
  make = lambda weight_decay: optimizer(
    0.1, gamma, amplitude=amplitude, mode=mode, weight_decay=weight_decay
  )
  for weight_decay in (pull, 1.5 * pull, np.float32(pull)):
    with pytest.raises(ValueError, match='decay to zero') as error:
      make(weight_decay)
    assert f'weight_decay={weight_decay} ' in str(error.value)
    assert f'gamma={gamma}, amplitude={amplitude}' in str(error.value)
    assert 'Lower weight_decay or raise gamma' in str(error.value)
  make(0.99 * pull).init(PARAMS)


@pytest.mark.parametrize('optimizer', DECAY_HAS_A_LIMIT)
@pytest.mark.parametrize('axes', [None, {'kernel': bort_jax.MatrixAxes(0, 1)}])
def test_a_weight_decay_of_other_parameters_is_free(optimizer, axes):
  """What a mask decays is known with the parameters, and refused then."""
  make = lambda mask: optimizer(
    0.1, 1.0, weight_decay=5.0, weight_decay_mask=mask, axes=axes
  )
  masks = (
    lambda decays: {'kernel': decays, 'bias': True},
    lambda decays: (
      lambda params: {**dict.fromkeys(params, True), 'kernel': decays}
    ),
  )
  for mask in masks:
    tx = make(mask(False))
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert np.all(np.isfinite(updates['kernel']))
    with pytest.raises(ValueError, match='decay to zero'):
      make(mask(True)).init(PARAMS)


@pytest.mark.parametrize('weight_decay', [1e-6, 100.0])
def test_any_weight_decay_of_lamb_has_the_same_end(weight_decay):
  """Its trust ratio makes it one over gamma, once the gradient is zero."""
  tx = bort_jax.bort_lamb(0.02, 4.0, weight_decay=weight_decay)
  params = {'kernel': jnp.diag(jnp.array([1.2, 0.9]))}

  def step(_, carry):
    params, state = carry
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, state = tx.update(zeros, state, params)
    return optax.apply_updates(params, updates), state

  params, _ = jax.lax.fori_loop(0, 2000, step, (params, tx.init(params)))
  squares = spectrum.singular_values(params)['kernel'] ** 2
  np.testing.assert_allclose(squares, 1 - 1 / 4.0, rtol=1e-4)


@optimizers
def test_weight_decay_is_free_where_nothing_pulls(optimizer):
  tx = optimizer(0.1, 0.0, weight_decay=10.0)
  updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
  assert jnp.all(jnp.isfinite(updates['kernel']))


@optimizers
def test_numbers_of_zero_are_allowed(optimizer):
  for tx in (
    optimizer(0.0, 0.0, weight_decay=0.0),
    optimizer(np.float32(0), np.int64(0), weight_decay=0),
  ):
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert not jnp.any(updates['kernel'])


@optimizers
def test_numbers_known_later_are_not_refused(optimizer):
  """Schedules and tracers, and what optax.inject_hyperparams traces."""
  optimizer(lambda count: 0.1, lambda count: 1.0, weight_decay=0.1)
  optimizer(jnp.asarray(0.1), jnp.asarray(0.05), weight_decay=0.1)

  @jax.jit
  def update(rate, gamma):
    tx = optimizer(rate, gamma)
    return tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0]

  tx = optimizer(0.1, 1.0)
  expected, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
  tx = optax.inject_hyperparams(optimizer)(0.1, 1.0)
  injected, _ = jax.jit(tx.update)(PARAMS, tx.init(PARAMS), PARAMS)
  for updates in (update(0.1, 1.0), injected):
    np.testing.assert_allclose(
      updates['kernel'], expected['kernel'], rtol=1e-5, atol=1e-6
    )


@makers
def test_an_update_without_parameters_is_refused(make):
  tx = make(1.0)
  with pytest.raises(ValueError, match='params is None.*updates, state, par'):
    tx.update(PARAMS, tx.init(PARAMS))


@makers
def test_parameters_that_do_not_fit_are_refused_by_init(make):
  integers = {'kernel': jnp.ones((2, 3), jnp.int32)}
  with pytest.raises(TypeError, match="Parameter 'kernel' has dtype int32"):
    make(1.0).init(integers)
  with pytest.raises(ValueError, match="selects no parameter.*'bias'"):
    make(1.0).init({'bias': jnp.ones(3)})


@makers
def test_without_gamma_any_parameters_fit(make):
  """Nothing is constrained, so nothing needs to be a matrix."""
  params = {'bias': jnp.ones(3)}
  tx = make(0.0)
  updates, _ = tx.update(params, tx.init(params), params)
  assert np.all(np.isfinite(updates['bias']))
