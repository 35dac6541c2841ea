"""Relevance: gradient × input without biases, kept in sum, split by rules."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_helpers import (
  CLASSES,
  TARGET,
  cnn,
  conv,
  layers,
  logit,
  parameters,
  pictures,
  residual,
  reused,
  row,
  total,
)

from bort_jax import attribution
from bort_jax.attribution import AttributionError

RELU_NETWORKS = {'cnn': cnn, 'residual': residual, 'reused': reused}
leaky = functools.partial(jax.nn.leaky_relu, negative_slope=0.2)


@pytest.fixture
def given(float64):
  x = pictures(dtype=jnp.float64)
  return parameters(dtype=jnp.float64, bias=0.0), x, TARGET


@pytest.mark.parametrize('name', RELU_NETWORKS)
def test_without_biases_it_is_gradient_times_input(name, given):
  network = RELU_NETWORKS[name]
  found = attribution.lrp(network, *given, epsilon=1e-14)
  product = attribution.gradient_times_input(network, *given)
  np.testing.assert_allclose(found, product, rtol=1e-10, atol=1e-12)
  np.testing.assert_allclose(total(found), logit(network, *given), rtol=1e-10)


def test_leaky_relus_too(given):
  network = lambda params, x: layers(params, x, leaky)['logits']
  found = attribution.lrp(network, *given, epsilon=1e-14)
  product = attribution.gradient_times_input(network, *given)
  np.testing.assert_allclose(found, product, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize('epsilon', [1e-9, 0.25])
def test_two_layers_by_hand(epsilon, float64):
  """R₀ = x W⁰ᵀ s₁, s = R / (z + ε sign z), z with its bias."""
  names = ['kernel', 'bias', 'dense', 'bias2']
  shapes = (72, 9), (9,), (9, CLASSES), (CLASSES,)
  params = {
    name: pictures(shape, i, jnp.float64)
    for i, (name, shape) in enumerate(zip(names, shapes, strict=True))
  }
  x = pictures(dtype=jnp.float64)

  def network(p, x):
    y = jax.nn.relu(x.reshape(len(x), -1) @ p['kernel'] + p['bias'][None])
    return y @ p['dense'] + p['bias2'][None]

  flat = np.asarray(x).reshape(3, -1)
  z = flat @ params['kernel'] + params['bias'][None]
  out = np.asarray(network(params, x))
  stable = lambda z: z + epsilon * np.where(z < 0, -1, 1)
  relevance = out * np.eye(CLASSES)[TARGET]
  hidden = np.maximum(z, 0) * ((relevance / stable(out)) @ params['dense'].T)
  expected = flat * ((hidden / stable(z)) @ params['kernel'].T)
  found = attribution.lrp(network, params, x, TARGET, epsilon=epsilon)
  np.testing.assert_allclose(found.reshape(3, -1), expected, rtol=1e-10)


def test_biases_keep_their_share(float64):
  """Σ R = Σ z less what each bias takes: by hand for one layer."""
  x, kernel = pictures(dtype=jnp.float64), pictures((72, CLASSES), 1)
  bias = pictures((CLASSES,), 2, jnp.float64)
  network = lambda p, x: x.reshape(len(x), -1) @ p[0] + p[1][None]
  params = kernel.astype(jnp.float64), bias
  found = attribution.lrp(network, params, x, TARGET)
  expected = logit(network, params, x) - bias[TARGET]
  np.testing.assert_allclose(total(found), expected, rtol=1e-7)


def test_normalization_in_evaluation_is_part_of_its_layer(given):
  params, x, target = given
  mean, scale = (pictures((5,), seed, jnp.float64) for seed in (1, 2))
  extra = {**params, 'mean': mean, 'scale': scale}

  def normalized(p, x):
    y = conv(x, p['kernel0'])
    y = (y - row(p['mean'], y)) * jax.lax.rsqrt(1e-5 + row(p['scale'] ** 2, y))
    y = jax.nn.relu(y * row(p['scale'], y))
    return jnp.mean(y, (1, 2)) @ p['dense']

  def merged(p, x):
    factor = scale / jnp.sqrt(1e-5 + scale**2)
    y = conv(x, p['kernel0'] * row(factor, p['kernel0']))
    y = jax.nn.relu(y - row(factor * mean, y))
    return jnp.mean(y, (1, 2)) @ p['dense']

  found = attribution.lrp(normalized, extra, x, target, epsilon=0.1)
  expected = attribution.lrp(merged, extra, x, target, epsilon=0.1)
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def z_plus_by_hand(x, params, target):
  """The layers of :func:`dense_relu`, in NumPy."""
  first, second = (np.asarray(p) for p in params)
  a = np.asarray(x).reshape(len(x), -1)
  hidden = np.maximum(a @ first, 0)
  logits = hidden @ second
  relevance = logits * np.eye(second.shape[1])[target]

  def back(a, w, relevance):
    terms = a[:, :, None] * w[None]
    positive = np.maximum(terms, 0)
    chosen = np.where((terms > 0).any(1, keepdims=True), positive, terms)
    below = chosen.sum(1, keepdims=True)
    share = chosen / np.where(below == 0, 1, below)
    return (share * relevance[:, None]).sum(-1)

  return back(a, first, back(hidden, second, relevance)).reshape(x.shape)


def dense_relu(params, x):
  first, second = params
  return jax.nn.relu(x.reshape(len(x), -1) @ first) @ second


def test_z_plus_by_hand(float64):
  params = pictures((72, 9), 1), pictures((9, CLASSES), 2).at[:, 1].set(-1.0)
  params = jax.tree.map(lambda a: a.astype(jnp.float64), params)
  x = pictures(dtype=jnp.float64)
  found = attribution.lrp(
    dense_relu, params, x, TARGET, rule='z_plus', epsilon=0.0
  )
  expected = z_plus_by_hand(x, params, TARGET)
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('name', RELU_NETWORKS)
def test_z_plus_keeps_the_logit_and_its_sign(name, given):
  params, x, _ = given
  network = RELU_NETWORKS[name]
  params = {**params, 'bias1': 0.05 * jnp.ones(5)}
  params['dense'] = abs(params['dense'])
  found = attribution.lrp(network, params, abs(x), TARGET, rule='z_plus')
  np.testing.assert_allclose(
    total(found), logit(network, params, abs(x)), rtol=1e-6
  )
  assert np.all(found >= 0)


def test_z_plus_loses_nothing_where_values_are_negative(given):
  """Channels of few terms, none of which is positive, hand on to the others."""

  def network(params, x):
    y = leaky(conv(x, params['kernel0']))
    y = jax.lax.conv_general_dilated(
      y,
      params['kernel1'][:2, :2, :1],
      (2, 2),
      'VALID',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=5,
    )
    return jnp.mean(leaky(y), (1, 2)) @ params['dense']

  found = attribution.lrp(network, *given, rule='z_plus', epsilon=0.0)
  np.testing.assert_allclose(total(found), logit(network, *given), rtol=1e-9)


def normalized(x):
  return jax.nn.standardize(x, epsilon=1e-5)


def attention(params, x):
  tokens = x.reshape(len(x), -1, x.shape[-1]) @ params['kernel0'][0, 0]
  y = normalized(tokens)
  q, k, v = (y @ params['kernel1'][0, i] for i in range(3))
  weights = jax.nn.softmax(jnp.einsum('nqc,nkc->nqk', q, k))
  tokens = tokens + jnp.einsum('nqk,nkc->nqc', weights, v)
  tokens = tokens + jax.nn.gelu(normalized(tokens) @ params['kernel1'][1, 0])
  return jnp.mean(tokens, 1) @ params['dense']


ACTIVATIONS = {
  'gelu': jax.nn.gelu,
  'exact gelu': functools.partial(jax.nn.gelu, approximate=False),
  'silu': jax.nn.silu,
  'softplus': jax.nn.softplus,
  'elu': jax.nn.elu,
  'tanh': jnp.tanh,
  'relu6': jax.nn.relu6,
  'squared relu': lambda x: jnp.square(jax.nn.relu(x)),
}


@pytest.mark.parametrize('rule', ['epsilon', 'z_plus'])
@pytest.mark.parametrize('name', ACTIVATIONS)
def test_functions_of_one_number_keep_all_relevance(name, rule, given):
  params, x, target = given
  params = jax.tree.map(abs, params) if rule == 'z_plus' else params
  network = lambda p, x: layers(p, x, ACTIVATIONS[name])['logits']
  found = attribution.lrp(network, params, abs(x), target, rule=rule)
  np.testing.assert_allclose(
    total(found), logit(network, params, abs(x)), rtol=1e-5
  )


def test_attention_and_normalization_keep_all_relevance(given):
  params, x, target = given
  params['kernel1'] = 3 * params['kernel1']
  found = attribution.lrp(attention, params, x, target, epsilon=1e-13)
  np.testing.assert_allclose(
    total(found), logit(attention, params, x), rtol=1e-8
  )


def test_weights_of_attention_are_constants(given):
  params, x, target = given

  def network(stop, params, x):
    tokens = x.reshape(len(x), -1, x.shape[-1]) @ params['kernel0'][0, 0]
    q, k, v = (tokens @ params['kernel1'][0, i] for i in range(3))
    weights = jax.nn.softmax(jnp.einsum('nqc,nkc->nqk', q, k))
    mixed = jnp.einsum('nqk,nkc->nqc', stop(weights), v)
    return jnp.mean(mixed, 1) @ params['dense']

  found = attribution.lrp(
    functools.partial(network, lambda w: w), params, x, target, epsilon=1e-14
  )
  expected = attribution.gradient_times_input(
    functools.partial(network, jax.lax.stop_gradient), params, x, target
  )
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


GATES = {
  'one less': lambda g: 1 - jax.nn.sigmoid(g),
  'negated': lambda g: 1 + -jax.nn.sigmoid(g),
  'less one': lambda g: -(jax.nn.sigmoid(g) - 1),
  'mirrored': lambda g: jax.nn.sigmoid(-g),
}


@pytest.mark.parametrize('name', GATES)
def test_gates_get_none_however_they_are_written(name, float64):
  def network(stop, params, x):
    gates = stop(GATES[name](x[:, :3].sum((1, 2))))
    return (gates * x[:, 3:].sum((1, 2))) @ params

  params = pictures((2, CLASSES), 1, jnp.float64)
  args = params, pictures(dtype=jnp.float64), TARGET
  found = attribution.lrp(
    functools.partial(network, lambda gate: gate), *args, epsilon=1e-14
  )
  expected = attribution.gradient_times_input(
    functools.partial(network, jax.lax.stop_gradient), *args
  )
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_other_products_give_half_to_each(float64):
  x = pictures(dtype=jnp.float64)
  network = lambda params, x: (x[:, :3] * x[:, 3:]).sum((1, 2)) @ params
  params = pictures((2, CLASSES), 1, jnp.float64)
  found = attribution.lrp(network, params, x, TARGET, epsilon=1e-14)
  whole = x[:, :3] * x[:, 3:] * params[:, TARGET].T[:, None, None]
  for half in (found[:, :3], found[:, 3:]):
    np.testing.assert_allclose(half, whole / 2, rtol=1e-9)


def test_a_maximum_gives_all_to_the_winner(float64):
  x = pictures(dtype=jnp.float64)
  network = lambda params, x: jnp.max(x, (1, 2)) @ params
  params = pictures((2, CLASSES), 1, jnp.float64)
  found = attribution.lrp(network, params, x, TARGET, epsilon=0.0)
  wins = x == jnp.max(x, (1, 2), keepdims=True)
  expected = jnp.where(wins, x, 0) * params[:, TARGET].T[:, None, None]
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_an_operation_without_a_rule_is_named_with_its_place():
  def network(params, x):
    y = jnp.sum(x, (1, 2))
    return jnp.cumprod(y, axis=1) @ params

  with pytest.raises(
    AttributionError, match=r"'cumprod' \(test_relevance.py:\d+\)"
  ):
    attribution.lrp(network, pictures((2, CLASSES)), pictures(), TARGET)


def test_other_rules_are_refused():
  with pytest.raises(AttributionError, match='epsilon, z_plus'):
    attribution.lrp(
      cnn,
      parameters(),
      pictures(),
      TARGET,
      rule='gamma',  # pyright: ignore
    )
  with pytest.raises(ValueError, match='epsilon must be a finite'):
    attribution.lrp(cnn, parameters(), pictures(), TARGET, epsilon=-1.0)
