"""What a certificate says is never contradicted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from bort_jax import inversion, nn
from bort_jax.inversion.operator_norm import convolution_norm, norm_bound


def convolution(stride, padding, dilation, groups):
  def apply_fn(kernel, x):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      [(padding, padding)] * 2,
      rhs_dilation=(dilation, dilation),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=groups,
    )

  return apply_fn


@settings(deadline=None, max_examples=10)
@given(
  st.integers(1, 4),
  st.integers(1, 3),
  st.integers(0, 2),
  st.integers(1, 2),
  st.sampled_from((1, 2)),
  st.integers(0, 2**31),
)
def test_norm_of_a_convolution_is_bounded_and_nearly_reached(
  size, stride, padding, dilation, groups, seed
):
  kernel = jax.random.normal(jax.random.key(seed), (size, size, 2, 4))
  apply_fn = convolution(stride, padding, dilation, groups)
  x = jnp.zeros((1, 9, 10, 2 * groups))
  (eqn,) = jax.make_jaxpr(apply_fn)(kernel, x).eqns
  flat = lambda v: apply_fn(kernel, v).reshape(-1)
  matrix = jax.jacobian(flat)(x).reshape(-1, x.size)
  true = np.linalg.svd(matrix, compute_uv=False)[0]
  bound = float(convolution_norm(eqn, kernel, 32))
  assert true <= bound * (1 + 1e-5)
  assert bound <= 1.8 * true  # zeros at the border take a part away


def test_large_convolutions_are_bounded_from_few_frequencies(monkeypatch):
  kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 6))
  x = jnp.zeros((1, 60, 60, 4))
  (eqn,) = jax.make_jaxpr(convolution(1, 1, 1, 1))(kernel, x).eqns
  whole = float(convolution_norm(eqn, kernel, 32))
  module = 'bort_jax.inversion.operator_norm._CHEAP'
  monkeypatch.setattr(module, 0)
  few = [float(convolution_norm(eqn, kernel, n)) for n in (8, 16, 32)]
  assert whole <= few[2] <= few[1] <= few[0] <= 1.5 * whole
  assert few[2] <= 1.03 * whole


@pytest.mark.parametrize('shape', [(3, 7, 5), (2, 300, 310), (1, 1, 1)])
def test_norm_bound(shape):
  matrices = jax.random.normal(jax.random.key(1), shape)
  true = float(jnp.max(jnp.linalg.norm(matrices, 2, axis=(-2, -1))))
  assert true * (1 - 1e-5) <= norm_bound(matrices) <= 1.03 * true
  assert float(norm_bound(0 * matrices)) == 0


NETWORKS = {
  'simple_cnn': (16, 16, 1),
  'patch_net': (8, 8, 1),
  'resnet8': (16, 16, 3),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_no_pair_of_pictures_violates_a_bound(name):
  shape = NETWORKS[name]
  options = {'kernel_sizes': (3, 3, 3)} if name == 'simple_cnn' else {}
  model = nn.create(
    name, image_shape=shape, num_classes=10, rngs=nnx.Rngs(0), **options
  )
  model.eval()
  apply_fn, params = nn.functional(model)
  x = jax.random.uniform(jax.random.key(0), (4, *shape))
  found = inversion.certificate(apply_fn, params, x)
  assert 0 < float(found.lower) <= float(found.upper)
  for segment in found.segments:
    assert segment.unbounded_by is None
    assert float(segment.lower) <= float(segment.upper)
  noise = jax.random.normal(jax.random.key(1), x.shape)
  gradient = jax.grad(lambda v: jnp.sum(apply_fn(params, v) ** 2))(x)
  logits = apply_fn(params, x)
  norm = lambda a: jnp.linalg.norm(a.reshape(len(a), -1), axis=1)
  for direction in (noise, gradient, x):
    for size in (1e-2, 1.0, 30.0):
      step = size * direction / norm(direction)[:, None, None, None]
      moved = norm(apply_fn(params, x + step) - logits)
      assert jnp.all(moved <= found.upper * size * (1 + 1e-4))
  # within the radius nothing moves the prediction
  direction = noise / norm(noise)[:, None, None, None]
  inside = x + 0.999 * found.radius[:, None, None, None] * direction
  moved = jnp.argmax(apply_fn(params, inside), 1)
  assert jnp.array_equal(moved, found.prediction)
  np.testing.assert_array_equal(found.prediction, jnp.argmax(logits, 1))


def test_radius_of_a_linear_classifier_is_the_true_one(float64):
  weights = jnp.array([[1.0, -1.0], [2.0, -2.0]]) / 10**0.5 * 3
  apply_fn = lambda params, x: x @ params
  x = jnp.array([[1.0, 2.0], [-3.0, 0.5]])
  found = inversion.certificate(apply_fn, weights, x)
  difference = weights[:, 0] - weights[:, 1]
  distance = jnp.abs(x @ difference) / jnp.linalg.norm(difference)
  np.testing.assert_allclose(found.radius, distance, rtol=1e-3)


def test_wide_orthogonal_layer_loses_what_is_predicted(float64):
  matrix = jax.nn.initializers.orthogonal()(jax.random.key(0), (64, 24))
  apply_fn = lambda params, x: x @ params
  x = jax.random.normal(jax.random.key(1), (200, 64), jnp.float64)
  found = inversion.certificate(apply_fn, matrix.astype(jnp.float64), x)
  (segment,) = found.segments
  assert float(segment.null_space_share) == pytest.approx(40 / 64)
  assert float(jnp.mean(segment.lost_energy)) == pytest.approx(
    40 / 64, rel=0.03
  )
  assert float(segment.upper) == pytest.approx(1, rel=1e-2)
  np.testing.assert_allclose(found.lost_energy, segment.lost_energy, rtol=1e-6)


UNBOUNDED = {
  'square': lambda _, x: x**2,
  'exponential': lambda _, x: jnp.exp(x),
  'root': lambda _, x: jnp.sqrt(jnp.abs(x)),
  'step': lambda _, x: x + (x > 1).astype(x.dtype),
  'product': lambda _, x: x * jnp.sum(x),
}


@pytest.mark.parametrize('name', UNBOUNDED)
def test_what_stretches_without_limit_is_named(name):
  found = inversion.certificate(UNBOUNDED[name], None, jnp.ones((2, 3)))
  assert jnp.isinf(found.upper)
  assert jnp.all(found.radius == 0)
  assert any(s.unbounded_by for s in found.segments)
  assert 'test_certificate.py' in found.table()


def test_pictures_of_integers_are_refused():
  with pytest.raises(inversion.InversionError, match='floats'):
    inversion.certificate(lambda _, x: x, None, jnp.ones((1, 3), jnp.uint8))
