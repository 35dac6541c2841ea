"""VGG16: published geometry, the adaptive pool, dropout and statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from network_helpers import (
  intermediates,
  kernels_initialized,
  output_shapes,
  parameter_count,
  random_pictures,
)

from bort_jax import nn, spectrum
from bort_jax.nn.vgg import VGG16, adaptive_average_pool

IMAGENET = (224, 224, 3)


def constant(value):
  return nnx.initializers.constant(value)


def small(kernel_init=None, **options):
  """For the smallest pictures; of equal weights unless told otherwise."""
  # 138 million random numbers take half a minute, equal ones a second.
  init = kernel_init or constant(0.01)
  return VGG16((32, 32, 3), 10, kernel_init=init, rngs=nnx.Rngs(0), **options)


def test_parameter_counts_are_those_of_torchvision():
  make = lambda **options: parameter_count(
    lambda: VGG16(IMAGENET, 1000, rngs=nnx.Rngs(0), **options)
  )
  assert make(pooling='max') == 138_357_544
  assert make(pooling='max', batch_norm=True) == 138_365_992
  downs = sum(4 * c * c + c for c in (64, 128, 256, 512, 512))
  assert make() == 138_357_544 + downs


@pytest.mark.parametrize('pooling', ['conv', 'max'])
def test_geometry(pooling):
  make = lambda: VGG16(
    IMAGENET, 1000, pooling=pooling, batch_norm=True, rngs=nnx.Rngs(0)
  )
  found = output_shapes(make, IMAGENET)
  assert len(found) == 3 * 13 + 5 + 1 + 4 + 1
  assert found['conv1_2'] == found['norm1_2'] == (224, 224, 64)
  assert found['down1'] == (112, 112, 64)
  assert found['act3_3'] == (56, 56, 256)
  assert found['conv5_1'] == (14, 14, 512)
  assert found['down5'] == found['pool'] == (7, 7, 512)
  assert found['fc1'] == found['act_fc2'] == (4096,)
  assert found['logits'] == (1000,)


def test_pictures_of_any_size_fit_the_classifier():
  image = (96, 50, 1)
  found = output_shapes(lambda: VGG16(image, 3, rngs=nnx.Rngs(0)), image)
  assert found['down5'] == (3, 1, 512)
  assert found['pool'] == (7, 7, 512)


@pytest.mark.parametrize('size', [1, 3, 7, 8, 13, 14])
def test_the_adaptive_pool_averages_the_bins_of_pytorch(size):
  x = np.asarray(random_pictures(2, size, size + 2, 3))
  expected = np.empty((2, 7, 7, 3))
  for i in range(7):
    for j in range(7):
      bins = [
        slice(int(np.floor(k * n / 7)), int(np.ceil((k + 1) * n / 7)))
        for k, n in ((i, size), (j, size + 2))
      ]
      expected[:, i, j] = x[:, bins[0], bins[1]].mean((1, 2))
  np.testing.assert_allclose(
    adaptive_average_pool(jnp.asarray(x), 7), expected, rtol=1e-5, atol=1e-6
  )


def test_the_adaptive_pool_keeps_pictures_of_its_size_and_the_dtype():
  x = random_pictures(1, 7, 7, 2)
  assert adaptive_average_pool(x, 7) is x
  half = jnp.full((1, 9, 9, 1), 3, jnp.bfloat16)
  pooled = adaptive_average_pool(half, 7)
  assert pooled.dtype == jnp.bfloat16
  np.testing.assert_array_equal(pooled, 3)


def test_activation_is_the_published_leaky_relu_or_relu():
  x = jnp.array([-2.0, 3.0])
  make = lambda **options: nnx.eval_shape(lambda: small(**options))
  np.testing.assert_array_equal(make().act(x), [-1.0, 3.0])
  np.testing.assert_array_equal(make(activation='relu').act(x), [0.0, 3.0])


@pytest.mark.parametrize('batch_norm', [False, True])
def test_the_initializer_is_that_of_every_kernel(batch_norm):
  make = lambda init: small(init, batch_norm=batch_norm)
  asked, kernels = kernels_initialized(make)
  assert asked == kernels
  assert len(kernels) == 13 + 5 + 3


def first_kernels(init):
  """The kernels of the first two stages; the rest is not computed."""

  @jax.jit
  def make():
    model = VGG16((32, 32, 3), 10, kernel_init=init, rngs=nnx.Rngs(0))
    layers = [layer.conv for stage in model.stages[:2] for layer in stage]
    layers += model.downs[:2]
    return [{'kernel': layer.kernel[...]} for layer in layers]

  return make()


def test_kernels_can_start_orthogonal():
  kernels = first_kernels(nnx.initializers.orthogonal())
  errors = jax.tree.leaves(spectrum.orthogonality_error(kernels))
  assert len(errors) == 6
  assert max(map(float, errors)) < 1e-5


def test_kernels_start_as_documented():
  kernel = np.asarray(first_kernels(None)[3]['kernel'])
  assert kernel.shape == (3, 3, 128, 128)
  assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 128)), rel=1e-2)


@pytest.mark.slow
def test_dropout_is_random_in_training_alone():
  model, x = small(), random_pictures(2, 32, 32, 3)
  assert float(jnp.abs(model(x) - model(x)).max()) > 0
  model.eval()
  np.testing.assert_array_equal(model(x), model(x))
  model.train()
  assert float(jnp.abs(model(x) - model(x)).max()) > 0


@pytest.mark.slow
def test_computes_in_the_dtype_and_keeps_parameters_in_theirs():
  model = small(dtype=jnp.bfloat16, batch_norm=True, logit_scale=True)
  outputs = intermediates(model, random_pictures(1, 32, 32, 3))
  assert {out.dtype for out in outputs.values()} == {jnp.dtype('bfloat16')}
  _, params = nn.functional(model)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
    jnp.dtype('float32')
  }


@pytest.mark.slow
def test_statistics_over_devices_are_those_of_the_whole_batch():
  def wild(key, shape, dtype, **_):
    # Numbers without order, quicker to make than random ones; the classifier,
    # behind all statistics, has none.
    if len(shape) == 2:
      return jnp.zeros(shape, dtype)
    order = jnp.arange(np.prod(shape), dtype=dtype) ** 2 % 1e3
    return jnp.sin(order).reshape(shape) / np.sqrt(np.prod(shape[:-1]))

  def make(axis_name):
    return nnx.split(small(wild, batch_norm=True, axis_name=axis_name))

  def step(graphdef):
    def run(state, x):
      model = nnx.merge(graphdef, state)
      features = model.intermediates(x)['down5']
      return features, nnx.state(model, nnx.BatchStat)

    return run

  x = random_pictures(4, 32, 32, 3)
  graphdef, state = make(None)
  expected = jax.jit(step(graphdef))(state, x)
  mapped_graphdef, _ = nnx.eval_shape(lambda: make('data'))
  spec = PartitionSpec('data')
  found = jax.jit(
    jax.shard_map(
      step(mapped_graphdef),
      mesh=Mesh(np.array(jax.devices()[:2]), ('data',)),
      in_specs=(PartitionSpec(), spec),
      out_specs=(spec, PartitionSpec()),
    )
  )(state, x)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
    found,
    expected,
  )


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'pooling': 'mean'}, "'conv' or 'max', got 'mean'"),
    ({'activation': 'gelu'}, "'leaky_relu' or 'relu', got 'gelu'"),
  ],
)
def test_refuses(options, message):
  with pytest.raises(ValueError, match=message):
    small(**options)


def test_refuses_small_pictures():
  with pytest.raises(ValueError, match='needs pictures of 32×32 .* got 31×40'):
    VGG16((31, 40, 3), 10, rngs=nnx.Rngs(0))
