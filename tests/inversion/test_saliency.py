"""Saliency: compiled once, in 0 … 1, and as precise as what runs back."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bort_jax import inversion
from bort_jax.inversion.invert import _invert

CONFIG: Any = jax.config
KERNEL = jax.nn.initializers.orthogonal()(jax.random.key(0), (9, 9))
KERNEL = KERNEL.reshape(3, 3, 1, 9)
HEAD = jax.random.normal(jax.random.key(1), (9, 5))
PARAMS = KERNEL, HEAD
X = jax.random.uniform(jax.random.key(2), (2, 12, 12, 1))
TARGET = jnp.array([1, 4])


def make_network(bias: float = 0.0) -> Callable[[Any, jax.Array], Any]:
  """A function that nothing has been compiled for."""

  def apply_fn(params, x):
    kernel, head = params
    code = bias + jax.lax.conv_general_dilated(
      x, kernel, (3, 3), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    return {'code': code, 'logits': jnp.mean(code, (1, 2)) @ head}

  return apply_fn


def saliency(apply_fn, x, **options):
  return inversion.saliency(apply_fn, PARAMS, x, layer='code', **options)


def class_saliency(apply_fn, x):
  return inversion.class_saliency(apply_fn, PARAMS, x, TARGET, layer='code')


def backtrack(apply_fn, x):
  return inversion.backtrack(apply_fn, PARAMS, x, layer='code', channel=3)


METHODS = pytest.mark.parametrize(
  'method', [saliency, class_saliency, backtrack]
)


@contextlib.contextmanager
def compilations():
  """Counts what is compiled meanwhile."""
  count = []

  def listen(event, *_, **__):
    if event.endswith('backend_compile_duration'):
      count.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield count
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


@METHODS
def test_a_second_call_compiles_nothing(method):
  apply_fn, others = make_network(), X + 0.1
  with compilations() as first:
    method(apply_fn, X)
  with compilations() as second:
    method(apply_fn, others)
  assert first
  assert not second


def test_levels_are_no_reason_to_compile():
  apply_fn = make_network()
  plain = saliency(apply_fn, X)
  with compilations() as again:
    other = saliency(apply_fn, X, threshold=0.5)
  assert not again
  assert jnp.any(other != plain)


@METHODS
def test_forward_passes_are_of_the_precision_of_those_backwards(method):
  seen = []
  network = make_network()

  def apply_fn(params, x):
    seen.append(CONFIG.jax_default_matmul_precision)
    return network(params, x)

  method(apply_fn, X)
  assert set(seen) == {'highest'}


@pytest.mark.parametrize('skip_border', [True, False])
def test_units_that_never_respond_do_not_count(skip_border):
  found = saliency(make_network(-9.0), X, skip_border=skip_border)
  np.testing.assert_array_equal(found, 0)
  found = saliency(make_network(-0.5), X, skip_border=skip_border)
  assert 0 <= float(found.min()) <= float(found.max()) <= 1


@pytest.mark.parametrize('height', [3, 6])
def test_a_map_that_is_border_all_over_is_refused(height):
  apply_fn = make_network()
  x = X[:, :height]
  with pytest.raises(inversion.InversionError, match='skip_border=False'):
    saliency(apply_fn, x)
  assert saliency(apply_fn, x, skip_border=False).shape == (2, height, 12, 1)


@METHODS
def test_functions_without_a_hash_are_refused(method):
  class Unhashable:
    __hash__: Any = None

    def __call__(self, params, x):
      return make_network()(params, x)

  with pytest.raises(inversion.InversionError, match='Unhashable.*no hash'):
    method(Unhashable(), X)


@METHODS
def test_jit_equals_eager(method):
  apply_fn = make_network()
  jitted = jax.jit(lambda x: method(apply_fn, x))
  np.testing.assert_allclose(jitted(X), method(apply_fn, X), atol=1e-6)


def test_classes_and_channels_that_do_not_exist_are_undefined_under_jit():
  apply_fn = make_network()
  of_class = lambda x, t: inversion.class_saliency(
    apply_fn, PARAMS, x, t, layer='code'
  )
  of_channel = lambda x, c: inversion.backtrack(
    apply_fn, PARAMS, x, layer='code', channel=c
  )
  for method, count in ((of_class, 5), (of_channel, 9)):
    found = jax.jit(method)(X, jnp.array([count, count - 1]))
    assert jnp.isnan(found[0]).all()
    assert jnp.isfinite(found[1]).all()


@pytest.mark.parametrize('wrong', [0, 1.5, -3])
def test_numbers_of_channels_are_checked(wrong):
  for method in (inversion.saliency, inversion.class_saliency):
    with pytest.raises(ValueError, match='num_channels must be an integer'):
      method(
        make_network(), PARAMS, X, TARGET, layer='code', num_channels=wrong
      )


def test_what_fails_says_so():
  with pytest.raises(inversion.InversionError, match='not finite'):
    inversion.saliency(
      make_network(), (KERNEL * jnp.nan, HEAD), X, layer='code'
    )


def test_one_code_is_run_back_by_one_program():
  cached: Any = _invert
  apply_fn, before = make_network(), cached._cache_size()
  for channel in range(3):
    inversion.backtrack(
      apply_fn, PARAMS, X, layer='code', channel=channel, position=(1, 2)
    )
  assert cached._cache_size() == before + 1
