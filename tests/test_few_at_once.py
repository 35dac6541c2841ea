"""Waiting for other matrices changes nothing but the order."""

from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bort_jax

SHAPES = {'large': (6, 5), 'small': (3, 4), 'wide': (7, 2)}
HARD = bort_jax.keep_orthogonal(steps=2)
CONSTRAINED = {
  'sgd': bort_jax.bort_sgd(0.1, 0.5, momentum=0.9, weight_decay=0.1),
  'adamw': bort_jax.bort_adamw(0.1, 0.5, weight_decay=0.1),
  'in turns': bort_jax.bort_sgd(0.1, 0.5, every=2),
  'the hard form': optax.chain(optax.sgd(0.1), HARD),
}


@pytest.fixture(params=CONSTRAINED)
def tx(request):
  return CONSTRAINED[request.param]


def matrices(seed: int):
  rng = np.random.default_rng(seed)
  return {
    name: {'kernel': jnp.asarray(rng.normal(size=shape), jnp.float32)}
    for name, shape in SHAPES.items()
  }


def update(tx, grads, params):
  return tx.update(grads, tx.init(params), params)[0]


def slope(tx, grads, params):
  total = lambda params: optax.tree.sum(update(tx, grads, params))
  return jax.grad(total)(params)


@pytest.mark.parametrize('function', [update, slope])
def test_numbers_are_the_same(function, tx):
  """Updates to the last bit; their derivatives are summed in another order."""

  def computed():
    return jax.jit(partial(function, tx))(matrices(0), matrices(1))

  ordered = computed()
  with mock.patch.object(jax.lax, 'optimization_barrier', lambda x: x):
    without = computed()
  rtol, atol = (0, 0) if function is update else (1e-5, 1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol, atol),
    ordered,
    without,
  )


def test_a_matrix_hears_nothing_of_the_others(tx):
  grads, params = matrices(0), matrices(1)
  diverged = params | {'large': {'kernel': jnp.full((6, 5), jnp.nan)}}
  program = jax.jit(partial(update, tx))
  clean, beside = program(grads, params), program(grads, diverged)
  for name in ('small', 'wide'):
    jax.tree.map(np.testing.assert_array_equal, clean[name], beside[name])


def test_updates_of_several_networks_are_those_of_each(tx):
  grads, params = matrices(0), matrices(1)
  stack = lambda tree: jax.tree.map(lambda x: jnp.stack([2 * x, x]), tree)
  program = partial(update, tx)
  both = jax.jit(jax.vmap(program))(stack(grads), stack(params))
  jax.tree.map(
    lambda several, one: np.testing.assert_allclose(
      several[1], one, rtol=1e-4, atol=1e-5
    ),
    both,
    jax.jit(program)(grads, params),
  )


@pytest.mark.parametrize('name', ['sgd', 'in turns', 'the hard form'])
def test_eagerly_matrices_may_lie_on_different_devices(name):
  tx, devices = CONSTRAINED[name], jax.devices()
  if len(devices) < 2:
    pytest.skip('needs two devices')
  place = lambda tree: {
    name: jax.device_put(leaf, devices[i % 2])
    for i, (name, leaf) in enumerate(tree.items())
  }
  spread = update(tx, place(matrices(0)), place(matrices(1)))
  jax.tree.map(
    partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
    spread,
    update(tx, matrices(0), matrices(1)),
  )
