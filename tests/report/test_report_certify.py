"""What certificates say in words, of bounds that are there and are not."""

import jax
import jax.numpy as jnp

from bort_jax.inversion import certificate
from bort_jax.report.certify import lipschitz, statement


def test_a_bound_is_told_with_its_radius():
  apply_fn = lambda params, x: jnp.maximum(x @ params, 0)
  found = certificate(apply_fn, 2 * jnp.eye(2), jnp.eye(2))
  text, table = statement('Bort', found)
  assert text.startswith('Bort stretches no difference of two pictures by more')
  assert 'than 2;' in text
  assert 'than 0.70 alters what it predicts of any of these pictures' in text
  assert table is not None
  assert len(table.groups['']) == 2
  assert lipschitz(found) == found.upper


def test_a_radius_is_claimed_of_those_pictures_alone_that_have_it():
  apply_fn = lambda params, x: x @ params
  x = jnp.array([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0], [0.0, 7.0]])
  found = certificate(apply_fn, jnp.eye(2), x)
  assert all(found.radius < jnp.array([0.71, 2.2, 3.6, 5.0]))
  text, _ = statement('Bort', found)
  assert 'than 0.70 alters what it predicts of any of these pictures' in text
  assert 'than 2.8 what it predicts of half of them' in text


def test_what_has_no_bound_says_so_by_name():
  attend = lambda params, x: jax.nn.softmax(x @ x.swapaxes(-1, -2)) @ x @ params
  apply_fn = lambda params, x: attend(params, x)[:, 0]
  found = certificate(apply_fn, jnp.eye(3), jnp.ones((1, 2, 3)))
  text, table = statement('ViT', found)
  name = found.segments[0].unbounded_by
  assert name is not None
  assert f'ViT has no global bound: none is known of {name}.' in text
  assert table is not None
  assert lipschitz(found) is None


def test_no_certificate_says_why():
  assert statement('Bort', 'it cannot be read.') == (
    'There is no certificate of Bort: it cannot be read.',
    None,
  )
  assert lipschitz('it cannot be read.') is None
