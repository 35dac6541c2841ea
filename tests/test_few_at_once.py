"""Waiting for other matrices changes nothing but the order."""

import contextlib
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bort_jax

SHAPES = {'large': (6, 5), 'small': (3, 4), 'wide': (7, 2)}
CONSTRAINED = {
  'sgd': bort_jax.bort_sgd(0.1, 0.5, momentum=0.9, weight_decay=0.1),
  'adamw': bort_jax.bort_adamw(0.1, 0.5, weight_decay=0.1),
  'in turns': bort_jax.bort_sgd(0.1, 0.5, every=2),
  'the hard form': optax.chain(
    optax.sgd(0.1), bort_jax.keep_orthogonal(steps=2)
  ),
}


def matrices(seed: int):
  rng = np.random.default_rng(seed)
  return {
    name: {'kernel': jnp.asarray(rng.normal(size=shape), jnp.float32)}
    for name, shape in SHAPES.items()
  }


@partial(jax.jit, static_argnums=0)
def updated(tx, grads, params):
  updates, _ = tx.update(grads, tx.init(params), params)
  return updates


@pytest.fixture(params=CONSTRAINED)
def tx(request):
  return CONSTRAINED[request.param]


@pytest.fixture
def waiting_for_nothing():
  """Barriers let everything through, in what is traced within."""
  through = mock.patch.object(jax.lax, 'optimization_barrier', lambda x: x)

  @contextlib.contextmanager
  def lifted():
    updated.clear_cache()
    with through:
      yield
    updated.clear_cache()

  return lifted


def test_numbers_are_the_same_to_the_last_bit(tx, waiting_for_nothing):
  trees = matrices(0), matrices(1)
  ordered = updated(tx, *trees)
  with waiting_for_nothing():
    without = updated(tx, *trees)
  jax.tree.map(np.testing.assert_array_equal, ordered, without)


def test_a_matrix_hears_nothing_of_the_others(tx):
  grads, params = matrices(0), matrices(1)
  diverged = params | {'large': {'kernel': jnp.full((6, 5), jnp.nan)}}
  clean, beside = updated(tx, grads, params), updated(tx, grads, diverged)
  for name in ('small', 'wide'):
    jax.tree.map(np.testing.assert_array_equal, clean[name], beside[name])


def test_updates_of_several_networks_are_those_of_each(tx):
  grads, params = matrices(0), matrices(1)
  stack = lambda tree: jax.tree.map(lambda x: jnp.stack([2 * x, x]), tree)
  both = jax.vmap(partial(updated, tx))(stack(grads), stack(params))
  jax.tree.map(
    lambda several, one: np.testing.assert_allclose(
      several[1], one, rtol=1e-4, atol=1e-5
    ),
    both,
    updated(tx, grads, params),
  )


def test_derivatives_are_those_without(tx, waiting_for_nothing):
  def slopes():
    total = lambda params: optax.tree.sum(updated(tx, matrices(0), params))
    return jax.jit(jax.grad(total))(matrices(1))

  ordered = slopes()
  with waiting_for_nothing():
    without = slopes()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    ordered,
    without,
  )
