"""What comes back exactly, and what is lost where something is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from bort_jax import inversion, nn, spectrum

orthogonal = jax.nn.initializers.orthogonal


def convolution(stride, padding):
  def apply_fn(kernel, x):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      [(padding, padding)] * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  return apply_fn


def kernel_of(size, channels, outputs, dtype, amplitude=1.0):
  shape = (size * size * channels, outputs)
  matrix = orthogonal()(jax.random.key(outputs), shape, dtype)
  return (amplitude**0.5 * matrix).reshape(size, size, channels, outputs)


def pictures(*shape, dtype):
  return jax.random.uniform(jax.random.key(1), shape, dtype)


def error_of(found, x):
  return float(jnp.linalg.norm(found - x) / jnp.linalg.norm(x))


TALL = [  # channels, outputs, kernel, stride, padding
  (3, 48, 4, 4, 0),
  (3, 96, 4, 4, 0),
  (8, 72, 3, 1, 1),
  (4, 64, 4, 2, 0),
  (8, 100, 3, 1, 1),
  (2, 20, 3, 2, 1),
]
# In 32 bits, one whose patches lie apart and one whose patches overlap.
IN_BOTH = TALL[1], TALL[4]


@pytest.mark.parametrize('method', ['auto', 'transpose', 'least_squares'])
@pytest.mark.parametrize(
  ('case', 'dtype'),
  [(c, 'float64') for c in TALL] + [(c, 'float32') for c in IN_BOTH],
  ids=str,
)
def test_tall_orthogonal_convolutions_are_undone_exactly(
  case, dtype, method, float64
):
  channels, outputs, size, stride, padding = case
  limit = 1e-12 if dtype == 'float64' else 1e-5
  kernel = kernel_of(size, channels, outputs, dtype, amplitude=2.5)
  x = pictures(2, 12, 12, channels, dtype=dtype)
  result = inversion.reconstruct(
    convolution(stride, padding), kernel, x, method=method
  )
  assert error_of(result.x, x) < limit
  (segment,) = result.segments
  assert segment.exactness == 'exact'
  assert float(segment.null_space_share) == 0


def test_published_rule_is_off_by_the_aspect_of_tall_kernels(float64):
  kernel = kernel_of(4, 3, 96, jnp.float64)
  x = pictures(2, 12, 12, 3, dtype=jnp.float64)
  apply_fn = convolution(4, 0)
  published = inversion.reconstruct(apply_fn, kernel, x, method='published')
  # norms of the 96 rows are not equal, but on average 48/96
  assert error_of(published.x, x) > 0.5
  square = kernel_of(4, 3, 48, jnp.float64)
  result = inversion.reconstruct(apply_fn, square, x, method='published')
  assert error_of(result.x, x) < 1e-7  # its epsilon


def test_wide_kernels_give_the_orthogonal_projection(float64):
  kernel = kernel_of(2, 8, 24, jnp.float64)
  x = jax.random.normal(jax.random.key(2), (4, 16, 16, 8), jnp.float64)
  matrix = kernel.reshape(32, 24)
  patches = x.reshape(4, 8, 2, 8, 2, 8).transpose(0, 1, 3, 2, 4, 5)
  projected = patches.reshape(-1, 32) @ matrix @ matrix.T
  projected = projected.reshape(4, 8, 8, 2, 2, 8).transpose(0, 1, 3, 2, 4, 5)
  projected = projected.reshape(x.shape)
  for method in ('auto', 'transpose', 'published', 'least_squares'):
    result = inversion.reconstruct(convolution(2, 0), kernel, x, method=method)
    limit = 1e-7 if method == 'published' else 1e-12
    np.testing.assert_allclose(result.x, projected, atol=limit)
    (segment,) = result.segments
    if method != 'published':  # which is off by its epsilon
      assert segment.exactness == 'projection'
    share = float(segment.null_space_share)
    assert share == pytest.approx(1 - 24 / 32)
    # white noise loses that share of its energy
    lost = float(jnp.sum((result.x - x) ** 2) / jnp.sum(x**2))
    assert lost == pytest.approx(share, rel=0.05)


def test_injective_overlapping_wide_layers_come_back_by_least_squares(float64):
  kernel = kernel_of(5, 1, 8, jnp.float64)
  x = pictures(2, 12, 12, 1, dtype=jnp.float64)
  apply_fn = convolution(1, 1)
  result = inversion.reconstruct(
    apply_fn, kernel, x, method='least_squares', max_steps=500
  )
  assert error_of(result.x, x) < 1e-8
  assert (
    error_of(inversion.reconstruct(apply_fn, kernel, x, max_steps=500).x, x)
    < 1e-8
  )
  wrong = inversion.reconstruct(apply_fn, kernel, x, method='transpose')
  assert error_of(wrong.x, x) > 0.3
  assert wrong.segments[0].exactness == 'not solved'


@pytest.mark.parametrize('method', ['auto', 'published', 'transpose'])
def test_whole_patch_net_comes_back(method, float64):
  for dtype, limit in ((jnp.float64, 1e-10), (jnp.float32, 1e-4)):
    model = nn.create(
      'patch_net',
      image_shape=(8, 8, 3),
      num_classes=10,
      strides=(2, 2),
      param_dtype=dtype,
      kernel_init=nnx.initializers.lecun_normal(),
      rngs=nnx.Rngs(0),
    )
    apply_fn, params = nn.functional(model, 'intermediates')
    params = spectrum.polish(params, steps=40)
    x = pictures(3, 8, 8, 3, dtype=dtype)
    features = inversion.until(apply_fn, 'features')
    result = inversion.reconstruct(features, params, x, method=method)
    limit = max(limit, 1e-6) if method == 'published' else limit
    assert error_of(result.x, x) < limit
    assert float(jnp.max(result.residual)) < limit


@pytest.mark.parametrize('constant', [0.3, 0.7])
def test_residual_block_takes_the_steps_its_constant_predicts(constant):
  kernel = constant * kernel_of(1, 8, 8, jnp.float32)

  def block(kernel, x):
    return x + convolution(1, 0)(kernel, jnp.tanh(x))

  x = pictures(2, 8, 8, 8, dtype=jnp.float32)
  result = inversion.reconstruct(block, kernel, x)
  (segment,) = result.segments
  assert segment.kind == 'residual'
  assert segment.exactness == 'exact'
  assert error_of(result.x, x) < 1e-5
  predicted = np.log(2e-6) / np.log(constant)
  assert int(segment.steps) <= predicted + 1
  assert float(segment.contraction) <= constant * 1.05


def test_residual_block_that_does_not_contract_is_solved_otherwise(float64):
  kernel = jnp.eye(4)[None, None]
  block = lambda kernel, x: x + convolution(1, 0)(kernel, jnp.tanh(4 * x))
  x = pictures(2, 4, 4, 4, dtype=jnp.float64)
  result = inversion.reconstruct(block, kernel, x)
  (segment,) = result.segments
  assert float(segment.contraction) > 1
  assert float(result.residual.max()) < 1e-8


def test_relu_gives_back_what_the_active_rows_determine(float64):
  kernel = orthogonal()(jax.random.key(0), (6, 40), jnp.float64)
  apply_fn = lambda kernel, x: jax.nn.relu(x @ kernel)
  x = jax.random.normal(jax.random.key(1), (5, 6), jnp.float64)
  result = inversion.reconstruct(apply_fn, kernel, x)
  assert error_of(result.x, x) < 1e-10  # twenty active rows fix six numbers
  assert [s.exactness for s in result.segments] == ['exact', 'lossy']
  assert 0.3 < float(result.segments[1].null_space_share) < 0.7


def test_pooling_goes_back_to_where_the_maxima_were(float64):
  def apply_fn(kernel, x):
    x = convolution(1, 1)(kernel, x)
    return jax.lax.reduce_window(
      x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID'
    )

  kernel = kernel_of(3, 1, 9, jnp.float64)
  x = pictures(2, 8, 8, 1, dtype=jnp.float64)
  result = inversion.reconstruct(apply_fn, kernel, x)
  assert [s.kind for s in result.segments] == ['affine', 'pooling']
  pooled = result.segments[1]
  assert float(pooled.residual.max()) < 1e-12
  assert float(pooled.null_space_share) == pytest.approx(3 / 4)
  with pytest.raises(inversion.InversionError, match='reduce_window_max'):
    inversion.invert(apply_fn, kernel, apply_fn(kernel, x), x)


@settings(deadline=None, max_examples=4)
@given(
  st.integers(1, 3),
  st.integers(1, 4),
  st.integers(1, 4),
  st.integers(0, 2),
  st.integers(0, 2**31),
)
def test_least_squares_is_that_of_the_dense_matrix(
  channels, size, stride, padding, seed
):
  with jax.enable_x64(True):
    key = jax.random.key(seed)
    kernel = jax.random.normal(key, (size, size, channels, 3), jnp.float64)
    apply_fn = convolution(stride, padding)
    x = jax.random.normal(key, (1, 6, 5, channels), jnp.float64)
    jacobian = jax.jacobian(lambda v: apply_fn(kernel, v).ravel())(x)
    matrix = jacobian.reshape(-1, x.size)
    y = jax.random.normal(key, (1, *apply_fn(kernel, x).shape[1:]), jnp.float64)
    expected = jnp.linalg.pinv(matrix, rtol=1e-10) @ y.ravel()
    result = inversion.invert(
      apply_fn, kernel, y, x, method='least_squares', max_steps=2000
    )
    np.testing.assert_allclose(result.x.ravel(), expected, atol=1e-6)
    values = jnp.linalg.svd(matrix, compute_uv=False)
    real = values[values > 1e-6 * values[0]]
    least, greatest = result.segments[0].singular_values
    assert real[-1] * (1 - 1e-6) <= least <= greatest
    assert greatest <= real[0] * (1 + 1e-6)
