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


@settings(deadline=None, max_examples=5)
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
  # Its response is largest between the frequencies of a grid, in both
  # dimensions: a bound from one of them alone would be too small.
  turn = 2 * np.pi * (1.5 / 8)
  wave = np.cos(turn * np.arange(3))
  kernel = jnp.asarray(np.multiply.outer(wave, wave)[..., None, None])
  x = jnp.zeros((1, 90, 70, 1))
  (eqn,) = jax.make_jaxpr(convolution(1, 1, 1, 1))(kernel, x).eqns
  whole = float(convolution_norm(eqn, kernel, 32))
  monkeypatch.setattr('bort_jax.inversion.operator_norm._CHEAP', 0)
  for frequencies, limit in ((8, 1.5), (16, 1.1), (32, 1.03)):
    few = float(convolution_norm(eqn, kernel, frequencies))
    assert whole * (1 - 1e-5) <= few <= limit * whole


W = jax.random.normal(jax.random.key(5), (10, 10))
AXES = (((2,), (0,)), ((), ()))
LINEAR = {
  'spread by a sum': (lambda x: x + jnp.sum(x), (1, 10)),
  'spread by a product': (lambda x: jnp.sum(x) * jnp.ones((1, 10)), (1, 10)),
  'spread by a choice': (
    lambda x: jnp.where(jnp.arange(10) < 3, jnp.sum(x), x[0]),
    (1, 10),
  ),
  'equal shapes': (
    lambda x: jax.lax.dot_general(
      x, jnp.zeros((3, 3, 3)).at[0].set(jnp.eye(3)), AXES
    ),
    (3, 3, 3),
  ),
  'kernel first': (lambda x: W[:4] @ x, (10, 3)),
  'concatenation': (lambda x: jnp.concatenate([x, 2 * x, x[:, :3]], 1), (2, 5)),
  'repeats': (lambda x: jnp.repeat(x, 3, axis=1), (2, 5)),
  'gather': (lambda x: x[:, jnp.array([0, 0, 0, 2])], (2, 5)),
  'interior pad': (
    lambda x: jax.lax.pad(x, 0.0, [(1, 0, 2), (-1, 2, 0)]),
    (4, 5),
  ),
  'cumulative sum': (lambda x: jnp.cumsum(x, axis=1), (2, 6)),
  'window sum': (
    lambda x: jax.lax.reduce_window(
      x, 0.0, jax.lax.add, (1, 3), (1, 2), 'SAME'
    ),
    (2, 9),
  ),
  'mean and reshape': (lambda x: jnp.mean(x.reshape(3, 4, 2), 1), (2, 12)),
  'division': (lambda x: x / jnp.linspace(0.1, 2, 5), (2, 5)),
  'halves': (lambda x: sum(jnp.split(x, 2, axis=1)), (2, 6)),
  'scan over layers': (
    lambda x: jax.lax.scan(lambda h, w: (h @ w, None), x, W[None][:, :, :])[0],
    (1, 10),
  ),
}


@pytest.mark.parametrize('name', LINEAR)
def test_every_linear_operation_is_bounded(name):
  function, shape = LINEAR[name]
  with jax.numpy_rank_promotion('allow'):
    x = jax.random.normal(jax.random.key(0), shape)
    matrix = jax.jacobian(lambda v: function(v).ravel())(x).reshape(-1, x.size)
    true = float(jnp.linalg.norm(matrix, 2))
    found = inversion.certificate(lambda _, x: function(x), None, x)
  assert true * (1 - 1e-5) <= float(found.upper) <= 4.5 * true
  assert float(found.lower) <= float(found.upper)


@pytest.mark.parametrize('dtype', [jnp.float16, jnp.float32])
def test_tiny_and_huge_kernels_neither_vanish_nor_overflow(dtype):
  for scale in (1e-4, 300.0) if dtype == jnp.float16 else (1e-23, 1e23):
    kernel = (scale * jnp.eye(3)).astype(dtype)
    bound = float(norm_bound(kernel))
    assert bound == pytest.approx(float(kernel[0, 0]), rel=0.01)


