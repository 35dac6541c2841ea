"""Attacks whose answer is known, and the laws that all of them keep."""

import attack_helpers as h
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bort_jax import attacks

ATTACKS = {
  'fgsm': attacks.fgsm,
  'pgd-linf': lambda *a, **k: attacks.pgd(*a, steps=3, **k),
  'pgd-l2': lambda *a, **k: attacks.pgd(*a, steps=3, norm='l2', **k),
  'least-likely': lambda f, params, x, _, epsilon, **k: attacks.least_likely(
    f, params, x, epsilon, steps=3, **k
  ),
}
every_attack = pytest.mark.parametrize('attack', ATTACKS.values(), ids=ATTACKS)


def binary():
  weights = jax.random.normal(jax.random.key(3), (24, 2))
  x = h.pictures((5, 3, 4, 2)) * 0.5 + 0.25
  return weights, x, jnp.zeros(5, int)


def equal(left, right):
  return jax.tree.all(jax.tree.map(np.array_equal, left, right))


def test_fgsm_of_a_linear_classifier_is_the_sign_of_its_weights():
  weights, x, target = binary()
  away = attacks.fgsm(h.linear, weights, x, target, 0.1)
  back = attacks.fgsm(h.linear, weights, x, target, 0.1, targeted=True)
  expected = jnp.broadcast_to(0.1 * h.sign_of(weights, x), x.shape)
  np.testing.assert_allclose(away.change, expected, atol=1e-7)
  np.testing.assert_allclose(back.change, -expected, atol=1e-7)


def test_one_step_of_pgd_as_long_as_the_ball_is_fgsm():
  apply_fn, params, x, target = h.network()
  once = attacks.fgsm(apply_fn, params, x, target, 0.05)
  pgd = attacks.pgd(apply_fn, params, x, target, 0.05, steps=1, step_size=0.05)
  assert equal(once, pgd)


@pytest.mark.parametrize('key', [None, jax.random.key(0)])
def test_pgd_l2_of_a_linear_classifier_goes_along_its_weights(key):
  weights, x, target = binary()
  found = attacks.pgd(
    h.linear, weights, x, target, 0.2, norm='l2', step_size=0.4, key=key
  )
  direction = weights[:, 1] - weights[:, 0]
  expected = 0.2 * direction / jnp.linalg.norm(direction)
  expected = jnp.broadcast_to(expected.reshape(1, 3, 4, 2), x.shape)
  np.testing.assert_allclose(found.change, expected, atol=2e-5)
  np.testing.assert_allclose(found.l2, 0.2, rtol=1e-4)


def test_a_classifier_is_fooled_from_its_distance_to_the_border_on():
  weights, x, _ = binary()
  logits = h.linear(weights, x)
  target = jnp.argmax(logits, axis=-1)
  direction = weights[:, 1] - weights[:, 0]
  distance = jnp.abs(logits[:, 1] - logits[:, 0]) / jnp.sum(jnp.abs(direction))
  near = attacks.fgsm(h.linear, weights, x, target, 0.99 * distance)
  far = attacks.fgsm(h.linear, weights, x, target, 1.01 * distance)
  assert not near.success.any()
  assert far.success.all()


def test_least_likely_reaches_the_least_likely_class():
  apply_fn, params, x, _ = h.network()
  found = attacks.least_likely(apply_fn, params, x, 0.6, steps=40)
  assert np.array_equal(found.target, jnp.argmin(apply_fn(params, x), axis=-1))
  assert np.array_equal(found.after, found.target)
  assert found.success.all()


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_targeted_steps_reach_every_class(norm):
  apply_fn, params, x, before = h.network()
  for shift in range(1, 4):
    target = (before + shift) % 4
    found = attacks.pgd(
      apply_fn,
      params,
      x,
      target,
      0.6 if norm == 'linf' else 3.0,
      norm=norm,
      steps=40,
      targeted=True,
    )
    assert np.array_equal(found.before, before)
    assert np.array_equal(found.after, target)
    assert found.success.all()


def test_a_network_however_sure_is_attacked():
  apply_fn, params, x, target = h.network()
  sure = lambda params, x: 1e6 * apply_fn(params, x)
  found = attacks.pgd(sure, params, x, target, 0.5)
  plain = attacks.pgd(apply_fn, params, x, target, 0.5)
  assert found.success.all()
  assert plain.success.all()


@every_attack
def test_without_gradient_nothing_moves(attack):
  _, params, x, target = h.network()
  flat = lambda params, x: jnp.zeros((len(x), 4)) * x.sum()
  found = attack(flat, params, x, target, 0.1)
  assert np.array_equal(found.x, x)
  assert not found.change.any()


@every_attack
def test_radius_zero_returns_the_pictures(attack):
  found = attack(*h.network(), 0)
  assert np.array_equal(found.x, h.network()[2])
  assert np.array_equal(found.before, found.after)


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_radius_zero_has_no_random_start(norm):
  found = attacks.pgd(*h.network(), 0.0, key=jax.random.key(0), norm=norm)
  assert np.array_equal(found.x, h.network()[2])


