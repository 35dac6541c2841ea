"""What is refused, and what the message says to do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_helpers import (
  KEY,
  METHODS,
  TARGET,
  layers,
  parameters,
  pictures,
  shallow,
)

from bort_jax import attribution, inversion
from bort_jax.attribution import AttributionError

PARAMS, X = parameters(), pictures()


@pytest.mark.parametrize(
  ('target', 'message'),
  [
    (None, r'target is missing.*shape \(3,\)'),
    (jnp.array([0, 4, 1]), r'target 4 does not exist.*0 … 3'),
    (jnp.array([0, -1, 1]), 'target -1 does not exist'),
    (4, 'target 4 does not exist'),
    ([0, 1], 'a class for each picture, or one for all'),
    (jnp.zeros((3, 4)), 'a class for each picture, or one for all'),
    (jnp.zeros(3), 'must be integers'),
    (np.array([True, False, True]), 'must be integers'),
  ],
)
def test_targets(target, message):
  with pytest.raises(AttributionError, match=message):
    attribution.gradient(shallow, PARAMS, X, target)


def test_one_class_stands_for_all_pictures():
  explain = lambda target: attribution.gradient(shallow, PARAMS, X, target)
  expected = explain(jnp.full(3, 2))
  np.testing.assert_array_equal(explain(2), expected)
  by_class = jax.vmap(explain)(jnp.arange(4))
  np.testing.assert_allclose(by_class[2], expected, atol=1e-6)


@pytest.mark.parametrize(
  ('x', 'message'),
  [
    (np.zeros((3, 6, 6, 2), np.uint8), 'convert pictures to 0 … 1'),
    (X[0], r'pictures \(N, H, W, C\), got shape'),
    (X.at[1, 2, 3, 0].set(jnp.nan), 'not finite in x'),
    (X.at[1, 2, 3, 0].set(jnp.inf), 'not finite in x'),
  ],
)
def test_pictures(x, message):
  with pytest.raises(AttributionError, match=message):
    attribution.gradient(shallow, PARAMS, x, TARGET)


def test_parameters_that_are_not_finite_are_named():
  params = {**PARAMS, 'dense': PARAMS['dense'].at[0].set(jnp.nan)}
  with pytest.raises(AttributionError, match='not finite in params/dense'):
    attribution.gradient(shallow, params, X, TARGET)


@pytest.mark.parametrize('bad', [jnp.nan, jnp.inf])
def test_one_bad_number_among_many_is_seen(bad):
  params = {**PARAMS, 'unused': jnp.ones((300, 300)).at[7, 9].set(bad)}
  with pytest.raises(AttributionError, match='not finite in params/unused'):
    attribution.gradient(shallow, params, X, TARGET)


@pytest.mark.parametrize('chunk', [0, -1, 1.5, True])
def test_chunks(chunk):
  with pytest.raises(AttributionError, match='chunk must be an integer'):
    attribution.gradient(shallow, PARAMS, X, TARGET, chunk=chunk)


@pytest.mark.parametrize('name', METHODS)
def test_every_method_checks(name):
  for x, target, chunk, message in [
    (X, TARGET + 2, None, 'target 5 does not exist'),
    (X * jnp.nan, TARGET, None, 'not finite in x'),
    (X, TARGET, 0, 'chunk must be'),
  ]:
    with pytest.raises(AttributionError, match=message):
      METHODS[name](shallow, PARAMS, x, target, chunk=chunk)


OUTPUTS = {
  'maps': lambda params, x: x,
  'a number': lambda params, x: jnp.sum(x),
  'integers': lambda params, x: jnp.argmax(x, -1)[:, 0],
  'another batch': lambda params, x: shallow(params, x)[:1],
  'a pair': lambda params, x: (shallow(params, x), x),
}


@pytest.mark.parametrize('name', OUTPUTS)
@pytest.mark.parametrize(
  'method', [attribution.gradient, METHODS['occlusion'], METHODS['lrp']]
)
def test_outputs_that_are_no_logits(method, name):
  with pytest.raises(AttributionError, match=r'logits|inversion\.until'):
    method(OUTPUTS[name], PARAMS, X, TARGET)


def test_of_several_outputs_one_can_be_chosen():
  with pytest.raises(AttributionError, match=r'inversion\.until'):
    attribution.gradient(layers, PARAMS, X, TARGET)
  chosen = inversion.until(layers, 'logits')
  logits = lambda params, x: layers(params, x)['logits']
  np.testing.assert_array_equal(
    attribution.gradient(chosen, PARAMS, X, TARGET),
    attribution.gradient(logits, PARAMS, X, TARGET),
  )


def test_functions_without_a_hash_are_refused():
  class Network:
    __hash__ = None  # pyright: ignore

    def __call__(self, params, x):
      return shallow(params, x)

  with pytest.raises(AttributionError, match='no hash'):
    attribution.gradient(Network(), PARAMS, X, TARGET)


SETTINGS = [
  (attribution.smooth_grad, {}, 'either key'),
  (attribution.smooth_grad, {'key': KEY, 'noise': X[None]}, 'either key'),
  (attribution.smooth_grad, {'noise': X}, r'shape \(samples, 3, 6, 6, 2\)'),
  (attribution.smooth_grad, {'noise': X[None] * jnp.nan}, 'in noise'),
  (attribution.smooth_grad, {'key': KEY, 'samples': 0}, 'samples must be'),
  (attribution.smooth_grad, {'key': KEY, 'stdev': -1.0}, 'stdev must be'),
  (attribution.integrated_gradients, {'steps': 0}, 'steps must be'),
  (attribution.integrated_gradients, {'steps': 2.0}, 'steps must be'),
  (
    attribution.integrated_gradients,
    {'baseline': jnp.ones((6, 5, 2))},
    'baseline must be a number or broadcast',
  ),
  (
    attribution.integrated_gradients,
    {'baseline': jnp.nan},
    'not finite in baseline',
  ),
  (
    attribution.expected_gradients,
    {'key': KEY, 'background': X[0]},
    'background must be pictures',
  ),
  (
    attribution.expected_gradients,
    {'key': KEY, 'background': X[:0]},
    'background must be pictures',
  ),
  (
    attribution.expected_gradients,
    {'key': KEY, 'background': X * jnp.inf},
    'not finite in background',
  ),
  (METHODS['rise'], {'masks': 0}, 'masks must be'),
  (METHODS['rise'], {'cells': 0}, 'cells must be'),
  (METHODS['occlusion'], {'stride': 0}, 'stride must be'),
]


@pytest.mark.parametrize(('method', 'options', 'message'), SETTINGS)
def test_settings(method, options, message):
  with pytest.raises(ValueError, match=message):
    method(shallow, PARAMS, X, TARGET, **options)


def test_attributions_of_another_shape():
  with pytest.raises(AttributionError, match='must have the shape of x'):
    attribution.completeness_delta(shallow, PARAMS, X, TARGET, X[:, :3])


def test_a_function_that_ignores_its_picture():
  constant = lambda params, x: shallow(params, jnp.ones_like(x))
  with pytest.raises(AttributionError, match='does not depend on x'):
    attribution.lrp(constant, PARAMS, X, TARGET)


def test_a_batch_that_does_not_fit_in_memory_names_the_remedy():
  def huge(params, x):
    # more bytes than a process has addresses, and kept from being fused away
    pixel = x[:, 0, 0, :1]
    size = len(x), 2**46
    whole = jax.lax.optimization_barrier(jnp.broadcast_to(pixel, size))
    return shallow(params, x) + jnp.sum(jnp.sin(whole), 1, keepdims=True)

  with pytest.raises(AttributionError, match='does not fit.*chunk=8'):
    attribution.gradient(huge, PARAMS, X, TARGET)


@pytest.mark.parametrize(
  ('error', 'raised'),
  [
    (jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: of 9 GiB'), 'chunk=8'),
    (jax.errors.JaxRuntimeError('INTERNAL: another'), 'INTERNAL'),
    (MemoryError(), 'chunk=8'),
  ],
)
def test_only_memory_is_taken_for_memory(error, raised, monkeypatch):
  def fail(*args):
    raise error

  module = 'bort_jax.attribution.gradients._gradient'
  monkeypatch.setattr(module, fail)
  with pytest.raises((AttributionError, RuntimeError), match=raised):
    attribution.gradient(shallow, PARAMS, X, TARGET)


def test_what_is_not_known_is_not_checked():
  """Under jit, classes are arrays without numbers: they pass."""
  call = jax.jit(functools.partial(attribution.gradient, shallow))
  found = call(PARAMS, X, TARGET)
  np.testing.assert_allclose(
    found, attribution.gradient(shallow, PARAMS, X, TARGET), rtol=1e-5
  )
  outside = call(PARAMS, X, jnp.array([9, 9, 9]))
  assert np.all(np.isnan(outside))
