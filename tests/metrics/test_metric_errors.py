"""Bad input is refused in words that say what to do."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import metric_helpers as h
import numpy as np
import pytest

from bort_jax import metrics
from bort_jax.metrics import chunks

KEY = jax.random.key(0)
EACH = pytest.mark.parametrize(
  'metric',
  [
    metrics.deletion,
    metrics.insertion,
    metrics.certified_envelope,
    metrics.completeness,
    functools.partial(metrics.faithfulness_correlation, key=KEY),
    functools.partial(metrics.infidelity, key=KEY),
  ],
)
SHAPE = (3, 6, 5, 2)


def refused(metric, match, *, x=None, target=None, maps=None, apply_fn=None):
  own, params, pictures, classes = h.network(SHAPE)
  given = lambda value, default: default if value is None else value
  with pytest.raises(metrics.MetricError, match=match):
    metric(
      apply_fn or own,
      params,
      given(x, pictures),
      given(target, classes),
      given(maps, jnp.ones(SHAPE)),
    )


@EACH
@pytest.mark.parametrize(
  ('target', 'match'),
  [
    ([0, 4, 1], 'target 4 does not exist: there are 4 classes, 0 … 3'),
    ([-1, 0, 1], 'target -1 does not exist'),
    ([0, 1], r'shape \(3,\), a class for each picture, or one for all'),
    (4, 'target 4 does not exist'),
    ([0.0, 1.0, 2.0], 'must be integers'),
    (np.eye(4)[:3], 'must be integers'),
  ],
)
def test_targets(metric, target, match):
  refused(metric, match, target=np.asarray(target))


@EACH
def test_targets_that_cannot_be_read_are_undefined(metric):
  apply_fn, params, x, _ = h.network(SHAPE)
  maps = h.pictures(SHAPE, seed=5)
  found = jax.jit(lambda target: metric(apply_fn, params, x, target, maps))(
    jnp.array([0, -1, 4])
  )
  judged = {
    'PerturbationCurve': ('scores', 'auc'),
    'Envelope': ('lower', 'upper'),
    'Completeness': ('delta',),
    'FaithfulnessCorrelation': ('correlation', 'drop'),
    'Infidelity': metrics.Infidelity._fields,
  }
  for field in judged[type(found).__name__]:
    value = np.asarray(getattr(found, field)).reshape(3, -1)
    undefined = np.isnan(value)
    assert undefined[1:].all(), field
    assert not undefined[0].any(), field


def test_a_target_that_is_missing():
  apply_fn, params, x, _ = h.network(SHAPE)
  missing: Any = None
  with pytest.raises(metrics.MetricError, match='target is missing.*argmax'):
    metrics.deletion(apply_fn, params, x, missing, x)


@EACH
@pytest.mark.parametrize(
  ('shape', 'match'),
  [
    ((3, 5, 6), r'got \(3, 5, 6\). Resize'),
    ((3, 6, 5, 3), r'got \(3, 6, 5, 3\)'),
    ((3, 2, 6, 5), 'Channels come last: use jnp.moveaxis'),
    ((2, 6, 5), r'must have shape \(3, 6, 5\), \(3, 6, 5, 1\) or'),
    ((6, 5), r'got \(6, 5\)'),
  ],
)
def test_maps_of_another_shape(metric, shape, match):
  refused(metric, match, maps=jnp.ones(shape))


@EACH
def test_pictures_that_are_none(metric):
  refused(metric, 'must be floats', x=jnp.ones(SHAPE, jnp.uint8))
  refused(metric, r'\(N, H, W, C\)', x=jnp.ones(SHAPE[1:]))
  refused(metric, 'nothing in it', x=jnp.ones((0, 6, 5, 2)))


@EACH
def test_networks_that_return_no_logits(metric):
  own, *_ = h.network(SHAPE)
  for wrong in (
    lambda params, x: own(params, x)[0],
    lambda params, x: {'logits': own(params, x)},
    lambda params, x: jnp.argmax(own(params, x), axis=-1),
  ):
    refused(metric, r'must return float logits \(N, K\)', apply_fn=wrong)


def test_a_network_without_a_hash():
  @dataclasses.dataclass
  class Network:
    size: int = 4

    def __call__(self, params, x):
      return jnp.zeros((len(x), self.size))

  _, params, x, target = h.network(SHAPE)
  with pytest.raises(metrics.MetricError, match='apply_fn is of type Network'):
    metrics.deletion(Network(), params, x, target, x)


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'steps': 31}, 'steps must be at most 30'),
    ({'steps': 0}, 'at least 1'),
    ({'steps': 2.5}, 'must be an integer'),
    ({'steps': 3, 'pixels_per_step': 3}, 'not both'),
    ({'pixels_per_step': 31}, 'at most 30'),
    ({'convention': 'captum'}, 'one of rise, xplique, quantus, logit_ratio'),
    ({'score': 'logits'}, 'one of softmax, logit, logit_ratio'),
    ({'ties': 'random'}, 'one of low, high'),
    ({'baseline': 'black'}, 'one of blur, blur31, mean, min'),
    ({'baseline': jnp.ones(3)}, r'broadcasts to \(3, 6, 5, 2\)'),
    ({'chunk': 0}, 'chunk must be an integer, at least 1'),
  ],
)
def test_settings_of_curves(options, match):
  for metric in (metrics.deletion, metrics.insertion):
    refused(functools.partial(metric, **options), match)


def test_masks_and_maps_without_pictures():
  maps = jnp.ones((2, 4, 4))
  for metric in (
    metrics.pointing_game,
    metrics.relevance_rank_accuracy,
    metrics.relevance_mass_accuracy,
  ):
    with pytest.raises(metrics.MetricError, match='mask must be bool'):
      metric(maps, jnp.ones((2, 4, 4)))
    with pytest.raises(metrics.MetricError, match='mask must be bool'):
      metric(maps, jnp.ones((2, 4, 5), bool))
  for metric in (metrics.sparseness, metrics.complexity):
    with pytest.raises(metrics.MetricError, match='real maps'):
      metric(jnp.ones((4, 4)))
    with pytest.raises(metrics.MetricError, match='real maps'):
      metric(jnp.ones((1, 4, 4), complex))


def test_numbers_that_are_traced_are_not_read():
  apply_fn, params, x, target = h.network(SHAPE)
  run = jax.jit(
    lambda target: metrics.completeness(apply_fn, params, x, target, x)
  )
  assert np.isfinite(run(target).delta).all()


def test_memory_that_runs_out_names_the_remedy():
  def full(chunk):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')

  def broken():
    raise jax.errors.JaxRuntimeError('INTERNAL: something else')

  with pytest.raises(metrics.MetricError, match='Set chunk= to fewer'):
    chunks.within_memory(full, None, chunk=None)
  with pytest.raises(metrics.MetricError, match='with chunk=64'):
    chunks.within_memory(full, 64, chunk=64)
  with pytest.raises(jax.errors.JaxRuntimeError, match='something else'):
    chunks.within_memory(broken, chunk=None)
