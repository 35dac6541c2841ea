"""Explanations: W itself, its gradients, what is held, and what is refused."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import random_array

from bort_jax import nn
from bort_jax.nn.bcos import (
  BcosConv,
  BcosDense,
  LogitLayer,
  Norm,
  add_inverse,
  dynamic,
  explain,
  explain_all,
  explanation_picture,
  names,
  norm,
  transform,
  two_streams,
)
from bort_jax.nn.bcos.transform import unit_rows


class Small(nnx.Module):
  """Two convolutions with a norm between, the mean and the last layer."""

  def __init__(self, param_dtype: Any = np.float64, kind: Any = 'position'):
    types: Any = {'param_dtype': param_dtype, 'rngs': nnx.Rngs(0)}
    self.encode = nn.bcos.AddInverse(3)
    self.conv1 = BcosConv(6, 4, (3, 3), b=1.5, max_out=2, **types)
    self.norm = Norm(4, kind, **types)
    self.conv2 = BcosConv(4, 5, (3, 3), 2, b=1.5, **types)
    self.last = LogitLayer(5, temperature=0.1)

  def __call__(self, x):
    x = self.norm(self.conv1(self.encode(x)))
    return self.last(jnp.mean(self.conv2(x), axis=(1, 2)))


def pictures(count=3):
  return jnp.asarray(np.random.default_rng(0).uniform(size=(count, 6, 6, 3)))


@pytest.fixture
def small(float64):
  return nn.functional(Small())


def test_w_is_the_product_of_the_matrices_of_the_layers(float64):
  types: Any = {'param_dtype': np.float64, 'rngs': nnx.Rngs(0)}
  first = BcosDense(4, 5, b=2, max_out=2, **types)
  middle = Norm(5, 'position', centered=True, **types)
  second = BcosDense(5, 3, b=2.5, **types)
  model: Any = nnx.Sequential(first, middle, second)
  x = random_array(0, (1, 4))

  units = np.asarray(unit_rows(first.kernel[...])).T @ x[0]
  picked = np.argmax(units.reshape(5, 2), axis=1) + 2 * np.arange(5)
  cosine = np.abs(units[picked]) / (np.linalg.norm(x) + 1e-12)
  matrix1 = np.diag(cosine) @ np.asarray(unit_rows(first.kernel[...])).T[picked]
  y = matrix1 @ x[0]
  centring = np.eye(5) - 1 / 5
  matrix2 = centring / np.sqrt(np.var(y) + 1e-5)
  z = matrix2 @ y
  rows = np.asarray(unit_rows(second.kernel[...])).T
  cosine = np.abs(rows @ z) / (np.linalg.norm(z) + 1e-12)
  matrix3 = np.diag((cosine + 1e-6) ** 1.5) @ rows

  apply_fn, params = nn.functional(model)
  frozen = two_streams(apply_fn, params, jnp.asarray(x))
  got = jax.jacobian(lambda v: frozen.linear(v)[0])(jnp.asarray(x))[:, 0]
  np.testing.assert_allclose(got, matrix3 @ matrix2 @ matrix1, rtol=1e-10)


def test_w_is_linear_and_not_the_gradient_which_sums_to_the_logit_too(float64):
  model = Small(kind='batch')
  model.eval()
  apply_fn, params = nn.functional(model)
  x = add_inverse(pictures())
  target = jnp.array([0, 3, 4])
  out = explain(apply_fn, params, x, target)
  frozen = two_streams(apply_fn, params, x)
  v = jnp.asarray(random_array(1, x.shape))
  _, slope = jax.jvp(frozen.linear, (x,), (v,))
  pick = lambda a: jnp.take_along_axis(a, target[:, None], 1)[:, 0]
  product = jnp.sum(out.weights * v, axis=(1, 2, 3))
  np.testing.assert_allclose(product, pick(slope), rtol=1e-10)
  np.testing.assert_array_equal(frozen.linear(x), frozen.output)
  np.testing.assert_allclose(pick(frozen.output), out.logit, rtol=1e-12)

  logit = lambda x: jnp.sum(pick(apply_fn(params, x)))
  plain = jax.grad(logit)(x)
  # Euler: of a function of degree 1, this sum says nothing of W.
  degree = jnp.sum(plain * x, axis=(1, 2, 3))
  np.testing.assert_allclose(degree, out.contribution, rtol=0.05)
  difference = jnp.linalg.norm(plain - out.weights)
  assert difference > 0.3 * jnp.linalg.norm(out.weights)


def test_an_explanation_says_what_the_logit_is_made_of(small):
  apply_fn, params = small
  x = pictures()
  out = explain_all(apply_fn, params, x)
  logits = apply_fn(params, x)
  np.testing.assert_allclose(out.logit, logits, rtol=1e-12)
  np.testing.assert_allclose(out.logit_bias, -np.log(4), rtol=1e-6)
  np.testing.assert_array_equal(out.constant, 0)
  assert np.abs(out.completeness_error).max() < 1e-12
  np.testing.assert_array_equal(out.encoded, add_inverse(x))
  total = jnp.sum(out.contribution_map, axis=(2, 3))
  np.testing.assert_allclose(out.contribution, total, rtol=1e-10)
  np.testing.assert_allclose(total, logits - out.logit_bias, rtol=1e-10)


def test_all_classes_in_chunks_are_the_classes_one_by_one(small):
  apply_fn, params = small
  x = pictures()
  every = explain_all(apply_fn, params, x)
  chunked = explain_all(apply_fn, params, x, chunk=3)
  for a, b in zip(every, chunked, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
  one = explain(apply_fn, params, x, jnp.full(3, 2))
  again = explain(apply_fn, params, x, jnp.full(3, 2))
  coded = explain(apply_fn, params, add_inverse(x), jnp.full(3, 2))
  for a, b, c in zip(one, again, coded, strict=True):
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(a, c, rtol=1e-12, atol=1e-14)
  np.testing.assert_allclose(every.weights[:, 2], one.weights, rtol=1e-9)


def test_one_class_at_a_time_needs_the_memory_of_one():
  rngs = nnx.Rngs(0)
  convs = [BcosConv(i, 64, (3, 3), rngs=rngs) for i in (6, 64, 64)]
  apply_fn, params = nn.functional(nnx.Sequential(*convs))
  mean = lambda params, x: jnp.mean(apply_fn(params, x), axis=(1, 2))
  x = jnp.ones((2, 16, 16, 6))

  def temporary(explain):
    run = jax.jit(lambda params, x: explain(mean, params, x))
    stats: Any = run.lower(params, x).compile().memory_analysis()
    return stats.temp_size_in_bytes

  one = temporary(partial(explain, target=jnp.zeros(2, int)))
  assert temporary(explain_all) < 1.5 * one
  assert temporary(partial(explain_all, chunk=64)) > 3 * one


def test_explains_under_jit_and_vmap_and_compiles_once(small):
  calls = []
  apply_fn, params = small

  def counting(params, x):
    calls.append(1)
    return apply_fn(params, x)

  x = pictures()
  run = partial(explain, counting, params, x)
  out = run(jnp.array([0, 1, 2]))
  traced = len(calls)
  run(jnp.array([2, 1, 0]))
  assert len(calls) == traced
  jitted = jax.jit(run)(jnp.array([0, 1, 2]))
  np.testing.assert_allclose(jitted.weights, out.weights, rtol=1e-10)
  targets = jnp.array([[0, 1, 2], [2, 2, 2]])
  many = jax.vmap(run)(targets)
  np.testing.assert_allclose(many.weights[0], out.weights, rtol=1e-10)


def energy(apply_fn, params, x):
  """A loss on an explanation: the share of W on the left half."""
  weights = explain(apply_fn, params, x, jnp.array([0, 3, 4])).weights
  return jnp.sum(weights[:, :, :3] ** 2) / jnp.sum(weights**2)


def test_the_gradient_of_a_loss_on_explanations_is_right(small, monkeypatch):
  apply_fn, params = small
  x = pictures()
  loss = lambda params: energy(apply_fn, params, x)
  keys = iter(jax.random.split(jax.random.key(0), 9))
  along = jax.tree.map(
    lambda p: jax.random.normal(next(keys), p.shape, p.dtype), params
  )
  move = lambda t: jax.tree.map(lambda p, d: p + t * d, params, along)
  step = 1e-5
  expected = (loss(move(step)) - loss(move(-step))) / (2 * step)
  slope = lambda loss: sum(
    jnp.vdot(g, d)
    for g, d in zip(
      jax.tree.leaves(jax.grad(loss)(params)),
      jax.tree.leaves(along),
      strict=True,
    )
  )
  np.testing.assert_allclose(slope(loss), expected, rtol=1e-6)

  stopped = lambda x: jax.lax.stop_gradient(dynamic(x))
  for module in (transform, norm):
    monkeypatch.setattr(module, 'dynamic', stopped)
  detached = lambda params, x: apply_fn(params, x)
  wrong = slope(lambda params: energy(detached, params, x))
  assert abs(wrong - expected) > 0.1 * abs(expected)


def test_loops_calls_and_remat_are_taken_apart(float64):
  kernels = jnp.asarray(random_array(0, (3, 4, 4)))

  @jax.jit
  def layer(x, kernel):
    y = x @ kernel
    return dynamic(jnp.abs(y)) * y

  def plain(params, x):
    for kernel in params:
      x = layer(x, kernel)
    return x

  def looped(params, x, reverse=False):
    body = jax.checkpoint(lambda x, kernel: (layer(x, kernel), x[0, 0]))
    return jax.lax.scan(body, x, params, reverse=reverse)[0]

  x = jnp.asarray(random_array(1, (2, 4)))
  expected = jax.jacobian(two_streams(plain, kernels, x).linear)(x)
  got = jax.jacobian(two_streams(looped, kernels, x).linear)(x)
  np.testing.assert_allclose(got, expected, rtol=1e-12)
  reversed_ = partial(looped, reverse=True)
  got = jax.jacobian(two_streams(reversed_, kernels[::-1], x).linear)(x)
  np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_what_is_named_in_a_branch_is_refused():
  branch = lambda x: dynamic(x) * x
  function = lambda p, x: jax.lax.cond(p > 0, branch, branch, x)
  with pytest.raises(ValueError, match="inside 'cond'"):
    two_streams(function, 1.0, jnp.ones(2))


def test_two_codings_in_one_function_are_refused():
  function = lambda p, x: names.encoded(x) + names.encoded(2 * x)
  with pytest.raises(ValueError, match='2 inputs are encoded'):
    two_streams(function, None, jnp.ones(2))


def test_networks_that_are_linear_by_pieces_are_explained_exactly(float64):
  kernel = jnp.asarray(random_array(0, (3, 3, 2, 4)))
  head = jnp.asarray(random_array(1, (4, 3)))

  def function(params, x):
    kernel, head = params
    x = jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    x = nnx.leaky_relu(nnx.max_pool(nnx.relu(x), (2, 2), strides=(2, 2)) - 0.1)
    return jnp.max(jnp.clip(x, -0.05, 3.0), axis=(1, 2)) @ head + 0.25

  x = jnp.asarray(random_array(2, (2, 6, 6, 2))).at[0].set(0)
  target = jnp.array([1, 2])
  out = explain(function, (kernel, head), x, target)
  logit = lambda x: jnp.sum(function((kernel, head), x)[jnp.arange(2), target])
  np.testing.assert_allclose(out.weights, jax.grad(logit)(x), rtol=1e-12)
  assert np.abs(out.completeness_error).max() < 1e-13
  assert np.abs(out.constant).min() > 0.01


def test_what_is_neither_dynamic_nor_linear_shows_as_an_error(float64):
  function = lambda p, x: jnp.tanh(x.sum(axis=(1, 2)))
  out = explain(function, None, pictures(), jnp.zeros(3, int))
  assert np.abs(out.completeness_error).min() > 0.01


def test_batch_statistics_of_training_are_held(float64):
  model = nn.bcos.BcosCifarResNet(
    (8, 8, 3), 4, depth=8, param_dtype=np.float64, rngs=nnx.Rngs(0)
  )
  apply_fn, params = nn.functional(model)
  out = explain(apply_fn, params, pictures(), jnp.array([0, 1, 2]))
  np.testing.assert_allclose(
    out.contribution, out.logit - out.logit_bias, rtol=1e-10
  )


@pytest.mark.parametrize(
  ('change', 'error', 'said'),
  [
    ({'x': jnp.ones((3, 6, 6, 3), int)}, TypeError, 'scale pictures'),
    ({'target': jnp.zeros(3)}, ValueError, 'must be integers'),
    ({'target': jnp.zeros(2, int)}, ValueError, r'shape \(3,\)'),
    ({'target': jnp.full(3, 5)}, ValueError, 'target 5 does not exist'),
    ({'target': jnp.full(3, -1)}, ValueError, 'target -1 does not exist'),
    ({'output': 'scores'}, ValueError, "no output 'scores'; there are logits"),
    (
      {'apply_fn': lambda p, x: x, 'params': None},
      ValueError,
      r'logits \(N, K\)',
    ),
  ],
)
def test_what_cannot_be_explained_is_refused(change, error, said):
  apply_fn, params = nn.functional(Small(np.float32))
  named = lambda params, x: {'logits': apply_fn(params, x)}
  given = {
    'apply_fn': named,
    'params': params,
    'x': pictures().astype(np.float32),
    'target': jnp.zeros(3, int),
  }
  with pytest.raises(error, match=said):
    explain(**(given | change))


def test_chunks_are_counted_in_whole_classes():
  apply_fn, params = nn.functional(Small(np.float32))
  with pytest.raises(ValueError, match='chunk .* got 0'):
    explain_all(apply_fn, params, jnp.ones((1, 6, 6, 3)), chunk=0)


@pytest.mark.parametrize('smooth', [0, 1, 4, 5])
def test_pictures_are_finite_where_weights_are_zero(smooth):
  x = add_inverse(pictures().astype(np.float32))
  weights = jnp.asarray(random_array(0, x.shape, np.float32)).at[0].set(0)
  picture = explanation_picture(weights, x, smooth=smooth)
  assert picture.shape == (3, 6, 6, 4)
  assert np.all(np.isfinite(picture))
  assert picture.min() >= 0
  assert picture.max() <= 1
  np.testing.assert_array_equal(picture[0, ..., 3], 0)


def test_an_even_window_is_a_mean_with_zeros_around():
  x = jnp.ones((1, 2, 2, 2))
  picture = explanation_picture(x, x, smooth=2, percentile=100)
  # windows reach to the right and down
  np.testing.assert_allclose(picture[0, ..., 3], [[1, 0.5], [0.5, 0.25]])
  np.testing.assert_allclose(picture[0, ..., :3], 0.5)


@pytest.mark.parametrize(
  ('shape', 'options', 'said'),
  [
    ((1, 4, 4, 5), {}, 'got 5'),
    ((4, 4, 6), {}, r'\(4, 4, 6\)'),
    ((1, 4, 4, 6), {'smooth': -1}, 'smooth .* got -1'),
    ((1, 4, 4, 6), {'percentile': 101.0}, 'percentile .* got 101.0'),
  ],
)
def test_what_cannot_be_drawn_is_refused(shape, options, said):
  x = jnp.ones(shape)
  with pytest.raises(ValueError, match=said):
    explanation_picture(x, x, **options)
