"""PatchNet: an exactly invertible map of the picture, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from network_helpers import intermediates, parameter_count, random_pictures

from bort_jax import nn, spectrum
from bort_jax.nn.patch_net import PatchNet


def make(image_shape=(12, 24, 3), **options):
  return PatchNet(image_shape, 10, rngs=nnx.Rngs(0), **options)


def picture_from(features, model, image_shape):
  """The picture, from the flattened features, by transposed matrices."""
  strides = [conv.kernel.shape[0] for conv in model.convs]
  height, width, channels = image_shape
  height, width = height // np.prod(strides), width // np.prod(strides)
  x = np.asarray(features, np.float64).reshape(len(features), height, width, -1)
  for conv, side in zip(reversed(model.convs), reversed(strides), strict=True):
    x = np.where(x < 0, x / model.negative_slope, x)
    if conv.bias is not None:
      x = x - np.asarray(conv.bias[...])
    outputs = conv.kernel.shape[-1]
    matrix = np.asarray(conv.kernel[...], np.float64).reshape(-1, outputs)
    assert matrix.shape == (outputs, outputs)
    x = (x @ matrix.T).reshape(len(x), height, width, side, side, -1)
    height, width = height * side, width * side
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(len(x), height, width, -1)
  assert x.shape[1:] == image_shape
  return x


@pytest.mark.parametrize('strides', [(2, 2), (3, 2), (4,), (2, 1, 2)])
@pytest.mark.parametrize('use_bias', [True, False])
def test_transposed_matrices_give_the_picture_back(strides, use_bias):
  image_shape = (12, 24, 3)
  model = make(image_shape, strides=strides, use_bias=use_bias)
  for conv in model.convs if use_bias else ():
    conv.bias[...] = jnp.linspace(-1, 1, conv.bias.shape[0])
  x = random_pictures(2, *image_shape)
  features = intermediates(model, x)['features']
  np.testing.assert_allclose(
    picture_from(features, model, image_shape), x, atol=1e-5
  )


def test_every_kernel_starts_orthogonal():
  params = nnx.state(make(strides=(2, 3)), nnx.Param)
  errors = jax.tree.leaves(spectrum.orthogonality_error(params))
  assert len(errors) == 3
  assert max(map(float, errors)) < 1e-5


def test_takes_another_initializer():
  model = make(kernel_init=nnx.initializers.zeros_init())
  for layer in (*model.convs, model.head):
    assert not np.any(layer.kernel[...])


def test_parameter_count_is_that_of_square_matrices():
  squares = sum(size**2 + size for size in (4, 16, 64))
  count = lambda **options: parameter_count(
    lambda: make((16, 16, 1), strides=(2, 2, 2), **options)
  )
  assert count() == squares + 256 * 10 + 10 + 1
  assert count(pooling='mean', logit_scale=False) == squares + 64 * 10 + 10
  assert count(use_bias=False) == squares - 84 + 256 * 10 + 10 + 1


def test_the_head_sees_all_features_or_their_mean():
  x = random_pictures(2, 12, 24, 3)
  model = make()
  flat = intermediates(model, x)
  assert list(model.intermediates(x)) == [
    *('conv1', 'act1', 'conv2', 'act2', 'features', 'logits')
  ]
  np.testing.assert_array_equal(
    flat['features'], np.reshape(flat['act2'], (2, -1))
  )
  mean = intermediates(make(pooling='mean'), x)
  np.testing.assert_allclose(
    mean['features'], np.mean(flat['act2'], (1, 2)), rtol=1e-4, atol=1e-6
  )
  assert mean['logits'].shape == (2, 10)


def test_computes_in_the_dtype_and_keeps_parameters_in_theirs():
  model = make(dtype=jnp.bfloat16)
  outputs = intermediates(model, random_pictures(1, 12, 24, 3))
  assert {out.dtype for out in outputs.values()} == {jnp.dtype('bfloat16')}
  _, params = nn.functional(model)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
    jnp.dtype('float32')
  }


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'strides': (2, 5)}, r'patches of 10×10 .* got 12×24'),
    ({'strides': ()}, 'one or more numbers'),
    ({'strides': (2, 0)}, '≥ 1'),
    ({'pooling': 'max'}, "'flatten' or 'mean', got 'max'"),
    ({'negative_slope': 0.0}, 'must be > 0'),
  ],
)
def test_refuses(options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)