def test_derivatives_of_the_users_own_are_not_taken_for_the_functions():
  @jax.custom_jvp
  def misleading(x):
    return 2 * x

  misleading.defjvp(lambda x, t: (2 * x[0], 200 * t[0]))

  @jax.custom_vjp
  def reverse_only(x):
    return 3 * x

  reverse_only.defvjp(lambda x: (3 * x, None), lambda _, g: (3 * g,))
  apply_fn = lambda _, x: reverse_only(misleading(x))
  found = inversion.certificate(apply_fn, None, jnp.ones((2, 4)))
  assert float(found.lower) == pytest.approx(6, rel=1e-3)
  assert float(found.upper) == pytest.approx(6, rel=1e-3)


def test_one_output_the_identity_and_what_has_no_limit():
  sums = lambda _, x: x @ jnp.ones((10, 1))
  found = inversion.certificate(sums, None, jnp.ones((1, 10)))
  assert float(found.lower) == pytest.approx(10**0.5, rel=1e-3)
  assert jnp.isnan(found.radius[0])
  found = inversion.certificate(lambda _, x: x, None, jnp.ones((1, 3)))
  assert float(found.upper) == pytest.approx(float(found.lower)) == 1
  nothing = lambda _, x: x**2 @ jnp.zeros((3, 2))
  found = inversion.certificate(nothing, None, jnp.ones((1, 3)))
  assert jnp.isinf(found.upper)
  with pytest.raises(inversion.InversionError, match='not finite in params'):
    inversion.certificate(lambda w, x: w * x, jnp.full(3, jnp.nan), jnp.ones(3))


def test_parameters_that_are_known_are_read_under_jit():
  scaled = lambda w, x: w[None] * x
  upper = lambda w: jax.jit(lambda x: inversion.certificate(scaled, w, x).upper)
  assert upper(jnp.full(3, 2.0))(jnp.ones((1, 3))) == pytest.approx(2, rel=1e-3)
  with pytest.raises(inversion.InversionError, match='not finite in params'):
    upper(jnp.full(3, jnp.nan))(jnp.ones((1, 3)))


def test_one_nan_among_many_numbers_leaves_no_bound():
  matrices = jnp.ones((40, 64, 64)).at[3, 5, 7].set(jnp.nan)
  assert jnp.isnan(jax.jit(norm_bound)(matrices))


@pytest.mark.parametrize('shape', [(3, 7, 5), (2, 300, 310), (1, 1, 1)])
def test_norm_bound(shape):
  matrices = jax.random.normal(jax.random.key(1), shape)
  true = float(jnp.max(jnp.linalg.norm(matrices, 2, axis=(-2, -1))))
  assert true * (1 - 1e-5) <= norm_bound(matrices) <= 1.03 * true
  assert float(norm_bound(0 * matrices)) == 0


NETWORKS = {
  'simple_cnn': (
    (8, 8, 1),
    {'kernel_sizes': (3, 3, 3), 'widths': (4, 6, 8, 10, 12)},
  ),
  'patch_net': ((8, 8, 1), {}),
  'resnet8': ((8, 8, 3), {}),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_no_pair_of_pictures_violates_a_bound(name):
  shape, options = NETWORKS[name]
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
  gradient = jax.jit(jax.grad(lambda v: jnp.sum(apply_fn(params, v) ** 2)))(x)
  apply = jax.jit(apply_fn)
  logits = apply(params, x)
  norm = lambda a: jnp.linalg.norm(a.reshape(len(a), -1), axis=1)
  for direction in (noise, gradient, x):
    for size in (1e-2, 1.0, 30.0):
      step = size * direction / norm(direction)[:, None, None, None]
      moved = norm(apply(params, x + step) - logits)
      assert jnp.all(moved <= found.upper * size * (1 + 1e-4))
  # within the radius nothing moves the prediction
  direction = noise / norm(noise)[:, None, None, None]
  inside = x + 0.999 * found.radius[:, None, None, None] * direction
  moved = jnp.argmax(apply(params, inside), 1)
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