@every_attack
def test_each_picture_has_its_radius(attack):
  apply_fn, params, x, target = h.network()
  epsilon = jnp.array([0.0, 0.02, 0.3])
  together = attack(apply_fn, params, x, target, epsilon)
  for i in range(3):
    alone = attack(
      apply_fn, params, x[i : i + 1], target[i : i + 1], epsilon[i]
    )
    np.testing.assert_allclose(together.x[i], alone.x[0], atol=1e-6)
  assert together.l2[0] == 0
  assert together.l2[1] < together.l2[2]


@every_attack
def test_jit_and_vmap_change_nothing(attack):
  apply_fn, params, x, target = h.network()
  eager = attack(apply_fn, params, x, target, jnp.float32(0.1))
  jitted = jax.jit(lambda *a: attack(apply_fn, *a))(
    params, x, target, jnp.float32(0.1)
  )
  assert np.array_equal(eager.after, jitted.after)
  np.testing.assert_allclose(eager.x, jitted.x, atol=1e-6)
  radii = jnp.array([0.1, 0.2])
  over_radii = jax.vmap(lambda e: attack(apply_fn, params, x, target, e))(radii)
  np.testing.assert_allclose(over_radii.x[0], eager.x, atol=1e-6)
  assert over_radii.success.shape == (2, 3)


def test_a_second_call_compiles_nothing(caplog):
  _, params, x, target = h.network()
  traces = []

  def apply_fn(params, x):
    traces.append(x)
    return h.two_layers(params, x)

  attacks.pgd(apply_fn, params, x, target, 0.1, bounds=(0.0, 1.0))
  count = len(traces)
  with jax.log_compiles():
    attacks.pgd(apply_fn, params, x, target, 0.2, bounds=(-0.5, 1.5))
  assert len(traces) == count
  assert 'Finished XLA compilation of jit(_pgd)' not in caplog.text


def test_the_key_decides_the_start():
  arguments = (*h.network(), 0.1)
  start = lambda seed, norm: attacks.pgd(
    *arguments, key=jax.random.key(seed), norm=norm, steps=1, step_size=0
  )
  for norm in ('linf', 'l2'):
    assert equal(start(0, norm), start(0, norm))
    assert not equal(start(0, norm), start(1, norm))


def test_the_start_fills_the_ball_evenly():
  n, epsilon = 500, 0.2
  x = jnp.full((n, 1, 2, 1), 0.5)
  weights = jnp.zeros((2, 2))
  for norm in ('linf', 'l2'):
    found = attacks.pgd(
      h.linear,
      weights,
      x,
      jnp.zeros(n, int),
      epsilon,
      norm=norm,
      key=jax.random.key(0),
      steps=1,
    )
    size = found.linf if norm == 'linf' else found.l2
    # of an area, half is within √½ of the radius
    assert abs(float(jnp.mean(size < epsilon / 2**0.5)) - 0.5) < 0.07


def test_steps_below_the_rounding_of_pixels_add_up():
  weights = jnp.tile(jnp.array([[1.0, -1.0]], jnp.bfloat16), (4, 1))
  x = jnp.full((1, 2, 2, 1), 0.9, jnp.bfloat16)
  found = attacks.pgd(h.linear, weights, x, jnp.array([0]), 0.05, steps=200)
  assert found.linf[0] > 0.045


def test_loss_rises_with_more_steps():
  apply_fn, params, x, target = h.network()
  log_p = lambda x: jnp.take_along_axis(
    jax.nn.log_softmax(apply_fn(params, x)), target[:, None], axis=1
  )
  losses = [
    -log_p(attacks.pgd(apply_fn, params, x, target, 0.1, steps=steps).x).mean()
    for steps in (1, 10)
  ]
  assert losses[0] < losses[1]


def test_numpy_arrays_will_do():
  apply_fn, params, x, target = h.network()
  found = attacks.pgd(apply_fn, params, np.asarray(x), np.asarray(target), 0.1)
  assert equal(found, attacks.pgd(apply_fn, params, x, target, 0.1))


def test_bounds_may_be_arrays_under_jit():
  arguments = (*h.network(), 0.1)
  bounds = (jnp.float32(0), jnp.float32(1))
  found = jax.jit(lambda: attacks.fgsm(*arguments, bounds=bounds))()
  np.testing.assert_allclose(found.x, attacks.fgsm(*arguments).x, atol=1e-6)


def test_small_integers_name_classes_of_many():
  x = h.pictures((2, 3, 3, 1))
  weights = jax.random.normal(jax.random.key(0), (9, 300))
  target = np.array([7, 255], np.uint8)
  found = attacks.fgsm(h.linear, weights, x, target, 0.1)
  assert equal(
    found.x, attacks.fgsm(h.linear, weights, x, target.astype(int), 0.1).x
  )


def test_no_pictures_are_no_mistake():
  apply_fn, params, x, target = h.network()
  found = attacks.pgd(apply_fn, params, x[:0], target[:0], 0.1)
  assert found.x.shape == (0, 4, 5, 2)
