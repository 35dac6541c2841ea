"""Batch statistics: running ones, and those of many devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from network_helpers import intermediates, paths, random_pictures

from bort_jax.nn.cifar_resnet import CifarResNet


def small(**options):
  return CifarResNet((8, 8, 3), 10, depth=8, rngs=nnx.Rngs(0), **options)


def pictures(count=4):
  return random_pictures(count, 8, 8, 3)


@nnx.jit
def forward(model, x):
  return model(x)


def test_training_updates_running_statistics_and_evaluation_uses_them():
  model, x = small(), pictures()
  before = forward(model, x)
  y = np.asarray(model.stem.conv(x), np.float64)
  mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
  norm = model.stem.norm
  np.testing.assert_allclose(norm.mean[...], 0.1 * mean, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * var, rtol=1e-4)
  np.testing.assert_array_equal(forward(model, x), before)

  model.eval()
  mean, var = np.asarray(norm.mean[...]), np.asarray(norm.var[...])
  expected = np.maximum((y - mean) / np.sqrt(var + 1e-5), 0)
  stem = intermediates(model, x)['stem']
  np.testing.assert_allclose(stem, expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(norm.mean[...], mean)
  assert jnp.abs(forward(model, x) - before).max() > 1e-3

  model.train()
  np.testing.assert_array_equal(forward(model, x), before)


def step(graphdef, state, x):
  model = nnx.merge(graphdef, state)
  return model(x), nnx.state(model, nnx.BatchStat)


@pytest.mark.parametrize('mapped', ['pmap', 'shard_map'])
def test_statistics_over_devices_are_those_of_the_whole_batch(mapped):
  options = {'zero_init_residual': False}
  graphdef, state = nnx.split(small(**options))
  expected, expected_stats = jax.jit(step, static_argnums=0)(
    graphdef, state, pictures(8)
  )
  graphdef, _ = nnx.split(small(axis_name='data', **options))
  run = lambda state, x: step(graphdef, state, x)
  devices = jax.devices()[:4]
  if mapped == 'pmap':
    logits, stats = jax.pmap(
      run, axis_name='data', in_axes=(None, 0), devices=devices
    )(state, pictures(8).reshape(4, 2, 8, 8, 3))
    logits = logits.reshape(8, 10)
    stats = jax.tree.map(lambda leaf: leaf[3], stats)
  else:
    spec = PartitionSpec('data')
    logits, stats = jax.jit(
      jax.shard_map(
        run,
        mesh=Mesh(np.array(devices), ('data',)),
        in_specs=(PartitionSpec(), spec),
        out_specs=(spec, PartitionSpec()),
      )
    )(state, pictures(8))
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
  for path, leaf in paths(stats).items():
    np.testing.assert_allclose(
      leaf, paths(expected_stats)[path], rtol=1e-4, atol=1e-5, err_msg=path
    )


def test_an_axis_name_needs_a_mapped_axis():
  with pytest.raises(NameError, match='data'):
    small(axis_name='data')(pictures())
