"""ResNets: published geometry, padding, initialization, what is refused."""

import math

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
  paths,
  random_pictures,
)

from bort_jax import nn, spectrum
from bort_jax.nn.cifar_resnet import CifarResNet
from bort_jax.nn.residual import (
  BasicBlock,
  Bottleneck,
  Layers,
  PadChannels,
)
from bort_jax.nn.resnet import ResidualNetwork, ResNet, Stem


def small(**options):
  return CifarResNet((8, 8, 3), 10, depth=8, rngs=nnx.Rngs(0), **options)


def pictures(count=4):
  return random_pictures(count, 8, 8, 3)


@pytest.mark.parametrize(
  ('depth', 'count'),
  [
    (18, 11_689_512),
    (34, 21_797_672),
    (50, 25_557_032),
    (101, 44_549_160),
    (152, 60_192_808),
  ],
)
def test_parameter_counts_are_those_of_torchvision(depth, count):
  make = lambda: ResNet((224, 224, 3), 1000, depth=depth, rngs=nnx.Rngs(0))
  assert parameter_count(make) == count


@pytest.mark.parametrize(
  ('depth', 'millions'),
  [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)],
)
def test_parameter_counts_are_those_of_the_paper(depth, millions):
  make = lambda: CifarResNet((32, 32, 3), 10, depth=depth, rngs=nnx.Rngs(0))
  digits = 2 if millions < 1 else 1
  assert round(parameter_count(make) / 1e6, digits) == millions


def shapes(network, side, **options):
  image = (side, side, 3)
  return output_shapes(
    lambda: network(image, 10, rngs=nnx.Rngs(0), **options), image
  )


def test_imagenet_geometry():
  found = shapes(ResNet, 224, depth=50)
  assert len(found) == 1 + 3 + 4 + 6 + 3 + 2
  assert found['stem'] == (56, 56, 64)
  assert found['stage1/block3'] == (56, 56, 256)
  assert found['stage2/block1'] == (28, 28, 512)
  assert found['stage3/block6'] == (14, 14, 1024)
  assert found['stage4/block3'] == (7, 7, 2048)
  assert found['pool'] == (2048,)
  assert found['logits'] == (10,)


@pytest.mark.parametrize(('side', 'stem'), [(63, 'small'), (64, 'imagenet')])
def test_the_stem_fits_the_size_of_the_pictures(side, stem):
  assert shapes(ResNet, side, depth=18) == shapes(
    ResNet, side, depth=18, stem=stem
  )
  assert shapes(ResNet, 64, depth=18)['stem'] == (16, 16, 64)
  assert shapes(ResNet, 63, depth=18)['stem'] == (63, 63, 64)


def test_small_geometry():
  assert shapes(CifarResNet, 32, depth=8) == {
    'stem': (32, 32, 16),
    'stage1/block1': (32, 32, 16),
    'stage2/block1': (16, 16, 32),
    'stage3/block1': (8, 8, 64),
    'pool': (64,),
    'logits': (10,),
  }


def layers(init):
  return Layers(
    kernel_init=init,
    zero_init_residual=False,
    dtype=None,
    param_dtype=jnp.float32,
    axis_name=None,
    rngs=nnx.Rngs(0),
  )


def test_layers_pad_the_same_on_both_sides():
  # Where all is ones, the size of an output counts the pixels it saw.
  conv = layers(nnx.initializers.ones_init()).conv(1, 1, 3, 2)
  seen = conv(jnp.ones((1, 6, 6, 1)))[0, :, :, 0]
  np.testing.assert_array_equal(seen, np.outer([2, 3, 3], [2, 3, 3]))


def test_the_pool_of_the_stem_pads_the_same_on_both_sides():
  # A kernel that passes on the pixel it stands on, and no change by the norm.
  stem = Stem(1, 1, 'imagenet', layers(nnx.initializers.zeros_init()))
  stem.conv.kernel[3, 3, 0, 0] = math.sqrt(1 + 1e-5)
  stem.eval()
  x = jnp.arange(144.0).reshape(1, 12, 12, 1)
  every_second = np.arange(144.0).reshape(12, 12)[::2, ::2]
  expected = np.empty((3, 3))
  for i in range(3):
    for j in range(3):
      rows = slice(max(2 * i - 1, 0), 2 * i + 2)
      columns = slice(max(2 * j - 1, 0), 2 * j + 2)
      expected[i, j] = every_second[rows, columns].max()
  np.testing.assert_allclose(stem(x)[0, :, :, 0], expected, rtol=1e-5)


def test_shortcuts_without_parameters_keep_every_second_pixel():
  x = np.arange(32.0).reshape(1, 4, 4, 2)
  y = PadChannels(2, 5, 2)(jnp.asarray(x))
  assert y.shape == (1, 2, 2, 5)
  np.testing.assert_array_equal(y[..., :2], x[:, [0, 2]][:, :, [0, 2]])
  np.testing.assert_array_equal(y[..., 2:], 0)


