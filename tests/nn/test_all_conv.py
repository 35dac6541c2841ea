"""AllConv12: published geometry, dropout and the least size of pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from network_helpers import (
  intermediates,
  kernels_initialized,
  output_shapes,
  parameter_count,
  random_pictures,
)

from bort_jax import nn, spectrum
from bort_jax.nn.all_conv import AllConv12

SMALLEST = (128, 128, 1)


def small(**options):
  options = {'widths': (4,) * 11, **options}
  return AllConv12(SMALLEST, 3, rngs=nnx.Rngs(0), **options)


def test_parameter_count_is_that_of_the_table():
  kernels = (10, 1, 3, 3, 1, 3, 3, 1, 3, 3, 1, 1)
  sizes = (3, 96, 96, 96, 256, 256, 256, 384, 384, 384, 1024, 1024, 1000)
  expected = sum(
    (kernel**2 * inputs + 1) * outputs
    for kernel, inputs, outputs in zip(
      kernels, sizes[:-1], sizes[1:], strict=True
    )
  )
  make = lambda: AllConv12((224, 224, 3), 1000, rngs=nnx.Rngs(0))
  assert parameter_count(make) == expected


def test_geometry():
  image = (224, 224, 3)
  found = output_shapes(lambda: AllConv12(image, 1000, rngs=nnx.Rngs(0)), image)
  sides = [found[f'conv{i}'][0] for i in range(1, 13)]
  assert sides == [75, 75, 37, 35, 35, 17, 15, 15, 7, 5, 5, 5]
  assert found['act12'] == (5, 5, 1000)
  assert found['logits'] == (1000,)


def test_the_least_side_leaves_one_pixel():
  assert output_shapes(small, SMALLEST)['conv12'] == (1, 1, 3)
  with pytest.raises(ValueError, match='128×128 .* got 127×300'):
    AllConv12((127, 300, 1), 3, rngs=nnx.Rngs(0))


def test_logits_are_the_mean_of_the_class_maps():
  model = AllConv12((152, 200, 1), 3, widths=(4,) * 11, rngs=nnx.Rngs(0))
  model.eval()
  outputs = intermediates(model, random_pictures(2, 152, 200, 1))
  maps = np.asarray(outputs['act12'], np.float64)
  assert maps.shape[1:3] == (2, 4)
  np.testing.assert_allclose(outputs['logits'], maps.mean((1, 2)), rtol=1e-5)


def test_activation_is_the_published_leaky_relu_or_relu():
  x = jnp.array([-2.0, 3.0])
  make = lambda **options: nnx.eval_shape(lambda: small(**options))
  np.testing.assert_array_equal(make().act(x), [-1.0, 3.0])
  np.testing.assert_array_equal(make(activation='relu').act(x), [0.0, 3.0])


def test_dropout_precedes_the_tenth_convolution_in_training_alone():
  model, x = small(), random_pictures(2, *SMALLEST)
  run = nnx.jit(lambda model, x: model.intermediates(x))
  first, second = run(model, x), run(model, x)
  np.testing.assert_array_equal(first['act9'], second['act9'])
  assert jnp.abs(first['conv10'] - second['conv10']).max() > 0
  model.eval()
  np.testing.assert_array_equal(
    run(model, x)['logits'], run(model, x)['logits']
  )


def test_kernels_start_as_documented():
  model = small(widths=(4, 64, 64, *(4,) * 8))
  kernel = np.asarray(model.convs[2].kernel[...])
  assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=2e-2)


def test_every_kernel_can_start_orthogonal():
  orthogonal = nnx.initializers.orthogonal()
  params = nnx.state(small(kernel_init=orthogonal), nnx.Param)
  errors = jax.tree.leaves(spectrum.orthogonality_error(params))
  assert len(errors) == 12
  assert max(map(float, errors)) < 1e-5


def test_the_initializer_is_that_of_every_kernel():
  asked, kernels = kernels_initialized(lambda init: small(kernel_init=init))
  assert asked == kernels
  assert len(kernels) == 12


def test_computes_in_the_dtype_and_keeps_parameters_in_theirs():
  model = small(dtype=jnp.bfloat16, logit_scale=True)
  outputs = intermediates(model, random_pictures(1, *SMALLEST))
  assert {out.dtype for out in outputs.values()} == {jnp.dtype('bfloat16')}
  _, params = nn.functional(model)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
    jnp.dtype('float32')
  }


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'widths': (1, 2)}, r'eleven numbers, got \(1, 2\)'),
    ({'activation': 'gelu'}, "'leaky_relu' or 'relu', got 'gelu'"),
  ],
)
def test_refuses(options, message):
  with pytest.raises(ValueError, match=message):
    small(**options)
