"""What every method keeps: shapes, types, chunks, jit, vmap, compilations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_helpers import (
  CLASSES,
  METHODS,
  SHAPE,
  TARGET,
  compilations,
  parameters,
  pictures,
  shallow,
)

from bort_jax import attribution

EVERY = pytest.mark.parametrize('name', METHODS)
PARAMS, X = parameters(), pictures()


def maps_shape(name, shape=SHAPE):
  return (*shape[:3], 1 if name.startswith('grad_cam') else shape[3])


def found(name, **options):
  return METHODS[name](shallow, PARAMS, X, TARGET, **options)


@EVERY
def test_maps_are_like_the_pictures_and_say_something(name):
  maps = found(name)
  assert maps.shape == maps_shape(name)
  assert maps.dtype == X.dtype
  assert np.all(np.isfinite(maps))
  assert np.all(np.ptp(maps, axis=(1, 2, 3)) > 0)


@EVERY
@pytest.mark.parametrize('chunk', [2, 7])
def test_chunks_do_not_change_the_numbers(name, chunk):
  whole = found(name)
  np.testing.assert_allclose(
    found(name, chunk=chunk), whole, rtol=1e-4, atol=1e-6
  )


@EVERY
def test_a_network_never_runs_on_more_than_a_chunk(name):
  seen = []

  def apply_fn(params, x):
    seen.append(len(x))
    return shallow(params, x)

  call = lambda x: METHODS[name](apply_fn, PARAMS, x, TARGET, chunk=2)
  jax.eval_shape(call, X)
  assert seen.count(3) <= 2  # its form is looked up, nothing is computed
  assert set(seen) == {2, 3}


@EVERY
def test_a_second_call_compiles_nothing(name):
  apply_fn = lambda params, x: shallow(params, x)
  others = X + 0.1, (TARGET + 1) % CLASSES
  with compilations() as first:
    METHODS[name](apply_fn, PARAMS, X, TARGET)
  with compilations() as second:
    METHODS[name](apply_fn, PARAMS, *others)
  assert first
  assert not second


@EVERY
def test_they_jit_and_map_over_classes(name):
  of = lambda params, target: METHODS[name](shallow, params, X, target)
  targets = jnp.stack([TARGET, (TARGET + 1) % CLASSES])
  mapped = jax.jit(jax.vmap(of, (None, 0)))(PARAMS, targets)
  for maps, target in zip(mapped, targets, strict=True):
    np.testing.assert_allclose(maps, of(PARAMS, target), rtol=1e-4, atol=1e-6)


@EVERY
def test_classes_that_do_not_exist_get_nan_where_they_are_not_known(name):
  call = lambda target: METHODS[name](shallow, PARAMS, X, target)
  maps = jax.jit(call)(jnp.array([-1, CLASSES, TARGET[2]]))
  assert np.all(np.isnan(maps[:2]))
  np.testing.assert_allclose(maps[2], found(name)[2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  'name', [m for m in METHODS if m != 'expected_gradients']
)
def test_halves_are_about_right(name):
  dtype = 'bfloat16'
  params, x = jax.tree.map(lambda a: a.astype(dtype), (PARAMS, X))
  options = {}
  if name == 'smooth_grad':  # other numbers are drawn for halves
    options = {'key': None, 'noise': 0.1 * pictures((5, *SHAPE), 3)}
  maps = METHODS[name](shallow, params, x, TARGET, **options)
  assert maps.dtype == dtype
  rounded = jax.tree.map(lambda a: a.astype(jnp.float32), (params, x))
  exact = METHODS[name](shallow, *rounded, TARGET, **options)
  error = np.linalg.norm(np.asarray(maps, np.float32) - exact)
  assert error < 0.15 * np.linalg.norm(exact)


@EVERY
def test_64_bits_are_kept(name, float64):
  params, x = parameters(dtype=jnp.float64), pictures(dtype=jnp.float64)
  call = lambda x: METHODS[name](shallow, params, x, TARGET)
  assert jax.eval_shape(call, x).dtype == np.float64


@EVERY
def test_black_pictures_get_finite_numbers(name):
  maps = METHODS[name](shallow, PARAMS, jnp.zeros_like(X), TARGET)
  assert np.all(np.isfinite(maps))


def test_the_table_needs_nothing_but_pictures_and_classes():
  for name, method in attribution.METHODS.items():
    maps = method(shallow, parameters(bias=0.0), X, TARGET)
    assert maps.shape == SHAPE, name
    chunked = method(shallow, parameters(bias=0.0), X, TARGET, chunk=1)
    np.testing.assert_allclose(
      chunked, maps, rtol=1e-3, atol=1e-4, err_msg=name
    )
