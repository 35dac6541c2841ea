"""Top pictures of units, from a stream, and what they say of consistency."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import metric_helpers as h
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort_jax.metrics import MetricError, neurons

SHAPE = (11, 4, 3, 2)
CLASSES = 3


def outputs(params, x):
  """A map, a code of it, and logits."""
  maps = jax.nn.relu(h.convolved(x, params[0]))
  code = jnp.mean(maps, axis=(1, 2))
  return {'maps': maps, 'code': code, 'logits': code @ params[1]}


PARAMS = h.conv_params(2, CLASSES)
X = h.pictures(SHAPE)
LABELS = jnp.arange(11) % CLASSES


def split(size, *arrays):
  starts = range(0, len(arrays[0]), size)
  return (tuple(a[i : i + size] for a in arrays) for i in starts)


def surveyed(size=4, x=X, labels=LABELS, **options):
  options = {'count': 3, **options}
  return neurons.survey(
    outputs, PARAMS, split(size, x, labels), num_classes=CLASSES, **options
  )


def table(params, x):
  """Each picture has its own activations."""
  return {'units': x[:, 0, :, 0] * params[None]}


def survey_of(activations, labels):
  """Of three units, the last ones silent; one shape, compiled once."""
  activations = np.asarray(activations, np.float32)
  silent = np.zeros((len(activations), 3 - activations.shape[1]), np.float32)
  x = jnp.concatenate([activations, silent], axis=1)[:, None, :, None]
  return neurons.survey(
    table,
    jnp.ones(3),
    split(3, x, jnp.asarray(labels)),
    num_classes=6,
    count=6,
    allow_empty=True,
  )


def best(column, count):
  """Pictures that activate most, the first of equals, if more than the least.

  A stable sort of all is what the stream must come to.
  """
  order = np.argsort(-column, kind='stable')[:count]
  return [i for i in order if column[i] > column.min()]


@settings(max_examples=15, deadline=None)
@given(
  st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=3, max_size=9
  )
)
def test_a_stream_keeps_what_a_stable_sort_finds_first(rows):
  column = np.array(rows, np.float32)
  labels = np.arange(len(rows)) % CLASSES
  units = survey_of(column, labels)['units']
  for u in (0, 1):
    kept = np.asarray(units.pictures[u])[np.asarray(units.fired[u])]
    assert kept.tolist() == best(column[:, u], 6)
    np.testing.assert_array_equal(units.labels[u][units.fired[u]], kept % 3)
    np.testing.assert_array_equal(
      units.values[u][units.fired[u]], column[kept, u]
    )


@pytest.mark.parametrize('pool', ['max', 'mean'])
def test_top_pictures_of_a_network_are_those_of_all_at_once(pool):
  found = surveyed(pool=pool)
  assert found.layers == ('maps', 'code', 'logits')
  maps = np.asarray(outputs(PARAMS, X)['maps'])
  flat = maps.reshape(len(maps), -1, maps.shape[-1])
  pooled = flat.max(1) if pool == 'max' else flat.mean(1)
  units, places = found['maps'], found.places('maps')
  for u in range(maps.shape[-1]):
    kept = np.argsort(-pooled[:, u], kind='stable')[:3]
    fired = np.asarray(units.fired[u])
    assert np.asarray(units.pictures[u])[fired].tolist() == kept[fired].tolist()
    np.testing.assert_allclose(units.values[u], pooled[kept, u], rtol=1e-5)
    for i, place in zip(kept[fired], places[u][fired], strict=True):
      assert maps[(i, *place, u)] == flat[i, :, u].max()
  assert found.places('code').shape == (8, 3, 0)
  assert found.counts.tolist() == [4, 4, 3]


def test_batches_do_not_matter_and_nothing_is_compiled_again():
  expected, found = surveyed(11), surveyed()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected
  )
  with h.compilations() as count:
    surveyed()  # 4 + 4 + 3: the last one is padded
  assert not count


def test_surveys_of_halves_make_that_of_the_whole():
  parts = [
    surveyed(x=X[part], labels=LABELS[part])
    for part in (slice(0, 4), slice(4, 11))
  ]
  whole = surveyed()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
    neurons.merged(*parts),
    whole,
  )
  fewer = survey_of(np.eye(3), [0, 1, 2])
  with pytest.raises(MetricError, match='same layers, classes and count'):
    neurons.merged(whole, fewer)


def test_a_unit_that_tells_nothing_apart_has_no_consistency():
  rows = [[0.0, 1.0, np.nan], [0.0, 2.0, 1.0], [0.0, 0.0, 2.0]]
  found = survey_of(rows, [0, 1, 2])
  p = np.asarray(neurons.class_distribution(found['units'], CLASSES))
  assert np.isnan(p[[0, 2]]).all()
  np.testing.assert_allclose(p[1], [0.5, 0.5, 0])
  scores = neurons.consistency(found['units'], jnp.eye(CLASSES))
  np.testing.assert_array_equal(scores, [np.nan, 0.5, np.nan])


@pytest.mark.parametrize(
  ('labels', 'expected'),
  [([0] * 6, 1.0), ([0, 1, 2] * 2, 0.738), ([0, 3] * 3, 0.568)]
  + [(range(6), 0.437)],
)
def test_consistency_goes_by_how_near_the_classes_are(labels, expected):
  groups = {'top': 'ab', 'a': '012', 'b': '345'}
  links = [(top, name) for top, names in groups.items() for name in names]
  near = neurons.affinity(
    neurons.class_distances(links, ['0', '1', '2', '3', '4', '5'])
  )
  found = survey_of(np.arange(7)[:, None], [5, *labels])
  score = float(neurons.consistency(found['units'], near)[0])
  assert score == pytest.approx(expected, abs=5e-4)


def test_chance_is_the_mean_of_all_draws():
  counts, k = np.array([3, 2, 1]), 3
  near = np.array([[1, 0.5, 0], [0.5, 1, 0.25], [0, 0.25, 1]])
  labels = np.repeat(np.arange(3), counts)
  score = lambda p: p @ near @ p
  draws = [
    score(np.bincount(labels[list(draw)], minlength=3) / k)
    for draw in itertools.combinations(range(6), k)
  ]
  found = float(neurons.chance(counts, near, k))
  assert found == pytest.approx(np.mean(draws), rel=1e-5)
  many = neurons.chance(counts, near, np.array([3, 1, 0]))
  np.testing.assert_allclose(many, [found, 1, np.nan], rtol=1e-5)


def test_a_unit_that_one_picture_activates_is_no_better_than_chance():
  # the first unit is activated by all but one, the second by one alone
  labels = jnp.array([0, 1, 2, 0, 1, 2])
  real = jnp.array([[5.0, 0], [4, 1], [3, 0], [2, 0], [1, 0], [0, 0]])
  fewer = real.at[2:, 0].set(0)
  wide = lambda a: jnp.pad(a, [(0, 0), (0, 1)])[:, None, :, None]
  found = neurons.survey_pairs(
    table,
    jnp.ones(3),
    [(wide(real), wide(fewer), labels)],
    num_classes=3,
    count=6,
  )
  row = neurons.summarize(found, jnp.eye(3))[0]
  assert (row.units, row.defined) == (3, 2)
  assert (row.pictures, row.adversarial_pictures) == (3, 1.5)
  p = np.array([2, 2, 1]) / 5
  np.testing.assert_allclose(row.real, (1 + p @ p) / 2, rtol=1e-5)
  drawn = jnp.array([5, 2])
  by_chance = np.asarray(neurons.chance(jnp.full(3, 2), jnp.eye(3), drawn))
  np.testing.assert_allclose(row.chance, (1 + by_chance[0]) / 2, rtol=1e-5)
  np.testing.assert_allclose(
    row.adversarial_chance, (1 + by_chance[1]) / 2, rtol=1e-5
  )
  lost = neurons.lost_consistency(found, 'units', jnp.eye(3))
  expected = (p @ p - by_chance[0]) - (0.5 - by_chance[1])
  np.testing.assert_allclose(lost, [expected, 0, np.nan], atol=1e-6)


def paired_survey(x, y):
  return neurons.survey_pairs(
    outputs, PARAMS, split(4, x, y, LABELS), num_classes=CLASSES, count=3
  )


def test_likeness_is_that_of_all_pairs_at_once(float64):
  params = h.conv_params(2, CLASSES, dtype=jnp.float64)
  x, y = (h.pictures(SHAPE, seed, jnp.float64) for seed in (1, 2))
  y = y.at[3].set(x[3])  # not attacked at all
  found = neurons.survey_pairs(
    outputs,
    params,
    split(4, x, y, LABELS),
    num_classes=CLASSES,
    layers=['maps'],
  )
  (likeness,) = found.likeness
  one, other = (
    np.asarray(outputs(params, a)['maps']).reshape(11, -1) for a in (x, y)
  )
  distance = np.linalg.norm(one - other, axis=1)
  lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10)
  close(likeness.cosine.average, np.mean(np.sum(one * other, 1) / lengths))
  close(likeness.distance.average, distance.mean())
  close(likeness.distance.deviation, distance.std(ddof=1))
  apart = [np.sum((a - b) ** 2) for a, b in itertools.combinations(one, 2)]
  close(likeness.relative_distance, distance.mean() / np.mean(apart) ** 0.5)
  change = np.linalg.norm((x - y).reshape(11, -1), axis=1)
  moved = np.delete(distance, 3) / np.delete(change, 3)
  close(likeness.greatest_stretch, moved.max())
  close(found.change.average, change.mean())


def test_pairs_are_two_surveys_and_both_together():
  y = h.pictures(SHAPE, 2)
  found = paired_survey(X, y)
  same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5)
  jax.tree.map(same, found.real, surveyed())
  both = jnp.concatenate([X, y])
  together = surveyed(x=both, labels=jnp.tile(LABELS, 2))
  jax.tree.map(same, found.both, together)


def test_equal_pictures_lose_nothing_and_have_no_stretch():
  found = paired_survey(X, X)
  lost = np.asarray(neurons.lost_consistency(found, 'maps', jnp.eye(CLASSES)))
  assert np.all((lost == 0) | np.isnan(lost))
  assert np.isfinite(lost).any()
  row = neurons.summarize(found, jnp.eye(CLASSES), jnp.ones(3))[0]
  assert row.drift == 0 == row.relative_distance
  assert row.cosine == pytest.approx(1)
  assert np.isnan(row.of_bound)


@pytest.mark.parametrize('size', [1e25, 1e-25])
def test_the_cosine_of_long_and_short_outputs_is_defined(size):
  found = neurons.survey_pairs(
    table,
    jnp.full(3, size),
    [(jnp.ones((3, 1, 3, 1)), jnp.full((3, 1, 3, 1), 10.0), jnp.arange(3))],
    num_classes=3,
  )
  assert float(found.likeness[0].cosine.average) == pytest.approx(1)


def test_batches_of_other_pictures_are_refused():
  other = {'size': X[:4, :3], 'type': X[:4].astype(jnp.bfloat16)}
  for x in other.values():
    with pytest.raises(MetricError, match='Resize all to one size'):
      neurons.survey(
        outputs,
        PARAMS,
        [(X[:4], LABELS[:4]), (x, LABELS[:4])],
        num_classes=CLASSES,
      )
  with pytest.raises(MetricError, match='of the shape and type of the real'):
    paired_survey(X, X.astype(jnp.bfloat16))


def test_influence_is_what_the_logit_loses():
  target = jnp.array([0, 1, 2])
  x = X[:3]
  clean = outputs(PARAMS, x)
  for layer, chunk in (('maps', None), ('maps', 7), ('code', 2)):
    found = neurons.influence(
      outputs, PARAMS, x, target, layer=layer, chunk=chunk
    )
    for unit in (0, 5):
      z = clean[layer].at[..., unit].set(0)
      code = jnp.mean(z, axis=(1, 2)) if layer == 'maps' else z
      lost = clean['logits'] - code @ PARAMS[1]
      np.testing.assert_allclose(
        found[:, unit], lost[jnp.arange(3), target], atol=1e-5
      )
  some = neurons.influence(
    outputs, PARAMS, x, target, layer='code', units=[5, 0]
  )
  np.testing.assert_allclose(some, found[:, [5, 0]], rtol=1e-5)
  units: Any
  for units in ([8], [-1], [0.5], []):
    with pytest.raises(MetricError, match='units must be a list of numbers 0'):
      neurons.influence(outputs, PARAMS, x, target, layer='code', units=units)
  shares = neurons.influence(
    outputs, PARAMS, x, target, layer='code', score='softmax'
  )
  assert float(jnp.max(jnp.abs(shares))) < 1


def test_segments_are_layers_too():
  logits = lambda params, x: outputs(params, x)['logits']
  found = neurons.survey(
    logits, PARAMS, [(X, LABELS)], num_classes=CLASSES, layers=[0, 1]
  )
  assert found.units[1].values.shape == (8, 9)
