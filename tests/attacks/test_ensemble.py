"""Pictures that fool several networks at once."""

import attack_helpers as h
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bort_jax import attacks

SHAPE = (4, 5, 4, 1)


def networks():
  params = [h.two_layer_params(SHAPE, 4, seed) for seed in range(3)]
  return [h.two_layers] * 3, params, h.pictures(SHAPE)


def test_all_networks_see_the_least_likely_class():
  apply_fns, params, x = networks()
  found = attacks.ensemble(apply_fns, params, x, distance_weight=0.01)
  log_p = [
    jax.nn.log_softmax(f(p, x)) for f, p in zip(apply_fns, params, strict=True)
  ]
  assert np.array_equal(found.target, jnp.argmin(sum(log_p), axis=-1))
  assert found.success.all()
  assert found.after.shape == (3, 4)
  assert jnp.all((found.x >= 0) & (found.x <= 1))


def test_the_target_may_be_chosen():
  apply_fns, params, x = networks()
  target = jnp.array([0, 1, 2, 3])
  found = attacks.ensemble(
    apply_fns, params, x, target, distance_weight=0.01, steps=300
  )
  assert np.array_equal(found.after, jnp.broadcast_to(target, (3, 4)))


def test_one_network_converges_to_the_stationary_point():
  weights = jax.random.normal(jax.random.key(3), (8, 2))
  x = jnp.full((1, 2, 4, 1), 0.5)
  target = jnp.array([1])
  found = attacks.ensemble(
    [h.linear],
    [weights],
    x,
    target,
    distance_weight=20.0,
    learning_rate=0.001,
    steps=1000,
  )
  residual = jax.grad(
    lambda z: (
      20 * jnp.sum((z - x) ** 2)
      - jax.nn.log_softmax(h.linear(weights, z))[0, 1]
    )
  )(found.x)
  np.testing.assert_allclose(residual, 0, atol=1e-3)


def test_a_greater_weight_keeps_nearer():
  apply_fns, params, x = networks()
  norms = [
    attacks.ensemble(apply_fns, params, x, distance_weight=weight).l2
    for weight in (0.0, 1.0, 100.0, jnp.array([0.0, 0.0, 100.0, 100.0]))
  ]
  assert (norms[0] > norms[1]).all()
  assert (norms[1] > norms[2]).all()
  np.testing.assert_allclose(norms[3][:2], norms[0][:2], rtol=1e-4)
  np.testing.assert_allclose(norms[3][2:], norms[2][2:], rtol=1e-4)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float64'])
def test_bounds_hold_exactly(dtype, float64):
  params = [h.two_layer_params(SHAPE, 4, s, dtype) for s in range(2)]
  bounds = (0.1, 0.7)
  low, high = (jnp.asarray(bound, dtype) for bound in bounds)
  x = jnp.clip(h.pictures(SHAPE, dtype=dtype), low, high)
  found = attacks.ensemble(
    [h.two_layers] * 2, params, x, distance_weight=0, bounds=bounds
  )
  assert found.x.dtype == dtype
  assert jnp.all((found.x >= low) & (found.x <= high))
  assert jnp.any(found.x == low)


def test_networks_may_differ_in_kind():
  _, params, x = networks()
  weights = jax.random.normal(jax.random.key(0), (20, 4))
  found = attacks.ensemble([h.linear, h.two_layers], (weights, params[0]), x)
  assert found.before.shape == (2, 4)


def test_jit_and_vmap_change_nothing():
  apply_fns, params, x = networks()
  attack = lambda params, x: attacks.ensemble(apply_fns, params, x, steps=20)
  eager, jitted = attack(params, x), jax.jit(attack)(params, x)
  np.testing.assert_allclose(eager.x, jitted.x, atol=1e-5)
  both = jax.vmap(attack, (None, 0))(params, jnp.stack([x, 1 - x]))
  np.testing.assert_allclose(both.x[0], eager.x, atol=1e-5)


def test_pictures_do_not_see_each_other():
  apply_fns, params, x = networks()
  together = attacks.ensemble(apply_fns, params, x, steps=20)
  alone = attacks.ensemble(apply_fns, params, x[:1], steps=20)
  np.testing.assert_allclose(together.x[:1], alone.x, atol=1e-5)


def test_a_second_call_traces_nothing():
  _, params, x = networks()
  traces = []

  def apply_fn(params, x):
    traces.append(x)
    return h.two_layers(params, x)

  attacks.ensemble([apply_fn], params[:1], x)
  count = len(traces)
  attacks.ensemble([apply_fn], params[1:2], x, distance_weight=2.0)
  assert len(traces) == count
