"""SmallAlexNet: its geometry, its start, and what it refuses."""

import jax
import jax.numpy as jnp
import network_helpers as h
import numpy as np
import pytest
from flax import nnx

from bort_jax import nn


def make(shape=(28, 28, 1), **options):
  return nn.SmallAlexNet(shape, 10, rngs=nnx.Rngs(0), **options)


def test_the_layers_are_those_of_alexnet():
  shapes = h.output_shapes(make, (28, 28, 1))
  assert set(shapes) == {
    *('conv1', 'act1', 'pool1', 'conv2', 'act2', 'pool2', 'conv3', 'act3'),
    *('conv4', 'act4', 'conv5', 'act5', 'pool5'),
    *('fc1', 'act_fc1', 'fc2', 'act_fc2', 'logits'),
  }
  assert shapes['act1'] == (28, 28, 16)
  assert shapes['pool2'] == (6, 6, 40)
  assert shapes['pool5'] == (2, 2, 40)
  assert shapes['fc1'] == (256,)
  small = h.output_shapes(lambda: make((15, 17, 3)), (15, 17, 3))
  assert small['pool5'] == (1, 1, 40)


def test_every_matrix_is_initialized_as_asked():
  asked, matrices = h.kernels_initialized(
    lambda init: make(kernel_init=init, logit_scale=True)
  )
  assert asked == matrices
  assert len(matrices) == 8


def test_dropout_is_of_training_alone():
  model = make()
  x = h.random_pictures(2, 28, 28, 1)
  forward = nnx.jit(lambda model, x: model(x))
  training = [np.asarray(forward(model, x)) for _ in range(2)]
  assert np.abs(training[0] - training[1]).max() > 1e-4
  model.eval()
  evaluated = [np.asarray(forward(model, x)) for _ in range(2)]
  np.testing.assert_array_equal(evaluated[0], evaluated[1])
  apply_fn, params = nn.functional(model)
  np.testing.assert_allclose(
    jax.jit(apply_fn)(params, x), evaluated[0], rtol=1e-5, atol=1e-5
  )


def test_the_registry_knows_it():
  made = lambda: nn.create(
    'small_alexnet',
    image_shape=(28, 28, 1),
    num_classes=3,
    rngs=nnx.Rngs(0),
    dtype=jnp.bfloat16,
  )
  assert h.output_shapes(made, (28, 28, 1))['logits'] == (3,)


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'shape': (14, 28, 1)}, '15×15.*14×28'),
    ({'widths': (1, 2)}, 'five numbers'),
    ({'activation': 'gelu'}, "'leaky_relu' or 'relu'"),
  ],
)
def test_refuses(options, match):
  with pytest.raises(ValueError, match=match):
    make(**options)
