"""What certificates say in words, of bounds that are there and are not."""

import dataclasses

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


# What Gauss–Newton undoes, and a picture of which it ends in a local minimum.
EASY, STUCK = jnp.array([[0.9, 0.5, 0.2]]), jnp.array([[0.2, 0.5, 0.9]])


@pytest.fixture(scope='module')
def squares():
  """Certificates of an affine layer and one that needs Gauss–Newton."""
  params = jax.random.normal(jax.random.key(0), (3, 3))

  def apply_fn(params, x):
    features = x @ jnp.eye(3)
    return features * jnp.tanh(features @ params)

  return lambda x, steps: certificate(apply_fn, params, x, newton_steps=steps)


def test_steps_that_just_suffice_are_enough(squares):
  needed = int(squares(EASY, 100).segments[1].newton_steps)
  found = squares(EASY, needed)
  assert int(found.segments[1].newton_steps) == needed < 100
  assert left_out(METHODS, found, needed, 2) == {}
  assert 'Gauss' not in statement('Bort', found, needed)[0]


def test_what_ends_in_a_local_minimum_is_left_out(squares):
  found = squares(STUCK, 100)
  assert int(found.segments[1].newton_steps) < 100
  reasons = left_out(METHODS, found, 100, 2)
  assert set(reasons) == {'backtrack', 'class_saliency'}
  reason = reasons['backtrack']
  assert 'Gauss–Newton does not undo segment 1' in reason
  assert 'test_report_certify.py' in reason
  assert 'relative residual of 0.083 is left after' in reason
  assert '--methods backtrack' in reason
  assert '--newton-steps' not in reason  # more of them would not help


def test_what_has_too_few_steps_says_how_to_give_more(squares):
  reasons = left_out(METHODS, squares(STUCK, 3), 3, 2)
  assert '--newton-steps gives it more' in reasons['class_saliency']
  assert left_out(METHODS, 'it cannot be read.', 3, 2) == {}


def test_a_method_is_judged_by_the_segments_that_it_runs_back(squares):
  reasons = left_out(METHODS, squares(STUCK, 3), 3, depth=1)
  assert set(reasons) == {'backtrack'}


def test_one_picture_that_does_not_come_back_is_enough(squares):
  both = squares(jnp.concatenate([EASY, STUCK]), 100)
  assert 'backtrack' in left_out(METHODS, both, 100, 2)


def test_a_residual_that_is_no_number_is_not_undone(squares):
  first, last = (found := squares(EASY, 100)).segments
  broken = dataclasses.replace(last, residual=jnp.array([jnp.nan]))
  found = found._replace(segments=(first, broken))
  assert 'backtrack' in left_out(METHODS, found, 100, 2)


def test_what_gauss_newton_leaves_is_told_as_such(squares):
  text, _ = statement('Bort', squares(STUCK, 3), 3)
  assert 'lost in segment 1 is what Gauss–Newton leaves' in text
  assert 'left after 3 steps (--newton-steps 3)' in text
