"""Gradients, gradients with noise, and along paths."""

from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_helpers import (
  CLASSES,
  KEY,
  SHAPE,
  TARGET,
  cnn,
  logit,
  parameters,
  pictures,
  reused,
  total,
)

from bort_jax import attribution
from bort_jax.attribution.paths import _integrated


def square(params, x):
  """Its gradient is a line: midpoints integrate it exactly."""
  return jnp.square(x).sum((1, 2)) @ params


def test_the_gradient_is_that_of_each_logit(float64):
  params, x = parameters(dtype=jnp.float64), pictures(dtype=jnp.float64)
  found = attribution.gradient(cnn, params, x, TARGET)
  for i, k in enumerate(TARGET):
    one = jax.grad(lambda x, k=k: cnn(params, x[None])[0, k])(x[i])
    np.testing.assert_allclose(found[i], one, rtol=1e-12, atol=1e-14)


def patches(kernel, x):
  """A convolution of patches that do not overlap, as a ViT begins with."""
  y = jax.lax.conv_general_dilated(
    x, kernel, (2, 2), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  return jnp.sin(y).sum((1, 2))


def test_no_slow_convolution_is_left_of_patches():
  kernel, x = pictures((2, 2, SHAPE[-1], CLASSES)), pictures()
  found = attribution.gradient(patches, kernel, x, TARGET)
  one_of_each = lambda x: patches(kernel, x)[jnp.arange(len(x)), TARGET].sum()
  np.testing.assert_allclose(found, jax.grad(one_of_each)(x), atol=1e-5)
  if jax.default_backend() == 'cpu':
    run = lambda x: attribution.gradient(patches, kernel, x, TARGET)
    assert 'conv_general_dilated' not in str(jax.make_jaxpr(run)(x))


def test_the_range_of_each_picture_scales_its_noise(float64):
  weights = pictures((2, CLASSES))
  x = pictures(dtype=jnp.float64) * jnp.array([1, 10, 100]).reshape(3, 1, 1, 1)
  smooth = lambda **options: attribution.smooth_grad(
    square, weights, x, TARGET, key=KEY, samples=64, **options
  )
  exact = attribution.gradient(square, weights, x, TARGET)
  np.testing.assert_allclose(smooth(stdev=0.0), exact, rtol=1e-12)
  spread = jnp.ptp(x, axis=(1, 2, 3))
  scale = 2 * weights[:, TARGET].T[:, None, None]
  noise = (smooth(stdev=0.2) - exact) / scale
  deviation = jnp.std(noise, axis=(1, 2, 3)) * 8 / spread
  np.testing.assert_allclose(deviation, 0.2, rtol=0.25)


def test_noise_can_be_given():
  params, x = parameters(), pictures()
  noise = 0.1 * pictures((4, *SHAPE), 3)
  found = attribution.smooth_grad(cnn, params, x, TARGET, noise=noise)
  each = [attribution.gradient(cnn, params, x + n, TARGET) for n in noise]
  np.testing.assert_allclose(found, np.mean(each, 0), rtol=1e-4, atol=1e-6)


def test_integrated_gradients_are_the_midpoint_rule(float64):
  params, x = parameters(dtype=jnp.float64), pictures(dtype=jnp.float64)
  baseline = pictures((1, 1, 1, 2), 2, jnp.float64)
  found = attribution.integrated_gradients(
    cnn, params, x, TARGET, steps=6, baseline=baseline
  )
  start = jnp.broadcast_to(baseline, x.shape)
  points = [start + (i + 0.5) / 6 * (x - start) for i in range(6)]
  each = [attribution.gradient(cnn, params, p, TARGET) for p in points]
  expected = (x - start) * np.mean(each, 0)
  np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_integrated_gradients_become_complete(float64):
  params, x = parameters(dtype=jnp.float64), pictures(dtype=jnp.float64)
  deltas = []
  for steps in (4, 400):
    report = attribution.integrated_gradients_report(
      cnn, params, x, TARGET, steps=steps, baseline=0.3
    )
    same = attribution.completeness_delta(
      cnn, params, x, TARGET, report.attribution, baseline=0.3
    )
    np.testing.assert_allclose(report.delta, same, atol=1e-14)
    deltas.append(np.max(np.abs(report.delta)))
  assert deltas[1] < 1e-3
  assert deltas[1] < deltas[0] / 20


def test_they_are_exact_where_the_gradient_is_a_line(float64):
  weights, x = pictures((2, CLASSES)), pictures(dtype=jnp.float64)
  found = attribution.integrated_gradients_report(
    square, weights, x, TARGET, steps=1
  )
  expected = jnp.square(x) * weights[:, TARGET].T[:, None, None]
  np.testing.assert_allclose(found.attribution, expected, rtol=1e-12)
  np.testing.assert_allclose(found.delta, 0, atol=1e-12)
  assert not found.is_homogeneous


def test_without_biases_no_step_is_taken(float64):
  params = parameters(dtype=jnp.float64, bias=0.0)
  x = pictures(dtype=jnp.float64)
  for network in (cnn, reused):
    report = attribution.integrated_gradients_report(
      network, params, x, TARGET, steps=3
    )
    assert report.is_homogeneous
    product = attribution.gradient_times_input(network, params, x, TARGET)
    np.testing.assert_array_equal(report.attribution, product)
    np.testing.assert_allclose(report.delta, 0, atol=1e-13)
    np.testing.assert_allclose(
      total(product), logit(network, params, x), rtol=1e-12
    )


@pytest.mark.parametrize('name', ['bias0', 'bias1', 'bias2'])
def test_one_bias_is_enough_to_take_steps(name, float64):
  params = parameters(dtype=jnp.float64, bias=0.0)
  params[name] = params[name].at[2].set(0.2)
  x = pictures(dtype=jnp.float64)
  report = lambda params: attribution.integrated_gradients_report(
    cnn, params, x, TARGET, steps=300
  )
  assert not report(params).is_homogeneous
  assert not jax.jit(report)(params).is_homogeneous
  np.testing.assert_allclose(report(params).delta, 0, atol=1e-3)


def test_another_baseline_takes_steps():
  params, x = parameters(bias=0.0), pictures()
  report = lambda baseline: attribution.integrated_gradients_report(
    cnn, params, x, TARGET, baseline=baseline
  )
  assert report(0.0).is_homogeneous
  assert not report(0.5).is_homogeneous
  assert jax.jit(report)(jnp.zeros((1, 1, 1, 2))).is_homogeneous
  assert not jax.jit(report)(jnp.ones((1, 1, 1, 2))).is_homogeneous


def test_memory_does_not_grow_with_the_steps():
  args = parameters(), pictures(), TARGET, jnp.zeros_like(pictures())

  def memory(steps):
    setting = steps, None, False
    compiled = _integrated.lower(cnn, setting, *args).compile()
    analysis: Any = compiled.memory_analysis()
    return analysis.temp_size_in_bytes

  assert memory(64) <= memory(4) + 4096


def test_expected_gradients_compare_with_the_background(float64):
  weights = pictures((2, CLASSES))
  x, background = pictures(dtype=jnp.float64), pictures((5, *SHAPE[1:]), 4)
  found = attribution.expected_gradients(
    square, weights, x, TARGET, key=KEY, background=background, samples=4000
  )
  # ∫ (x − b) 2 (b + α (x − b)) dα = x² − b², whatever b
  change = jnp.square(x) - jnp.mean(jnp.square(background), 0, keepdims=True)
  expected = change * weights[:, TARGET].T[:, None, None]
  error = np.abs(found - expected)
  assert np.max(error) < 0.2 * np.max(np.abs(expected))
  assert np.mean(error) < 0.05 * np.mean(np.abs(expected))


def test_a_single_background_is_a_baseline(float64):
  linear = lambda params, x: x.sum((1, 2)) @ params
  weights, x = pictures((2, CLASSES)), pictures(dtype=jnp.float64)
  one = pictures((1, *SHAPE[1:]), 4, jnp.float64)
  found = attribution.expected_gradients(
    linear, weights, x, TARGET, key=KEY, background=one, samples=3
  )
  delta = attribution.completeness_delta(
    linear, weights, x, TARGET, found, baseline=one
  )
  np.testing.assert_allclose(delta, 0, atol=1e-12)


@hypothesis.settings(
  max_examples=4,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
@hypothesis.given(
  st.integers(1, 3),
  st.integers(1, 5),
  st.integers(1, 3),
  st.sampled_from(['float16', 'bfloat16', 'float32']),
)
def test_pictures_of_any_size(n, height, channels, dtype):
  shape = n, height, 2, channels
  x = pictures(shape, dtype=jnp.dtype(dtype))
  weights = pictures((channels, 3), 2, jnp.dtype(dtype))
  linear = lambda params, x: x.sum((1, 2)) @ params
  found = attribution.integrated_gradients(linear, weights, x, jnp.ones(n, int))
  assert found.dtype == dtype
  expected = x * weights[:, 1].reshape(1, 1, 1, channels)
  np.testing.assert_allclose(
    found.astype(jnp.float32), expected.astype(jnp.float32), rtol=0.02
  )
