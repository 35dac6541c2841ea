"""What certificates say in words, of bounds that are there and are not."""

import jax
import jax.numpy as jnp
import pytest

from bort_jax.inversion import certificate
from bort_jax.report.certify import left_out, lipschitz, statement
from bort_jax.report.methods import METHODS


def test_a_bound_is_told_with_its_radius():
  apply_fn = lambda params, x: jnp.maximum(x @ params, 0)
  found = certificate(apply_fn, 2 * jnp.eye(2), jnp.eye(2))
  text, table = statement('Bort', found, 10)
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
  text, _ = statement('Bort', found, 10)
  assert 'than 0.70 alters what it predicts of any of these pictures' in text
  assert 'than 2.8 what it predicts of half of them' in text


def test_what_has_no_bound_says_so_by_name():
  attend = lambda params, x: jax.nn.softmax(x @ x.swapaxes(-1, -2)) @ x @ params
  apply_fn = lambda params, x: attend(params, x)[:, 0]
  found = certificate(apply_fn, jnp.eye(3), jnp.ones((1, 2, 3)))
  text, table = statement('ViT', found, 10)
  name = found.segments[0].unbounded_by
  assert name is not None
  assert f'ViT has no global bound: none is known of {name}.' in text
  assert table is not None
  assert lipschitz(found) is None


def test_no_certificate_says_why():
  assert statement('Bort', 'it cannot be read.', 10) == (
    'There is no certificate of Bort: it cannot be read.',
    None,
  )
  assert lipschitz('it cannot be read.') is None


@pytest.fixture(scope='module')
def squares():
  """What Gauss–Newton undoes in some steps, and those that it takes."""
  apply_fn = lambda params, x: x * jnp.tanh(x @ params)
  params = jax.random.normal(jax.random.key(0), (3, 3))
  x = jnp.array([[0.2, 0.5, 0.9]])
  of = lambda steps: certificate(apply_fn, params, x, newton_steps=steps)
  needed = int(of(100).segments[0].newton_steps)
  assert 1 < needed < 100
  return of, needed


def test_what_runs_backwards_for_every_class_needs_an_inverse(squares):
  of, needed = squares
  assert left_out(METHODS, of(100), 100) == {}
  assert left_out(METHODS, 'it cannot be read.', 100) == {}
  reasons = left_out(METHODS, of(needed - 1), needed - 1)
  assert set(reasons) == {'backtrack', 'class_saliency'}
  reason = reasons['backtrack']
  assert f'{needed - 1} steps of Gauss–Newton do not undo segment 0' in reason
  assert 'test_report_certify.py' in reason
  assert '--methods backtrack' in reason
  assert '--newton-steps' in reason


def test_what_is_lost_by_too_few_steps_is_told_as_such(squares):
  of, needed = squares
  few, _ = statement('Bort', of(needed - 1), needed - 1)
  assert 'lost in segment 0 is what' in few
  assert f'{needed - 1} steps of Gauss–Newton leave' in few
  many, _ = statement('Bort', of(100), 100)
  assert 'Gauss' not in many
