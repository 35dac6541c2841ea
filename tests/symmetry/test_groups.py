"""Groups are groups, act exactly, and split pictures without loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_array
from hypothesis import given, settings
from hypothesis import strategies as st

from bort_jax import symmetry
from bort_jax.symmetry import C4, D4, Shifts

SMALL = [C4, D4, Shifts(1, 1), Shifts(2, 3), Shifts(4, 1)]
few = settings(max_examples=5, deadline=None)


@st.composite
def cases(draw):
  """A group, a side that it can act on, channels and a seed."""
  group = draw(st.sampled_from(SMALL))
  if isinstance(group, Shifts):
    height = group.rows * draw(st.integers(1, 2))
    width = group.columns * draw(st.integers(1, 2))
  else:
    height = width = draw(st.integers(1, 5))  # odd and even
  return group, (2, height, width, draw(st.integers(1, 3)))


@functools.partial(jax.jit, static_argnums=0)
def moved_by_all(group, x):
  moved = jax.vmap(lambda g: symmetry.act(group, g, x))(jnp.arange(group.order))
  return symmetry.orbit(group, x), moved


@functools.partial(jax.jit, static_argnums=0)
def taken_apart(group, element, x):
  """Parts, their sum, parts of each part, of the moved x, and moved parts."""
  parts = symmetry.split(group, x)
  of_moved = symmetry.split(group, symmetry.act(group, element, x))
  return {
    'parts': parts,
    'sum': symmetry.join(parts),
    'again': symmetry.split(group, parts),
    'of moved': of_moved,
    'moved': jax.vmap(lambda part: symmetry.act(group, element, part))(parts),
  }


def table_of(group, height, width):
  """products[g, h]: the element that g after h is."""
  places = group.places(height, width)
  by_places = {tuple(row): i for i, row in enumerate(places.tolist())}
  assert len(by_places) == group.order
  return np.array([[by_places[tuple(h[g])] for h in places] for g in places])


@pytest.mark.parametrize('group', [*SMALL[:2], Shifts(2, 3), Shifts(4, 4)])
def test_products_and_inverses_are_elements(group):
  side = (4, 6) if group == Shifts(2, 3) else (4, 4)
  products = table_of(group, *side)
  everyone = np.arange(group.order)
  np.testing.assert_array_equal(products[0], everyone)
  np.testing.assert_array_equal(
    np.sort(products, 1)[:, :], [everyone] * group.order
  )
  assert (products == 0).sum(1).tolist() == [1] * group.order


def test_acts_as_numpy_does():
  x = random_array(0, (2, 5, 5, 3))
  for turn in range(4):
    np.testing.assert_array_equal(
      symmetry.act(D4, turn, x), jnp.rot90(x, turn, (1, 2))
    )
    np.testing.assert_array_equal(
      symmetry.act(D4, 4 + turn, x), jnp.rot90(x[:, :, ::-1], turn, (1, 2))
    )
  x = x[:, :4]
  np.testing.assert_array_equal(
    symmetry.act(Shifts(2, 5), 7, x), jnp.roll(x, (2, 2), (1, 2))
  )


@given(cases())
@few
def test_orbits_are_all_actions_and_traced_elements_are_known(case):
  group, shape = case
  x = jnp.asarray(random_array(1, shape), jnp.float32)
  stack, moved = moved_by_all(group, x)
  assert stack.shape == (group.order, *shape)
  np.testing.assert_array_equal(stack, moved)


@given(cases(), st.integers(0, 10**6))
@few
def test_the_split_is_orthogonal_equivariant_and_inverts(case, draw):
  group, shape = case
  element = draw % group.order
  with jax.enable_x64(True):
    x = jnp.asarray(random_array(draw, shape))
    found = taken_apart(group, element, x)
  found = {name: np.asarray(value) for name, value in found.items()}
  parts, x = found['parts'], np.asarray(x)
  assert parts.shape == (len(group.components), *shape)
  np.testing.assert_allclose(found['sum'], x, rtol=0, atol=1e-12)
  rows = parts.reshape(len(parts), -1)
  gram = rows @ rows.T
  np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-11)
  np.testing.assert_allclose(np.trace(gram), np.sum(x**2), rtol=1e-12)
  # projections: once is enough, and of another part nothing is left
  for i, j in np.ndindex(len(parts), len(parts)):
    expected = parts[i] if i == j else 0 * parts[i]
    np.testing.assert_allclose(found['again'][i, j], expected, atol=1e-12)
  np.testing.assert_allclose(found['of moved'], found['moved'], atol=1e-12)


def test_the_first_component_is_the_average():
  x = random_array(3, (1, 4, 4, 2), np.float32)
  for group in (C4, D4, Shifts(2, 4)):
    np.testing.assert_allclose(
      symmetry.split(group, x)[0], symmetry.orbit(group, x).mean(0), atol=1e-6
    )


def test_all_shifts_of_mnist_sized_pictures_split_into_fourier_modes(float64):
  x = random_array(4, (28, 28, 1))
  parts = symmetry.split(Shifts(28, 28), x)
  assert len(parts) == (28 * 28 + 4) // 2
  np.testing.assert_allclose(symmetry.join(parts), x, rtol=0, atol=1e-12)
  power = np.abs(np.fft.fft2(x[..., 0])) ** 2 / 28**2
  index = Shifts(28, 28).components.index('(3, 5)')
  np.testing.assert_allclose(
    jnp.sum(parts[index] ** 2), power[3, 5] + power[-3, -5], rtol=1e-9
  )


def test_short_floats_stay_short_and_batches_map():
  x = jnp.asarray(random_array(5, (3, 4, 4, 2)), jnp.bfloat16)
  parts = symmetry.split(D4, x)
  assert parts.dtype == jnp.bfloat16
  mapped = jax.vmap(lambda x: symmetry.split(D4, x), out_axes=1)(x)
  np.testing.assert_array_equal(parts, mapped)


@pytest.mark.parametrize(
  ('call', 'match'),
  [
    (lambda: symmetry.orbit(C4, jnp.ones((2, 3, 4, 1))), 'square.*3×4.*Pad'),
    (lambda: symmetry.act(D4, 8, jnp.ones((2, 2, 1))), '0 … 7'),
    (lambda: symmetry.act(D4, 0.5, jnp.ones((2, 2, 1))), '0 … 7'),
    (lambda: symmetry.act(D4, jnp.arange(2), jnp.ones((2, 2, 1))), 'vmap'),
    (lambda: symmetry.act(D4, jnp.ones(()), jnp.ones((2, 2, 1))), '0 … 7'),
    (lambda: symmetry.orbit(C4, jnp.ones((3, 3))), 'axis for the channels'),
    (
      lambda: symmetry.orbit(Shifts(3, 1), jnp.ones((4, 4, 1))),
      'does not divide by 3×1. Choose divisors',
    ),
    (lambda: Shifts(0, 2), 'rows must be an integer ≥ 1'),
    (lambda: symmetry.split(C4, jnp.ones((2, 2, 1), int)), 'must be floats'),
  ],
)
def test_refuses(call, match):
  with pytest.raises(symmetry.SymmetryError, match=match):
    call()
