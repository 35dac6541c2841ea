"""What cannot be attacked, and what the message says."""

import attack_helpers as h
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bort_jax import attacks

APPLY, PARAMS, X, TARGET = h.network()
GOOD = {'params': PARAMS, 'x': X, 'target': TARGET, 'epsilon': 0.1}

STATIC = {
  'no batch': ({'x': X[0]}, 'x must be pictures .N, H, W, C., got shape'),
  'integers': ({'x': jnp.ones(X.shape, jnp.uint8)}, 'x must be floats'),
  'too few targets': ({'target': TARGET[:2]}, r'shape \(3,\), a class for'),
  'float targets': ({'target': jnp.ones(3)}, 'target must be integers'),
  'radii of two': ({'epsilon': jnp.ones(2)}, 'epsilon must be a number, or'),
  'negative radius': ({'epsilon': -0.1}, 'epsilon must be finite and >= 0'),
  'endless radius': ({'epsilon': np.inf}, 'epsilon must be finite and >= 0'),
  'steps of two': ({'step_size': np.ones(2)}, 'step_size must be a number, or'),
  'negative step': ({'step_size': -1.0}, 'step_size must be finite and >= 0'),
  'reversed bounds': ({'bounds': (1.0, 0.0)}, 'bounds must be least and grea'),
  'one bound': ({'bounds': 1.0}, 'bounds must be two numbers'),
  'bounds of arrays': ({'bounds': (np.zeros(3), 1.0)}, 'two plain numbers'),
  'no steps': ({'steps': 0}, 'steps must be an integer, at least 1'),
  'half a step': ({'steps': 1.5}, 'steps must be an integer, at least 1'),
  'unknown norm': ({'norm': 'l1'}, "norm must be one of linf, l2, got 'l1'"),
}
KNOWN = {
  'class too great': ({'target': TARGET + 4}, 'target .* does not exist'),
  'class below 0': ({'target': TARGET - 4}, 'target .* does not exist'),
  'x too bright': ({'x': X + 1}, 'x must be 0.0 … 1.0, got 1.'),
  'x not a number': (
    {'x': X.at[0].set(jnp.nan)},
    'x must be 0.0 … 1.0, got nan',
  ),
  'a negative radius': ({'epsilon': -jnp.ones(3)}, 'epsilon must be finite'),
}


def pgd(**given):
  params, x, target, epsilon, *_ = (given.pop(name) for name in GOOD)
  return attacks.pgd(APPLY, params, x, target, epsilon, **given)


@pytest.mark.parametrize('case', {**STATIC, **KNOWN}.values())
def test_what_is_wrong_is_refused(case):
  given, message = case
  with pytest.raises(attacks.AttackError, match=message):
    pgd(**{**GOOD, **given})


@pytest.mark.parametrize('case', STATIC.values(), ids=STATIC)
def test_what_is_static_is_refused_under_jit(case):
  given, message = case
  given = {**GOOD, **given}
  traced = {name: given.pop(name) for name in ('params', 'x', 'target')}
  with pytest.raises(attacks.AttackError, match=message):
    jax.jit(lambda arrays: pgd(**arrays, **given))(traced)


@pytest.mark.parametrize('case', KNOWN.values(), ids=KNOWN)
def test_what_is_known_is_refused_under_jit(case):
  given, message = case
  given = {**GOOD, **given}
  params = given.pop('params')
  with pytest.raises(attacks.AttackError, match=message):
    jax.jit(lambda params: pgd(params=params, **given))(params)


def test_steps_are_known_at_compilation():
  with pytest.raises(attacks.AttackError, match='static_argnames'):
    jax.jit(lambda steps: pgd(**GOOD, steps=steps))(3)


WRONG_OUTPUTS = {
  'one logit': lambda params, x: APPLY(params, x)[:, :1],
  'no classes': lambda params, x: APPLY(params, x)[:, 0],
  'maps': lambda params, x: x,
  'classes': lambda params, x: jnp.argmax(APPLY(params, x), -1, keepdims=True),
  'another batch': lambda params, x: APPLY(params, x)[:2],
  'a pair': lambda params, x: (APPLY(params, x), x),
}


@pytest.mark.parametrize('apply_fn', WRONG_OUTPUTS.values(), ids=WRONG_OUTPUTS)
def test_outputs_are_logits(apply_fn):
  message = r'must return float logits \(N, K\) with N = 3'
  with pytest.raises(attacks.AttackError, match=message):
    attacks.fgsm(apply_fn, PARAMS, X, TARGET, 0.1)
  with pytest.raises(attacks.AttackError, match=message):
    attacks.least_likely(apply_fn, PARAMS, X, 0.1)
  with pytest.raises(attacks.AttackError, match=message):
    attacks.ensemble([apply_fn], [PARAMS], X)


def test_an_ensemble_is_whole():
  fewer = lambda params, x: APPLY(params, x)[:, :3]
  cases = [
    ([APPLY], [PARAMS] * 2, {}, 'same length, at least 1, got 1 and 2'),
    ([], [], {}, 'same length, at least 1, got 0 and 0'),
    ([APPLY, fewer], [PARAMS] * 2, {}, r'same classes, got logits of \[4, 3\]'),
    ([APPLY], [PARAMS], {'steps': 0}, 'steps must be'),
    ([APPLY], [PARAMS], {'distance_weight': -1}, 'distance_weight must be'),
    ([APPLY], [PARAMS], {'learning_rate': -1}, 'learning_rate must be finite'),
    ([APPLY], [PARAMS], {'learning_rate': np.ones(3)}, 'must be a number, got'),
    ([APPLY], [PARAMS], {'target': TARGET + 9}, 'target .* does not exist'),
  ]
  for apply_fns, params, given, message in cases:
    with pytest.raises(attacks.AttackError, match=message):
      attacks.ensemble(apply_fns, params, X, **given)


def test_measures_take_pictures():
  cases = [
    (lambda: attacks.low_frequency_share(X[0]), 'change must be pictures'),
    (lambda: attacks.low_frequency_share(X, -1), 'cutoff must be finite'),
    (lambda: attacks.low_frequency_share(X > 0), 'change must be floats'),
    (lambda: attacks.object_share(X, X > 0), r'bool of shape \(3, 4, 5\)'),
    (lambda: attacks.object_share(X, X[..., 0]), 'mask must be bool'),
    (lambda: attacks.foreground(X[0], 0.5), 'x must be pictures'),
  ]
  for measure, message in cases:
    with pytest.raises(attacks.AttackError, match=message):
      measure()
