"""What goes onto the page: layers, maps, measures, pictures as text."""

import base64
import functools
import io
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from flax import nnx

from bort_jax import attribution, inversion, metrics, nn, plots
from bort_jax.attribution import AttributionError
from bort_jax.report.backwards import WAYS, reconstructions
from bort_jax.report.gather import spread
from bort_jax.report.maps import classes_shown, maps_of, shown_maps
from bort_jax.report.measures import Case, measure, measure_table
from bort_jax.report.method import Method
from bort_jax.report.methods import choose_methods
from bort_jax.report.png import encode
from bort_jax.report.run import settings_of
from bort_jax.report.subject import feature_depth, make_subject
from bort_jax.train import TrainConfig
from bort_jax.train.augment import Recipe
from bort_jax.train.network import make_network


def decoded(png):
  return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(png))))


def network_of(name, seed=0, **options):
  make = functools.partial(
    nn.create, name, image_shape=(8, 8, 1), num_classes=3, **options
  )
  return make_network(lambda: make(rngs=nnx.Rngs(seed)))


@pytest.fixture(scope='module')
def x():
  return jax.random.uniform(jax.random.key(0), (5, 8, 8, 1))


@pytest.fixture(scope='module')
def patches(x):
  """A subject and its weights."""
  network = network_of('patch_net')
  weights = network.init()
  return make_subject(network, weights, x), weights


@pytest.mark.parametrize(
  ('name', 'options', 'feature_map', 'features'),
  [
    ('patch_net', {}, 'act2', 'act2'),
    ('simple_cnn', {'kernel_sizes': (3, 3, 3)}, 'act3', 'act3'),
    ('resnet8', {}, 'stage3/block1', 'stage3/block1'),
    ('vit_ti', {'patch_size': 4, 'depth': 1}, None, 'norm'),
  ],
)
def test_the_last_feature_map_is_found(name, options, feature_map, features, x):
  network = network_of(name, **options)
  subject = make_subject(network, network.init(), x)
  assert (subject.feature_map, subject.features) == (feature_map, features)


def test_segments_up_to_the_feature_map_are_the_first_of_all(patches, x):
  subject, weights = patches
  of = lambda function: [
    (segment.source, segment.operations)
    for segment in jax.eval_shape(
      functools.partial(inversion.reconstruct, function), weights, x
    ).segments
  ]
  depth = feature_depth(subject, weights)
  layer = inversion.until(subject.outputs, subject.feature_map)
  whole = of(subject.logits)
  assert 0 < depth < len(whole)
  assert whole[:depth] == of(layer)


@pytest.mark.parametrize('name', ['gradient', 'backtrack'])
def test_maps_are_those_of_each_class(patches, x, name):
  subject, weights = patches
  (method,) = choose_methods((name,))
  targets = np.array([[0, 2], [1, 0], [2, 1], [0, 1], [1, 2]])
  maps = np.asarray(maps_of(method, subject, weights, x, targets))
  assert maps.shape == (2, *x.shape)
  for i, target in enumerate(targets.T):
    alone = attribution.METHODS[name](
      subject.logits, weights, x, jnp.asarray(target)
    )
    np.testing.assert_allclose(maps[i], alone, rtol=1e-4, atol=1e-6)


def test_maps_are_shown_in_their_colours(patches, x):
  maps = np.random.default_rng(0).normal(size=(3, 2, 8, 8, 1))
  shown = shown_maps(maps, 'signed')
  assert len(shown) == 2
  pngs = [one.png or [] for one in shown]
  for n in range(2):
    for k in range(3):
      expected = plots.map_colors(maps[k], 'signed')[n]
      np.testing.assert_array_equal(decoded(pngs[n][k]), expected)
  assert shown_maps('why not', 'signed')[0].why == 'why not'


def test_large_maps_are_shown_smaller():
  maps = np.ones((1, 1, 224, 320, 3), np.float32)
  (shown,) = shown_maps(maps, 'absolute')
  assert shown.png is not None
  assert decoded(shown.png[0]).shape[:2] == (74, 106)


def test_maps_that_are_not_finite_say_so(patches, x):
  subject, weights = patches
  broken = Method('a', 'A', 'signed', '', lambda s, w, x, t: x / 0)
  assert 'not finite' in maps_of(broken, subject, weights, x, np.zeros((5, 1)))


def test_what_needs_a_map_says_that_there_is_none(x):
  network = network_of('vit_ti', patch_size=4, depth=1)
  weights = network.init()
  subject = make_subject(network, weights, x)
  assert feature_depth(subject, weights) == 0
  for method in choose_methods(('grad_cam', 'class_saliency')):
    why = maps_of(method, subject, weights, x, np.zeros((5, 1), int))
    assert 'names none' in why


def test_a_label_is_among_the_classes_shown():
  probabilities = np.tile(np.linspace(1, 0, 20), (3, 1))
  found = classes_shown(probabilities, np.array([19, 2, -1]))
  assert found.tolist() == [
    [0, 1, 2, 3, 4, 19],
    [0, 1, 2, 3, 4, 5],
    [0, 1, 2, 3, 4, 5],
  ]
  few = classes_shown(probabilities[:, :10], np.array([9, 0, -1]))
  assert few.tolist() == [list(range(10))] * 3


