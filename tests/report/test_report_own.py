"""B-cos networks' own explanations in a report."""

import base64
import functools
import io
from typing import Any

import jax
import numpy as np
import PIL.Image
import pytest
from flax import nnx

from bort_jax import attribution, metrics, nn
from bort_jax.report.maps import maps_of, shown_maps
from bort_jax.report.measures import Measured, curve_figures
from bort_jax.report.methods import METHODS, choose_methods
from bort_jax.report.own import OWN, is_bcos, with_own
from bort_jax.report.subject import make_subject
from bort_jax.train.network import make_network

CONTRIBUTIONS, PICTURE = OWN
TARGETS = np.array([[0, 2], [1, 0]])


def subject_of(name):
  make = functools.partial(
    nn.create, name, image_shape=(8, 8, 3), num_classes=3
  )
  network = make_network(lambda: make(rngs=nnx.Rngs(0)))
  weights, x = (
    network.init(),
    jax.random.uniform(jax.random.key(0), (2, 8, 8, 3)),
  )
  return make_subject(network, weights, x), weights, x


@pytest.fixture(scope='module')
def bcos():
  return subject_of('bcos_resnet8')


def test_contributions_are_those_of_the_frozen_network(bcos):
  subject, weights, x = bcos
  maps = maps_of(CONTRIBUTIONS, subject, weights, x, TARGETS)
  assert isinstance(maps, np.ndarray)
  found = [
    nn.bcos.explain(subject.logits, weights, x, target) for target in TARGETS.T
  ]
  expected = np.stack([one.contribution_map for one in found])[..., None]
  np.testing.assert_allclose(maps, expected, atol=1e-6)
  # its sum is the logit too, so the sum would not tell it apart
  other = np.stack(
    [
      attribution.gradient_times_input(subject.logits, weights, x, target)
      for target in TARGETS.T
    ]
  ).sum(-1, keepdims=True)
  assert np.abs(maps - other).max() > 0.1 * np.abs(maps).max()


def test_own_explanations_come_before_the_others(bcos):
  network, weights = bcos[0].logits.network, bcos[1]
  gradient = choose_methods(('gradient',))
  assert with_own(gradient, network, weights) == [*OWN, *gradient]
  other, other_weights, _ = subject_of('patch_net')
  assert with_own(gradient, other.logits.network, other_weights) == gradient


def test_pictures_in_colours_rank_no_pixels():
  control: Any = Measured(*6 * [None])  # pyright: ignore[reportArgumentType]
  measured = {CONTRIBUTIONS.name: 'not measured', metrics.CONTROL: control}
  figures = curve_figures(OWN, measured)
  assert figures[CONTRIBUTIONS.name].why == 'not measured'
  assert figures[PICTURE.name].why == 'A picture in colours ranks no pixels.'


def test_pictures_are_laid_on_white(bcos):
  subject, weights, x = bcos
  pictures = maps_of(PICTURE, subject, weights, x, TARGETS)
  assert isinstance(pictures, np.ndarray)
  assert pictures.shape == (2, 2, 8, 8, 4)
  shown = shown_maps(pictures, 'colours')
  colours, opacity = pictures[..., :3], pictures[..., 3:]
  expected = np.round(255 * (opacity * colours + 1 - opacity))
  for n in range(2):
    pngs = shown[n].png or []
    for k in range(2):
      png = PIL.Image.open(io.BytesIO(base64.b64decode(pngs[k])))
      np.testing.assert_allclose(np.asarray(png), expected[k, n], atol=1)


def test_other_networks_say_that_they_have_none(bcos):
  subject, weights, x = subject_of('patch_net')
  assert is_bcos(bcos[0].logits.network, bcos[1])
  assert not is_bcos(subject.logits.network, weights)
  for method in OWN:
    why = maps_of(method, subject, weights, x, TARGETS)
    assert isinstance(why, str)
    assert 'B-cos network' in why


def test_own_explanations_are_chosen_by_name_alone():
  assert choose_methods(('bcos', 'bcos_picture')) == list(OWN)
  assert not {m.name for m in choose_methods(())} & {m.name for m in OWN}
  assert choose_methods(()) == list(METHODS)
