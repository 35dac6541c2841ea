"""The networks of bort_jax.nn from an inner layer back to the picture."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from bort_jax import inversion, nn

BLOCKS = ['residual', 'elementwise']
SMALL_VIT = {'patch_size': 4, 'width': 48, 'depth': 2}


def reconstructed(name, layer, side, dtype=jnp.float32, **options):
  """A picture and what comes back of it, from a network as it starts."""
  shape = side, side, 3
  model = nn.create(
    name,
    image_shape=shape,
    num_classes=10,
    param_dtype=dtype,
    rngs=nnx.Rngs(0),
    **options,
  )
  model.eval()
  apply_fn, params = nn.functional(model, 'intermediates')
  x = jax.random.uniform(jax.random.key(1), (1, *shape), dtype)
  apply_fn = inversion.until(apply_fn, layer)
  return x, inversion.reconstruct(apply_fn, params, x)


def kinds(result):
  return [segment.kind for segment in result.segments]


def error_of(result, x):
  return float(jnp.linalg.norm(result.x - x) / jnp.linalg.norm(x))


def residuals(result):
  return [float(jnp.max(segment.residual)) for segment in result.segments]


def assert_consistent(result, amplification=100.0):
  """The whole is solved where all segments are.

  But where numbers are lost (to a ReLU, a maximum), what comes back in their
  places can come forward again otherwise, and no segment counts them.
  """
  assert jnp.all(jnp.isfinite(result.x))
  total = float(jnp.max(result.residual))
  if all(s.exactness != 'lossy' for s in result.segments):
    assert total <= amplification * max(residuals(result)) + 1e-6
  if all(s.exactness == 'exact' for s in result.segments):
    assert total < 1e-4


def test_simple_cnn_from_its_first_wide_layer():
  x, result = reconstructed('simple_cnn', 'down1', 16)
  assert kinds(result) == ['affine', 'elementwise', 'affine']
  assert error_of(result, x) > 0.1  # 75 numbers of a patch become 8
  assert_consistent(result)


def test_simple_cnn_from_its_logits():
  _, result = reconstructed('simple_cnn', 'logits', 16)
  pairs = ['affine', 'elementwise'] * 3
  assert kinds(result) == [*pairs, 'pooling', 'affine']
  head, pool = result.segments[-1], result.segments[-2]
  assert head.exactness == 'projection'
  assert pool.exactness == 'lossy'
  assert float(head.residual.max()) < 1e-5
  assert float(pool.residual.max()) < 1e-5
  assert_consistent(result)


def test_patch_net_from_its_features():
  x, result = reconstructed(
    'patch_net', 'features', 16, strides=(2, 2, 2, 2), logit_scale=False
  )
  assert kinds(result)[:8] == ['affine', 'elementwise'] * 4
  assert {segment.exactness for segment in result.segments} == {'exact'}
  assert error_of(result, x) < 1e-5


@pytest.mark.slow
def test_vgg16_from_its_second_stage():
  _, result = reconstructed('vgg16', 'act2_1', 32)
  assert kinds(result) == ['affine', 'elementwise'] * 3
  for segment in result.segments:
    if segment.kind == 'elementwise':
      assert float(segment.residual.max()) < 1e-5
  assert_consistent(result)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resnet18', 'resnet50'])
def test_resnets_from_their_first_stage(name):
  last = {'resnet18': 'stage1/block2', 'resnet50': 'stage1/block2'}[name]
  _, result = reconstructed(name, last, 32, stem='imagenet')
  first = 'residual' if name == 'resnet18' else 'affine'
  stem = ['affine', 'elementwise', 'pooling']
  assert kinds(result)[:3] == stem
  assert kinds(result)[3] in (first, 'nonlinear')
  assert kinds(result)[-2:] == BLOCKS
  block = result.segments[-2]  # new blocks are their shortcuts
  assert float(block.residual.max()) < 1e-5
  assert float(block.contraction) < 1
  assert_consistent(result)


@pytest.mark.slow
def test_resnet_blocks_that_do_not_contract_are_solved():
  _, result = reconstructed(
    'resnet18', 'stage1/block1', 32, stem='small', zero_init_residual=False
  )
  assert kinds(result) == ['affine', 'elementwise', *BLOCKS]
  block = result.segments[2]
  assert float(block.contraction) > 1
  assert block.exactness == 'lossy'
  assert float(block.residual.max()) < 1e-5


@pytest.mark.slow
def test_vit_comes_back_in_64_bits(float64):
  x, result = reconstructed('vit_ti', 'block2', 16, jnp.float64, **SMALL_VIT)
  assert kinds(result) == ['affine', *['residual'] * 4]
  blocks = result.segments[1:]
  assert {block.exactness for block in blocks} == {'exact'}
  # softmax is 32 bits even here, and the embedding amplifies its rounding
  assert error_of(result, x) < 1e-5
  for block in blocks:
    assert float(block.contraction) < 1


@pytest.mark.slow
def test_vit_with_remat_equals_without(float64):
  make = lambda remat: reconstructed(
    'vit_ti', 'block1', 16, jnp.float64, remat=remat, **SMALL_VIT
  )
  x, result = make(True)
  assert kinds(result) == ['affine', 'residual', 'residual']
  assert error_of(result, x) < 1e-6


@pytest.mark.slow
def test_swin_from_its_first_stage():
  _, result = reconstructed(
    'swin_t',
    'stage1/block2',
    16,
    window_size=4,
    width=24,
    depths=(2, 1, 1, 1),
    patch_size=2,
  )
  assert kinds(result)[:2] == ['affine', 'nonlinear']
  assert kinds(result)[-4:] == ['residual'] * 4
  for block in result.segments[-4:]:
    assert block.exactness == 'exact'
  assert_consistent(result)


@pytest.mark.slow
def test_all_conv12_from_its_third_layer():
  _, result = reconstructed('all_conv12', 'act3', 128, widths=(24,) * 11)
  assert set(kinds(result)) == {'affine', 'elementwise'}
  assert_consistent(result)
