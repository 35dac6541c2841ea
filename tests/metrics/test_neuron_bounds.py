"""No attack moves a layer further than its bound."""

import jax
import jax.numpy as jnp
import metric_helpers as h
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort_jax import attacks
from bort_jax.metrics import neurons


def network(params, x):
  """Convolution, pooling, a residual block and two dense layers."""
  first = jax.nn.leaky_relu(h.convolved(x, params['first']), 0.5)
  pooled = first[:, ::2, ::2]
  branch = jax.nn.relu(h.convolved(pooled, params['branch']))
  block = pooled + branch
  code = jnp.max(block, axis=(1, 2))
  hidden = jnp.tanh(code @ params['hidden'])
  return {
    'first': first,
    'branch': branch,  # which the block goes past
    'block': block,
    'code': code,
    'logits': hidden @ params['head'],
  }


LOGITS = lambda params, x: network(params, x)['logits']
SHAPES = {
  'first': (3, 3, 2, 4),
  'branch': (3, 3, 4, 4),
  'hidden': (4, 5),
  'head': (5, 3),
}


def drawn(seed, scale, dtype):
  key = jax.random.key(seed)
  return {
    name: scale * jax.random.normal(jax.random.fold_in(key, i), shape, dtype)
    for i, (name, shape) in enumerate(SHAPES.items())
  }


@settings(max_examples=8, deadline=None)
@given(
  st.integers(0, 10**6),
  st.floats(0.05, 2),
  st.sampled_from([1e-4, 0.05, 0.5]),
)
def test_no_pair_drifts_further_than_its_bound(seed, scale, epsilon):
  with jax.enable_x64(True):
    params = drawn(seed, scale, jnp.float64)
    x = h.pictures((4, 6, 5, 2), seed, jnp.float64)
    labels = jnp.arange(4) % 3
    near = attacks.pgd(LOGITS, params, x, labels, epsilon, steps=3).x
    bounds = neurons.layer_bounds(network, params, x)
    for y in (near, x[::-1]):
      found = neurons.survey_pairs(
        network, params, [(x, y, labels)], num_classes=3
      )
      rows = neurons.summarize(found, jnp.eye(3), bounds)
      for row, likeness in zip(rows, found.likeness, strict=True):
        assert row.drift > 0 or row.layer == 'branch'
        assert row.drift <= row.bound * (1 + 1e-9)
        assert likeness.greatest_stretch <= row.bound / found.change.average
        assert not row.of_bound > 1 + 1e-9


def test_bounds_of_orthogonal_layers_are_reached(float64):
  key = jax.random.key(0)
  matrices = [
    jax.random.orthogonal(jax.random.fold_in(key, i), 8, dtype=jnp.float64)
    for i in (0, 1)
  ]

  def rotated(params, x):
    first = x.reshape(len(x), 8) @ params[0]
    return {'first': first, 'second': 3 * (first @ params[1])}

  x, y = (h.pictures((2, 2, 2, 2), seed, jnp.float64) for seed in (1, 2))
  bounds = neurons.layer_bounds(rotated, matrices, x)
  np.testing.assert_allclose(bounds, [1, 3], rtol=1e-2)
  found = neurons.survey_pairs(
    rotated, matrices, [(x, y, jnp.arange(2))], num_classes=2
  )
  for row in neurons.summarize(found, jnp.eye(2), bounds):
    assert 0.98 < row.of_bound <= 1


def test_a_layer_without_a_bound_says_so():
  def outputs(params, x):
    code = x.reshape(len(x), -1) @ params
    return {'code': code, 'square': code**2, 'after': 0 * code**2}

  x = h.pictures((2, 1, 2, 1))
  bounds = neurons.layer_bounds(outputs, jnp.eye(2), x)
  assert np.isfinite(bounds[0])
  assert np.isinf(bounds[1])
  assert np.isinf(bounds[2]) or bounds[2] == 0


def test_bounds_are_compiled_once():
  params, x = drawn(0, 1, jnp.float32), h.pictures((2, 6, 5, 2))
  neurons.layer_bounds(network, params, x)
  with h.compilations() as count:
    bounds = neurons.layer_bounds(network, drawn(1, 1, jnp.float32), x)
  assert not count
  assert bounds.shape == (5,)
  with pytest.raises(ValueError, match="Did you mean 'first'"):
    neurons.layer_bounds(network, params, x, ['frst'])
