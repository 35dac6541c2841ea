"""Invariance and equivariance are laws, for any features."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_array
from hypothesis import given, settings
from hypothesis import strategies as st

from bort_jax import symmetry
from bort_jax.nn import glassbox
from bort_jax.symmetry import C4, D4, Shifts

few = settings(max_examples=6, deadline=None)


def lopsided(params, x):
  """Features without any symmetry, (N, 4)."""
  flat = x.reshape(len(x), -1)
  size = flat.shape[1]
  weights = jnp.sin(jnp.arange(4 * size, dtype=x.dtype)).reshape(size, 4)
  return jnp.tanh(flat @ weights)


FEATURES = [glassbox.pixels, glassbox.CosineBank(3, cell=1), lopsided]


@st.composite
def cases(draw):
  group = draw(st.sampled_from([C4, D4, Shifts(2, 3)]))
  side = draw(st.integers(2, 5))  # odd and even
  shape = (2, 2, 3) if isinstance(group, Shifts) else (2, side, side)
  element = draw(st.integers(0, group.order - 1))
  channels = draw(st.integers(1, 2))
  return group, element, (*shape, channels), draw(st.sampled_from(FEATURES))


PARTS = ('plain', 'average', 'maximum', 'orbit', 'isotypic')


@functools.partial(jax.jit, static_argnums=(0, 1))
def represented(features, group, element, x):
  moved = symmetry.act(group, element, x)
  make = functools.partial(glassbox.represent, features, None, group=group)
  return [{part: make(a, part=part) for part in PARTS} for a in (x, moved)]


@given(cases())
@few
def test_laws(case):
  group, element, shape, features = case
  with jax.enable_x64(True):
    x = jnp.asarray(random_array(0, shape))
    one, other = represented(features, group, element, x)
  # invariant
  np.testing.assert_allclose(one['average'], other['average'], atol=1e-12)
  np.testing.assert_array_equal(one['maximum'], other['maximum'])
  # equivariant: the copy of g becomes that of g h
  stacks = [
    np.asarray(a['orbit']).reshape(*a['plain'].shape[:-1], group.order, -1)
    for a in (one, other)
  ]
  places = group.places(*shape[1:3])
  index = {tuple(row): g for g, row in enumerate(places.tolist())}
  after = [index[tuple(places[element][row])] for row in places]
  np.testing.assert_array_equal(stacks[1], stacks[0][..., after, :])
  # a resolution of the features
  parts = np.asarray(one['isotypic'])
  parts = parts.reshape(*parts.shape[:-1], len(group.components), -1)
  np.testing.assert_allclose(parts.sum(-2), one['plain'], atol=1e-12)
  np.testing.assert_allclose(parts[..., 0, :], one['average'], atol=1e-12)


def test_of_pixels_distances_stay_what_they_are(float64):
  x = jnp.asarray(random_array(2, (2, 5, 5, 2)))
  apart = lambda part: float(
    jnp.linalg.norm(
      jnp.diff(
        glassbox.represent(glassbox.pixels, None, x, group=D4, part=part),
        axis=0,
      )
    )
  )
  np.testing.assert_allclose(apart('orbit'), np.sqrt(8) * apart('plain'))
  np.testing.assert_allclose(apart('isotypic'), apart('plain'))
  assert apart('average') < apart('plain')


def test_the_bank_is_orthonormal_and_turns_swap_its_filters(float64):
  bank = glassbox.CosineBank(3, cell=2)
  patch = jnp.zeros((1, 3, 3, 1)).at[0].set(random_array(3, (3, 3, 1)))
  middle = glassbox.CosineBank(3, cell=1)(None, patch)[0, 1, 1]
  np.testing.assert_allclose(jnp.sum(middle**2), jnp.sum(patch**2))
  x = jnp.asarray(random_array(4, (1, 6, 6, 2)))
  swap = np.arange(9).reshape(3, 3).T.ravel()
  maps = bank(None, x)
  maps = maps.reshape(*maps.shape[:-1], 2, 9)[..., swap]
  expected = jnp.rot90(maps.reshape(1, 3, 3, 18), axes=(1, 2))
  turned = bank(None, symmetry.act(C4, 1, x))
  np.testing.assert_allclose(turned, expected, atol=1e-12)


def test_what_is_left_over_by_cells_is_dropped():
  x = random_array(5, (1, 7, 8, 1), np.float32)
  bank = glassbox.CosineBank(1, cell=2)
  assert bank(None, x).shape == (1, 3, 4, 1)
  np.testing.assert_allclose(bank(None, x), bank(None, x[:, :6]), rtol=1e-6)


def test_short_floats_stay_short():
  x = jnp.asarray(random_array(6, (2, 4, 4, 1)), jnp.bfloat16)
  for part in ('average', 'maximum', 'orbit', 'isotypic', 'plain'):
    code = glassbox.represent(glassbox.pixels, None, x, group=C4, part=part)
    assert code.dtype == jnp.bfloat16


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'part': 'mean'}, 'one of plain, average'),
    ({'x': jnp.ones((1, 3, 4, 1))}, 'must be square'),
    ({'features': lambda params, x: x.sum()}, r'floats \(N, ..., C\)'),
    ({'features': lambda params, x: x.argmax(-1)}, r'floats \(N, ..., C\)'),
    ({'features': glassbox.CosineBank(3, cell=5)}, 'choose a smaller'),
  ],
)
def test_refuses(options, match):
  given = {
    'features': glassbox.pixels,
    'x': jnp.ones((1, 4, 4, 1)),
    'group': D4,
    'part': 'average',
    **options,
  }
  features, x = given.pop('features'), given.pop('x')
  with pytest.raises(ValueError, match=match):
    glassbox.represent(features, None, x, **given)


@pytest.mark.parametrize('options', [{'size': 2}, {'size': 0}, {'cell': 1.5}])
def test_banks_refuse(options):
  with pytest.raises(glassbox.GlassBoxError, match='must be'):
    glassbox.CosineBank(**options)