def test_pictures_are_of_as_many_classes_as_there_are():
  labels = np.array([3, 3, 3, 1, 0, 0, 2])
  assert labels[spread(labels, 4)].tolist() == [0, 1, 2, 3]
  assert len(spread(labels, 100)) == 7
  assert len(spread(labels, 0)) == 0


def test_reconstructions_of_orthogonal_patches_are_exact(patches, x):
  subject, weights = patches
  for way in WAYS:
    shown = reconstructions(way, subject, weights, x)
    assert len(shown) == 5
    expected = np.round(255 * np.asarray(x[3]))[..., 0]
    assert np.abs(decoded(shown[3].png) - expected).max() <= 1
    assert 'relative error 0.00' in str(shown[3].caption)


def test_the_caption_tells_which_picture_was_not_brought_back():
  pictures = jnp.array([[0.9, 0.5, 0.2], [0.2, 0.5, 0.9]]).reshape(2, 1, 3, 1)
  params = jax.random.normal(jax.random.key(0), (3, 3))
  subject: Any = SimpleNamespace(
    outputs=squares, features='features', effort={}
  )
  easy, stuck = reconstructions(WAYS[1], subject, params, pictures)
  assert 'Gauss' not in str(easy.caption)
  assert 'did not undo segment' in str(stuck.caption)
  assert 'relative residual of 0.083' in str(stuck.caption)


def squares(params, x):
  """What ends in a local minimum for the second of those pictures."""
  flat = x.reshape(len(x), 3)
  return {'features': flat * jnp.tanh(flat @ params)}


def test_large_pictures_have_few_colours():
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  small, large = encode(noise[:8, :8]), encode(noise)
  assert decoded(small).shape == (8, 8, 3)
  np.testing.assert_array_equal(decoded(small), noise[:8, :8])
  image = PIL.Image.open(io.BytesIO(base64.b64decode(large)))
  assert image.mode == 'P'
  grey = noise[..., :1]
  np.testing.assert_array_equal(decoded(encode(grey)), grey[..., 0])


@pytest.fixture(scope='module')
def measured(patches, x):
  subject, weights = patches
  target = jnp.argmax(subject.logits(weights, x), 1)
  forgotten = network_of('patch_net', seed=1).init()[0]

  def refuse(*args):
    raise AttributionError('It is not for this network.')

  own = choose_methods(('gradient_times_input',))
  made_up = [
    Method('x', 'The picture', 'absolute', '', lambda s, w, x, t: x),
    Method('one', 'All alike', 'absolute', '', lambda s, w, x, t: 0 * x + 1),
    Method('no', 'None', 'signed', '', refuse),
  ]
  case = Case(subject, weights, forgotten, x, target, jnp.array(1.5))
  methods = [*own, *made_up]
  return methods, measure(methods, case)


def test_what_ignores_the_weights_stays_the_same(measured):
  _, by_name = measured
  np.testing.assert_allclose(by_name['x'].randomized, 1, rtol=1e-5)
  assert np.all(by_name['gradient_times_input'].randomized < 0.999)
  assert np.all(np.isnan(by_name['one'].randomized))
  assert by_name[metrics.CONTROL].randomized is None


def test_measures_are_those_of_the_library(patches, x, measured):
  subject, weights = patches
  _, by_name = measured
  target = jnp.argmax(subject.logits(weights, x), 1)
  maps = attribution.gradient_times_input(subject.logits, weights, x, target)
  curve = metrics.deletion(subject.logits, weights, x, target, maps, steps=16)
  found = by_name['gradient_times_input']
  np.testing.assert_allclose(found.deletion.auc, curve.auc, rtol=1e-4)
  lower, upper = found.envelope.lower, found.envelope.upper
  assert lower.shape == upper.shape == curve.scores.shape


def test_the_table_marks_what_is_no_better_than_chance(measured):
  methods, by_name = measured
  table = measure_table(methods, {'Bort': by_name}, 5)
  rows = {row[0]: row[1:] for row in table.groups['Bort']}
  assert list(rows) == [m.label for m in methods] + [metrics.CONTROL]
  assert table.control == metrics.CONTROL
  assert set(rows['None']) == {'–'}
  assert rows['All alike'][2] == 'not defined†'
  assert rows['All alike'][3] == 'not defined'
  assert '†' not in ''.join(rows['Gradient × input'])
  assert '†' not in ''.join(rows[metrics.CONTROL])
  assert all(' ± ' in cell for cell in rows['Gradient × input'])


def test_settings_are_named_as_the_command_line_names_them():
  augment = Recipe(pad_crop=4, flip=True)
  config = TrainConfig(augment=augment, model_options=('depth=2',))
  told = dict(settings_of(config))
  assert told['augment.pad-crop'] == '4'
  assert told['augment.flip'] == 'yes'
  assert told['model-options'] == 'depth=2'
  assert told['ema'] == 'not set'
  assert not any(mark in v for v in told.values() for mark in '{(')
