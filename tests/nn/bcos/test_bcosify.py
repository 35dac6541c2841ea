"""B-cosification: the same function at B = 1, and what follows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bcos_helpers import case, hwio, last
from flax import nnx
from helpers import random_array

from bort_jax import nn
from bort_jax.nn import vgg
from bort_jax.nn.bcos import BcosConv, BcosDense, Norm, bcosify, explain

SIDE = 32


def resnet():
  return nn.CifarResNet(
    (SIDE, SIDE, 3),
    5,
    depth=8,
    zero_init_residual=False,
    logit_scale=True,
    rngs=nnx.Rngs(0),
  )


def imagenet():
  return nn.ResNet(
    (SIDE, SIDE, 3), 5, depth=18, stem='imagenet', rngs=nnx.Rngs(0)
  )


def simple_cnn():
  return nn.SimpleCNN((SIDE, SIDE, 3), 5, rngs=nnx.Rngs(0))


def vgg16():
  return nn.VGG16(
    (SIDE, SIDE, 3),
    5,
    pooling='max',
    activation='relu',
    batch_norm=True,
    rngs=nnx.Rngs(0, dropout=1),
  )


@pytest.fixture(params=[resnet, imagenet, simple_cnn, vgg16])
def trained(request, monkeypatch):
  """A network of which everything is as training might leave it."""
  widths = tuple((4,) * len(stage) for stage in vgg.WIDTHS)
  monkeypatch.setattr(vgg, 'WIDTHS', widths)
  monkeypatch.setattr(vgg, '_HIDDEN', 8)
  model = request.param()
  model.eval()
  rng = np.random.default_rng(0)
  for _, leaf in nnx.iter_graph(model):
    if isinstance(leaf, nnx.Param | nnx.BatchStat) and leaf[...].ndim == 1:
      leaf[...] += jnp.asarray(rng.uniform(size=leaf[...].shape), jnp.float32)
  return model


def pictures():
  return jnp.asarray(random_array(0, (2, SIDE, SIDE, 3), np.float32))


def test_it_is_the_same_function_at_1(trained):
  x = pictures()
  numbers = lambda: nnx.state(trained, (nnx.Param, nnx.BatchStat))
  before = jax.tree.map(jnp.copy, numbers())
  expected = trained(x)
  same = bcosify(trained, b=1)
  largest = float(jnp.abs(expected).max())
  np.testing.assert_allclose(same(x), expected, atol=1e-5 * largest)
  both = jnp.concatenate([x, -x], axis=-1)
  np.testing.assert_allclose(same(both), expected, atol=1e-5 * largest)
  kinds = {type(m) for _, m in nnx.iter_modules(same)}
  assert kinds.isdisjoint({nnx.Conv, nnx.Linear, nnx.BatchNorm})
  for old, new in zip(
    jax.tree.leaves(before), jax.tree.leaves(numbers()), strict=True
  ):
    np.testing.assert_array_equal(old, new)


def test_explanations_of_it_are_complete(trained):
  x, target = pictures(), jnp.array([0, 3])
  for b, keep_bias in ((1, True), (2.0, False)):
    model = bcosify(trained, b=b, keep_bias=keep_bias, logit_bias=-1.0)
    out = explain(*nn.functional(model), x, target)
    parts = jnp.sum(jnp.abs(out.contribution_map), axis=(1, 2))
    size = parts + jnp.abs(out.constant) + jnp.abs(out.logit)
    assert np.all(np.abs(out.completeness_error) < 1e-5 * size)
    assert out.logit_bias == -1
    assert out.weights.shape == (2, SIDE, SIDE, 6)
    if not keep_bias:
      np.testing.assert_array_equal(out.constant, 0)


def test_it_keeps_its_mode_and_trains():
  model = bcosify(resnet())
  norms: Any = [m for _, m in nnx.iter_modules(model) if isinstance(m, Norm)]
  assert not any(norm.use_running_average for norm in norms)
  before = np.asarray(norms[0].var[...])
  loss = lambda model, x: jnp.sum(model(x) ** 2)
  gradient = nnx.grad(loss)(model, pictures())
  assert np.any(norms[0].var[...] != before)
  assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))
  model.eval()
  assert all(norm.use_running_average for norm in norms)


def test_the_head_of_a_residual_network_comes_before_the_mean():
  model = bcosify(resnet(), b=2)
  assert isinstance(model.network.head, BcosConv)
  assert model.network.head.kernel.shape == (1, 1, 64, 5)
  assert isinstance(bcosify(simple_cnn()).network.head, BcosDense)


def test_six_channels_give_what_three_gave_in_the_published_code(float64):
  arrays = case('bcosify')
  conv = BcosConv(
    6,
    5,
    (3, 3),
    padding=1,
    b=1,
    normalize=False,
    param_dtype=np.float64,
    rngs=nnx.Rngs(0),
  )
  kernel = hwio(arrays['w3']) / 2
  conv.kernel[...] = jnp.concatenate([kernel, -kernel], axis=2)
  rgb = last(arrays['rgb'])
  mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
  x = (rgb - np.array(mean)) / np.array(std)
  got = conv(nn.bcos.add_inverse(jnp.asarray(x), 0.0))
  np.testing.assert_allclose(got, last(arrays['out']), rtol=1e-10, atol=1e-12)


def test_other_networks_are_refused():
  with pytest.raises(TypeError, match='got a ViT'):
    bcosify(nn.ViT((8, 8, 3), 5, patch_size=4, depth=1, rngs=nnx.Rngs(0)))
  with pytest.raises(TypeError, match='got a BcosCifarResNet'):
    bcosify(nn.bcos.BcosCifarResNet((8, 8, 3), 5, depth=8, rngs=nnx.Rngs(0)))
