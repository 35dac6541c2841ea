"""Weights from PyTorch: outputs of its own networks, and what is refused."""

import json
import pathlib
import runpy
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from bort_jax.nn.from_torch import from_torch
from bort_jax.nn.resnet import ResNet
from bort_jax.nn.vgg import VGG16
from bort_jax.nn.vit import ViT

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / 'tests' / 'golden'
MADE_UP = runpy.run_path(
  str(ROOT / 'experiments' / 'reproduce' / 'torch_outputs.py')
)
SHAPES = json.loads((GOLDEN / 'torch_outputs.json').read_text())
Network = TypeVar('Network', bound=nnx.Module)
IMAGENET = ((224, 224, 3), 1000)


def zeros(network: Callable[..., Network], *args, **options) -> Network:
  """A network of zeros, which is quick to make."""
  init = nnx.initializers.zeros_init()
  return network(*args, kernel_init=init, rngs=nnx.Rngs(0), **options)


NETWORKS = {
  'resnet18': lambda: zeros(ResNet, *IMAGENET, depth=18),
  'resnet50': lambda: zeros(ResNet, *IMAGENET, depth=50),
  'vgg16': lambda: zeros(VGG16, *IMAGENET, pooling='max', activation='relu'),
  'vgg16_bn': lambda: zeros(
    VGG16, *IMAGENET, pooling='max', activation='relu', batch_norm=True
  ),
  'vgg16_conv': lambda: zeros(VGG16, *IMAGENET),
  'deit_small_patch16_224': lambda: zeros(ViT, *IMAGENET),
}


def made_up(name):
  return {
    key: MADE_UP['weights'](key, shape, MADE_UP['GAINS'][name])
    for key, shape in SHAPES[name].items()
  }


@pytest.fixture(scope='module')
def resnet18():
  """A ResNet-18 without its weights, in evaluation mode."""
  model = zeros(ResNet, *IMAGENET, depth=18)
  model.eval()
  return model


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_logits_equal_those_of_pytorch(name, tmp_path):
  path = tmp_path / 'weights.safetensors'
  save_file(made_up(name), path)
  model = from_torch(path, NETWORKS[name]())
  path.unlink()  # half a gigabyte, which pytest would keep
  model.eval()
  logits = jax.jit(lambda model, x: model(x))(
    model, MADE_UP['pictures']().transpose(0, 2, 3, 1)
  )
  expected = np.load(GOLDEN / 'torch_outputs.npz')[name]
  error = np.abs(logits - expected).max() / np.abs(expected).max()
  assert error < 1e-4


def test_takes_a_mapping_and_changes_nothing_but_the_weights(resnet18):
  before = jax.tree.map(np.asarray, nnx.state(resnet18))
  weights = made_up('resnet18')
  model = from_torch(weights, resnet18)
  jax.tree.map(np.testing.assert_array_equal, nnx.state(resnet18), before)
  assert isinstance(model, ResNet)
  assert model.stages[0][0].norm1.use_running_average
  kernel = model.stages[1][0].shortcut.conv.kernel[...]
  np.testing.assert_array_equal(
    kernel[0, 0], weights['layer2.0.downsample.0.weight'][:, :, 0, 0].T
  )
  np.testing.assert_array_equal(
    model.stem.norm.var[...], weights['bn1.running_var']
  )


def test_keeps_no_hold_of_the_arrays_given(resnet18):
  weights = made_up('resnet18')
  model = from_torch(weights, resnet18)
  bias = weights['fc.bias'].copy()
  weights['fc.bias'][:] = 7
  np.testing.assert_array_equal(model.head.bias[...], bias)


def test_keeps_dtype_and_logit_scale():
  options = {'depth': 18, 'logit_scale': True, 'param_dtype': 'bfloat16'}
  model = zeros(ResNet, *IMAGENET, **options)
  assert model.scale is not None
  model.scale.log_scale[...] = 0.25
  model = from_torch(made_up('resnet18'), model)
  assert model.scale is not None
  assert model.head.kernel.dtype == 'bfloat16'
  assert model.scale.log_scale[...] == 0.25


def test_lists_all_that_does_not_fit(resnet18):
  weights = made_up('resnet18')
  del weights['layer1.0.bn1.running_mean'], weights['conv1.weight']
  weights['fc.weight'] = weights['fc.weight'][:10]
  weights['layer3.1.conv1.weight'] = np.zeros(3)
  weights['head.weight'] = np.zeros(3)
  with pytest.raises(ValueError, match='do not fit ResNet') as info:
    from_torch(weights, resnet18)
  message = str(info.value)
  assert 'Missing: conv1.weight, layer1.0.bn1.running_mean.' in message
  assert 'Unknown: head.weight.' in message
  assert 'fc.weight gives (512, 10) for head/kernel of shape (512, 1000)' in (
    message
  )
  assert 'layer3.1.conv1.weight gives (3,) for stages/2/1/conv1/kernel' in (
    message
  )


def test_a_long_list_is_cut(resnet18):
  with pytest.raises(ValueError, match=r'Missing: .* and 94 more\.'):
    from_torch({}, resnet18)


def test_refuses_other_networks():
  with pytest.raises(TypeError, match='known for ResNet, .* got a Linear'):
    from_torch({}, nnx.Linear(2, 2, rngs=nnx.Rngs(0)))


def test_refuses_files_that_are_not_there_or_not_whole(resnet18, tmp_path):
  path = tmp_path / 'weights.safetensors'
  with pytest.raises(FileNotFoundError, match='no file .*weights'):
    from_torch(path, resnet18)
  save_file({'fc.bias': np.zeros(1000, np.float32)}, path)
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match='not a whole safetensors file'):
    from_torch(path, resnet18)
