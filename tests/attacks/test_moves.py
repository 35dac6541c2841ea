"""Limits that hold to the last bit."""

from fractions import Fraction

import attack_helpers as h
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort_jax import attacks
from bort_jax.attacks.moves import moved

SHAPE = (2, 3, 5, 3)
DTYPES = ['float32', 'bfloat16', 'float16', 'float64']
BOUNDS = [(0.0, 1.0), (-1.0, 1.0), (-2.1, 3.3)]


def exactly(array):
  return [Fraction(float(v)) for v in np.asarray(array, np.float64).ravel()]


def scaled(x, bounds):
  low, high = (jnp.asarray(bound, x.dtype) for bound in bounds)
  return jnp.clip(low + x * (high - low), low, high)


@settings(deadline=None, max_examples=60)
@given(
  st.sampled_from(DTYPES),
  st.sampled_from(BOUNDS),
  st.sampled_from(['fgsm', 'linf', 'l2']),
  st.one_of(st.floats(1e-6, 5), st.sampled_from([8 / 255, 0.1, 0.3])),
  st.integers(0, 2**16),
)
def test_limits_hold_exactly(dtype, bounds, kind, epsilon, seed):
  with jax.enable_x64(dtype == 'float64'):
    params = h.two_layer_params(SHAPE, 3, dtype=dtype)
    x = scaled(h.pictures(SHAPE, seed, dtype), bounds)
    target = jnp.zeros(SHAPE[0], int)
    arguments = (h.two_layers, params, x, target, epsilon)
    if kind == 'fgsm':
      found = attacks.fgsm(*arguments, bounds=bounds)
    else:
      key = jax.random.key(seed)
      found = attacks.pgd(
        *arguments, norm=kind, key=key, steps=3, bounds=bounds
      )
    low, high = (jnp.asarray(bound, x.dtype) for bound in bounds)
    assert found.x.dtype == dtype
    assert jnp.all((found.x >= low) & (found.x <= high))
    pairs = list(zip(exactly(found.x), exactly(x), strict=True))
    if kind == 'l2':
      assert jnp.all(found.l2 <= epsilon)
      each = np.array([float((a - b) ** 2) for a, b in pairs])
      norms = np.sqrt(each.reshape(SHAPE[0], -1).sum(1))
      assert (norms <= epsilon).all()
    else:
      assert jnp.all(jnp.abs(found.x - x) <= epsilon)
      assert jnp.all(jnp.abs(found.change) <= epsilon)
      assert (np.asarray(found.linf, np.float64) <= epsilon).all()
      assert max(abs(a - b) for a, b in pairs) <= Fraction(epsilon)


@pytest.mark.parametrize('dtype', DTYPES)
def test_a_traced_radius_holds_exactly_too(dtype, float64):
  params = h.two_layer_params(SHAPE, 3, dtype=dtype)
  x = h.pictures(SHAPE, dtype=dtype)
  target = jnp.array([0, 1])
  attack = jax.jit(lambda e: attacks.fgsm(h.two_layers, params, x, target, e))
  for epsilon in (8 / 255, 0.1, 0.3):
    pairs = zip(exactly(attack(epsilon).x), exactly(x), strict=True)
    assert max(abs(a - b) for a, b in pairs) <= Fraction(epsilon)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_a_move_is_the_sum_rounded_towards_the_start(dtype):
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (2000,), dtype)
  size = 2 ** jax.random.uniform(keys[1], (2000,), minval=-20, maxval=2)
  change = size * jax.random.normal(keys[2], (2000,))
  far = (jnp.asarray(-99, dtype), jnp.asarray(99, dtype))
  new = jax.jit(moved)(x, change, far)
  beyond = jnp.nextafter(new, jnp.where(change > 0, 99, -99).astype(dtype))
  for a, b, c, d in zip(*map(exactly, (x, change, new, beyond)), strict=True):
    assert abs(c - a) <= abs(b) < abs(d - a)


def test_the_l2_ball_is_kept_with_many_pixels():
  shape = (20, 64, 48, 3)
  x = jnp.zeros(shape)  # where no rounding towards it shortens changes
  weights = jax.random.normal(jax.random.key(0), (64 * 48 * 3, 2))
  epsilon = np.linspace(0.5, 3, 20, dtype=np.float32)
  found = attacks.pgd(
    h.linear,
    weights,
    x,
    jnp.zeros(20, int),
    epsilon,
    norm='l2',
    bounds=(-1.0, 1.0),
  )
  change = np.asarray(found.x, np.float64) - np.asarray(x, np.float64)
  norms = np.sqrt((change**2).sum((1, 2, 3)))
  assert (norms <= epsilon).all()
  assert (found.l2 <= epsilon).all()
  np.testing.assert_allclose(norms, epsilon, rtol=1e-3)


def test_most_pixels_use_their_whole_radius():
  apply_fn, params, x, target = h.network()
  found = attacks.fgsm(apply_fn, params, x, target, 8 / 255)
  inside = (x > 0.1) & (x < 0.9)
  moves = jnp.abs(found.change)[inside]
  np.testing.assert_allclose(moves, 8 / 255, rtol=1e-5)
