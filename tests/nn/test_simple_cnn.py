"""SimpleCNN, the logit scale, the registry and the functional form."""

import jax
import jax.numpy as jnp
import network_helpers as h
import numpy as np
import optax
import pytest
from flax import nnx

from bort_jax import nn, spectrum


def make(**options):
  return nn.SimpleCNN((28, 28, 1), 10, rngs=nnx.Rngs(0), **options)


@pytest.fixture(scope='module')
def model():
  """A network that no test changes."""
  return make()


def test_published_geometry():
  widths = (8, 24, 288, 864, 2592)
  shapes = h.output_shapes(lambda: make(widths=widths), (28, 28, 1))
  sides = {name: shape[0] for name, shape in shapes.items()}
  assert sides['conv1'] == 26
  assert sides['down1'] == 13
  assert sides['conv2'] == 12
  assert sides['down2'] == 6
  assert sides['act3'] == 6
  assert shapes['pool'] == (2592,)
  assert shapes['logits'] == (10,)


def test_kernels_start_orthogonal(model):
  _, params = nn.functional(model)
  errors = jax.tree.leaves(spectrum.orthogonality_error(params))
  assert len(errors) == 6
  assert max(map(float, errors)) < 1e-5


def test_activation_is_the_published_leaky_relu_or_relu():
  x = jnp.array([-2.0, 3.0])
  shaped = lambda **options: nnx.eval_shape(lambda: make(**options))
  np.testing.assert_array_equal(shaped().act(x), [-1.0, 3.0])
  np.testing.assert_array_equal(shaped(activation='relu').act(x), [0.0, 3.0])


def test_computes_in_the_dtype_and_keeps_parameters_in_theirs():
  model = nnx.eval_shape(lambda: make(dtype=jnp.bfloat16))
  apply_fn, params = nn.functional(model)
  logits = jax.eval_shape(apply_fn, params, jnp.zeros((1, 28, 28, 1)))
  assert logits.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
    jnp.dtype('float32')
  }


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'widths': (1, 2)}, 'five numbers'),
    ({'kernel_sizes': (3,)}, 'three'),
    ({'activation': 'gelu'}, "'leaky_relu' or 'relu'"),
  ],
)
def test_refuses(options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)


def test_refuses_small_pictures():
  with pytest.raises(ValueError, match='8×8'):
    nn.SimpleCNN((7, 9, 1), 10, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
  ('tx', 'factor'), [(optax.sgd(1e-3), 25.0), (optax.adam(1e-3), 5.0)]
)
def test_every_optimizer_honours_the_multiplier(tx, factor):
  def log_scale_moved(multiplier):
    scale = nn.LogitScale(2.0, multiplier, rngs=nnx.Rngs(0))
    apply_fn, params = nn.functional(scale)
    log = lambda params: float(jnp.log(apply_fn(params, jnp.ones(()))))
    grads = jax.grad(lambda p: apply_fn(p, jnp.ones(())))(params)
    updates, _ = tx.update(grads, tx.init(params), params)
    return log(optax.apply_updates(params, updates)) - log(params)

  ratio = log_scale_moved(5.0) / log_scale_moved(1.0)
  np.testing.assert_allclose(ratio, factor, rtol=1e-2)


@pytest.mark.parametrize('numbers', [(0.0, 1.0), (1.0, -1.0), (np.nan, 1.0)])
def test_logit_scale_refuses(numbers):
  with pytest.raises(ValueError, match='must be > 0'):
    nn.LogitScale(*numbers, rngs=nnx.Rngs(0))


def test_functional_equals_the_module_and_takes_other_methods(model):
  x = h.random_pictures(2, 28, 28, 1)
  apply_fn, params = nn.functional(model)
  np.testing.assert_allclose(
    jax.jit(apply_fn)(params, x), model(x), rtol=1e-5, atol=1e-6
  )
  intermediates_fn, params = nn.functional(model, 'intermediates')
  found = jax.eval_shape(intermediates_fn, params, x)
  assert set(found) == set(h.intermediates(model, x))


def test_functional_refuses_a_method_that_is_not_there(model):
  with pytest.raises(AttributeError, match="no method 'decode'"):
    nn.functional(model, 'decode')


def test_create_suggests_the_nearest_name():
  with pytest.raises(ValueError, match="Did you mean 'simple_cnn'"):
    nn.create(
      'simple_cn', image_shape=(8, 8, 1), num_classes=2, rngs=nnx.Rngs(0)
    )
