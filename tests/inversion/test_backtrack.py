"""What units, channels and classes stand for in a picture."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bort_jax import inversion, nn

SHAPE = (12, 12, 1)


def patches(kernel, x):
  return jax.lax.conv_general_dilated(
    x, kernel, (3, 3), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


@pytest.fixture
def kernel():
  matrix = jax.nn.initializers.orthogonal()(jax.random.key(0), (9, 9))
  return matrix.reshape(3, 3, 1, 9)


@pytest.fixture
def x():
  return jax.random.uniform(jax.random.key(1), (2, *SHAPE))


def test_a_unit_of_an_orthogonal_layer_stands_for_its_kernel(kernel, x):
  part = inversion.backtrack(patches, kernel, x, channel=4, position=(1, 2))
  expected = np.zeros_like(x)
  units = patches(kernel, x)[:, 1, 2, 4]
  expected[:, 3:6, 6:9] = np.multiply.outer(units, kernel[..., 4])
  np.testing.assert_allclose(part, expected, atol=1e-5)


def test_parts_of_all_channels_make_the_picture(kernel, x):
  part = lambda c: inversion.backtrack(patches, kernel, x, channel=c)
  parts = jax.vmap(part)(jnp.arange(9))
  np.testing.assert_allclose(parts.sum(0), x, atol=1e-5)


def test_each_picture_can_have_its_own_channel_and_position(kernel, x):
  channels, rows = jnp.array([2, 7]), jnp.array([0, 3])
  part = inversion.backtrack(
    patches, kernel, x, channel=channels, position=(rows, 1)
  )
  for i in range(2):
    alone = inversion.backtrack(
      patches,
      kernel,
      x[i : i + 1],
      channel=int(channels[i]),
      position=(int(rows[i]), 1),
    )
    np.testing.assert_allclose(part[i], alone[0], atol=1e-6)


@pytest.mark.parametrize('chunk', [1, 2, 9])
def test_chunks_change_nothing(kernel, chunk):
  x = jax.random.uniform(jax.random.key(1), (3, *SHAPE))
  sizes = set()

  def apply_fn(params, x):
    sizes.add(len(x))
    return patches(params, x)

  for options in (
    {'channel': 4, 'position': (1, 2)},
    {'channel': jnp.array([2, 7, 1]), 'position': (jnp.array([0, 3, 2]), 1)},
  ):
    whole = inversion.backtrack(patches, kernel, x, **options)
    part = inversion.backtrack(apply_fn, kernel, x, chunk=chunk, **options)
    np.testing.assert_allclose(part, whole, atol=1e-6)
  assert sizes == {min(chunk, 3), 3}  # of all, the form is looked up


def test_chunks_of_classes_can_be_compiled(x):
  weights = jax.nn.initializers.orthogonal()(jax.random.key(3), (144, 5))
  apply_fn = lambda params, x: x.reshape(len(x), -1) @ params + 3.0
  of = lambda target, **options: inversion.backtrack(
    apply_fn, weights, x, target, **options
  )
  target = jnp.array([1, 4])
  part = jax.jit(lambda target: of(target, chunk=1))(target)
  np.testing.assert_allclose(part, of(target), atol=1e-6)


def test_a_class_of_a_linear_classifier_stands_for_its_weights(x):
  weights = jax.nn.initializers.orthogonal()(jax.random.key(3), (144, 5))
  apply_fn = lambda params, x: x.reshape(len(x), -1) @ params + 3.0
  target = jnp.array([1, 4])
  part = inversion.backtrack(apply_fn, weights, x, target)
  logits = apply_fn(weights, x)[jnp.arange(2), target]
  expected = logits[:, None] * weights[:, target].T
  np.testing.assert_allclose(part.reshape(2, -1), expected, atol=1e-5)


@pytest.fixture(scope='module')
def network():
  model = nn.create(
    'simple_cnn', image_shape=(28, 28, 1), num_classes=10, rngs=nnx.Rngs(0)
  )
  pictures = jax.random.uniform(jax.random.key(2), (2, 28, 28, 1))
  return *nn.functional(model, 'intermediates'), pictures


def test_saliency_is_the_published_algorithm(network):
  apply_fn, params, x = network
  count = 5
  found = inversion.saliency(
    apply_fn, params, x, layer='act3', num_channels=count
  )
  features = inversion.until(apply_fn, 'act3')
  z = np.asarray(features(params, x))
  back = lambda z: np.asarray(
    inversion.invert(features, params, z, x, method='published').x
  )
  blank = back(np.zeros_like(z))
  for i in range(2):
    flat = z[i].reshape(-1, z.shape[-1])
    rows, columns = np.divmod(flat.argmax(0), 6)
    inner = (rows % 5 > 0) & (columns % 5 > 0)  # the map is 6×6
    strongest = sorted(np.flatnonzero(inner), key=lambda c: -flat[:, c].max())
    total = np.zeros((28, 28))
    for c in strongest[:count]:
      unit = np.zeros_like(z)
      unit[i, rows[c], columns[c], c] = 1000
      seen = np.abs(back(unit) - blank)[i].sum(-1)
      total += flat[:, c].max() * (seen > 3 * seen.mean())
    total /= total.max() + 1e-6
    np.testing.assert_allclose(found[i, ..., 0], total, atol=1e-4)
  assert found.shape == (2, 28, 28, 1)


def test_class_saliency_depends_on_the_class_and_saliency_does_not(network):
  apply_fn, params, x = network
  options = {'layer': 'act3', 'num_channels': 8}
  ones, twos = jnp.array([1, 1]), jnp.array([2, 2])
  by_class = [
    inversion.class_saliency(apply_fn, params, x, t, **options)
    for t in (ones, twos)
  ]
  assert not jnp.allclose(by_class[0], by_class[1])
  for found in by_class:
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
  published = [
    inversion.saliency(apply_fn, params, x, t, **options) for t in (ones, twos)
  ]
  np.testing.assert_array_equal(published[0], published[1])


def test_rest_of_a_network_goes_on_from_a_layer(network):
  apply_fn, params, x = network
  outputs = apply_fn(params, x)
  for layer in ('conv1', 'act2', 'down2', 'pool'):
    head = inversion.rest(apply_fn, params, x, layer)
    np.testing.assert_allclose(
      head(outputs[layer]), outputs['logits'], rtol=1e-5, atol=1e-5
    )


def test_rest_goes_on_from_a_segment_by_number(network):
  apply_fn, params, x = network
  logits = inversion.until(apply_fn, 'logits')
  for number in (0, 3):
    code = inversion.until(logits, number)(params, x)
    head = inversion.rest(logits, params, x, number)
    np.testing.assert_allclose(
      head(code), logits(params, x), rtol=1e-5, atol=1e-5
    )


def test_bad_requests_are_refused(kernel, x, network):
  refuse = lambda match: pytest.raises(inversion.InversionError, match=match)
  with refuse('either target'):
    inversion.backtrack(patches, kernel, x)
  wrong: Any
  for wrong in (9, np.int64(9), jnp.array([0, 9]), [9, 9]):
    with refuse('channel 9 does not exist'):
      inversion.backtrack(patches, kernel, x, channel=wrong)
  wrong = 1.0
  with refuse('channel must be an integer'):
    inversion.backtrack(patches, kernel, x, channel=wrong)
  with refuse('position 4 does not exist'):
    inversion.backtrack(patches, kernel, x, channel=0, position=(4, 0))
  with refuse('position must have 2'):
    inversion.backtrack(patches, kernel, x, channel=0, position=(1,))
  with refuse('channel must be one number'):
    inversion.backtrack(patches, kernel, x, channel=jnp.arange(3))
  with refuse('Of a layer, choose a channel'):
    inversion.backtrack(patches, kernel, x, jnp.array([0, 1]))
  with refuse('target must be integers of shape'):
    flat = lambda params, x: x.reshape(len(x), -1)
    inversion.backtrack(flat, kernel, x, jnp.array([0]), chunk=1)
  for wrong in (0, 1.5):
    with pytest.raises(ValueError, match='chunk must be an integer'):
      inversion.backtrack(patches, kernel, x, channel=0, chunk=wrong)
  apply_fn, params, pictures = network
  with refuse("Did you mean 'act3'"):
    inversion.saliency(apply_fn, params, pictures, layer='act33')
  with refuse('needs a layer with output'):
    inversion.saliency(apply_fn, params, pictures, layer='pool')
  with refuse('a class for each picture, or one for all'):
    inversion.class_saliency(
      apply_fn, params, pictures, jnp.array([0]), layer='act3'
    )
  for wrong in ([99, 0], jnp.array([0, 10]), np.array([0, -1])):
    with refuse('target .* does not exist'):
      inversion.class_saliency(apply_fn, params, pictures, wrong, layer='act3')
    with refuse('target .* does not exist'):
      inversion.backtrack(
        inversion.until(apply_fn, 'logits'), params, pictures, wrong
      )
  skip = lambda params, x: {'half': jnp.tanh(x), 'logits': jnp.tanh(x) + x}
  with refuse('not made of layer'):
    inversion.rest(skip, None, x, 'half')
  aside = lambda params, x: {'soft': jax.nn.sigmoid(x), 'logits': jnp.tanh(x)}
  with refuse('not made of layer'):
    inversion.rest(aside, None, x, 'soft')