def test_blocks_start_as_their_shortcut_unless_told_otherwise():
  same = intermediates(small(), pictures())
  np.testing.assert_array_equal(same['stage1/block1'], same['stem'])
  np.testing.assert_array_equal(
    same['stage2/block1'][..., :16], same['stem'][:, ::2, ::2]
  )
  other = intermediates(small(zero_init_residual=False), pictures())
  assert jnp.abs(other['stage1/block1'] - other['stem']).max() > 0.1


def test_kernels_start_as_documented():
  model = CifarResNet((8, 8, 3), 1000, depth=8, rngs=nnx.Rngs(0))
  kernel = np.asarray(model.stages[2][0].conv2.kernel[...])
  assert kernel.std() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=2e-2)
  head = np.asarray(model.head.kernel[...])
  assert np.abs(head).max() == pytest.approx(1 / math.sqrt(64), rel=1e-3)
  assert head.std() == pytest.approx(1 / math.sqrt(3 * 64), rel=1e-2)
  assert model.head.bias is not None
  assert not np.any(model.head.bias[...])


@pytest.mark.parametrize('depth', [18, 50])
def test_the_initializer_is_that_of_every_kernel(depth):
  make = lambda init: ResNet(
    (32, 32, 3), 10, depth=depth, kernel_init=init, rngs=nnx.Rngs(0)
  )
  asked, kernels = kernels_initialized(make)
  assert asked == kernels
  assert len(kernels) == {18: 21, 50: 54}[depth]


@pytest.mark.parametrize('block', [BasicBlock, Bottleneck])
def test_every_kernel_can_start_orthogonal(block):
  model = ResidualNetwork(
    (8, 8, 3),
    10,
    block=block,
    widths=(4, 8),
    counts=(1, 2),
    stem='small',
    shortcut='projection',
    logit_scale=True,
    layers=layers(nnx.initializers.orthogonal()),
  )
  params = nnx.state(model, nnx.Param)
  errors = jax.tree.leaves(spectrum.orthogonality_error(params))
  assert len(errors) == {BasicBlock: 9, Bottleneck: 13}[block]
  assert max(map(float, errors)) < 1e-5


def test_computes_in_the_dtype_and_keeps_parameters_in_theirs():
  model = small(dtype=jnp.bfloat16)
  logits = jax.jit(lambda model, x: model(x))(model, pictures())
  assert logits.dtype == jnp.bfloat16
  _, params = nn.functional(model)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
    jnp.dtype('float32')
  }


def test_a_logit_scale_multiplies_the_logits():
  plain, scaled = small(), small(logit_scale=True)
  assert scaled.scale is not None
  scaled.scale.log_scale[...] = math.log(3) / scaled.scale.multiplier
  logits, x = lambda model, x: intermediates(model, x)['logits'], pictures()
  np.testing.assert_allclose(
    logits(scaled, x), 3 * logits(plain, x), rtol=1e-5, atol=1e-6
  )


def test_gradients_reach_every_parameter():
  apply_fn, params = nn.functional(small(zero_init_residual=False))
  loss = lambda params: jnp.sum(apply_fn(params, pictures())[:, 0] ** 2)
  grads = nnx.filter_state(jax.jit(jax.grad(loss))(params), nnx.Param)
  norms = {
    path: float(jnp.abs(leaf).max()) for path, leaf in paths(grads).items()
  }
  assert min(norms.values()) > 0, norms


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: ResNet((32, 32, 3), 10, depth=20, rngs=nnx.Rngs(0)), '18, 34, 50'),
    (
      lambda: ResNet((32, 32, 3), 10, stem='cifar', rngs=nnx.Rngs(0)),  # pyright: ignore[reportArgumentType]
      "'imagenet', 'small' or None, got 'cifar'",
    ),
    (
      lambda: ResNet((31, 64, 3), 10, stem='imagenet', rngs=nnx.Rngs(0)),
      '32×32 pixels or more, its total stride, got 31×64',
    ),
    (lambda: ResNet((7, 9, 3), 10, rngs=nnx.Rngs(0)), '8×8 pixels or more'),
    (
      lambda: CifarResNet((3, 9, 3), 10, rngs=nnx.Rngs(0)),
      '4×4 pixels or more',
    ),
    (
      lambda: CifarResNet((8, 8, 3), 10, depth=18, rngs=nnx.Rngs(0)),
      r'6n \+ 2',
    ),
    (lambda: CifarResNet((8, 8, 3), 10, depth=2, rngs=nnx.Rngs(0)), r'6n \+ 2'),
  ],
)
def test_refuses(make, message):
  with pytest.raises(ValueError, match=message):
    make()
