"""Checkpoints: which are kept, and what becomes of damaged and foreign ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bort_jax.train.checkpoint import Checkpoints
from bort_jax.train.errors import RunError
from bort_jax.train.step import TrainState

FACTS = {'model': 'simple_cnn', 'num_classes': 10, 'image_shape': [8, 8, 1]}


def state_of(step, size=3):
  params = {'kernel': jnp.full((size, 2), float(step))}
  return TrainState(jnp.int32(step), params, {}, (), None)


def abstract_of(state):
  shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
  return jax.tree.map(shape, state)


ABSTRACT = abstract_of(state_of(0))


def save(directory, accuracies, keep=1):
  with Checkpoints(directory, keep) as checkpoints:
    for step, accuracy in accuracies.items():
      checkpoints.save(step, state_of(step), FACTS, accuracy)


def steps_in(directory):
  return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit())


def restore(directory, facts=FACTS, **options):
  with Checkpoints(directory) as checkpoints:
    return checkpoints.restore(ABSTRACT, facts, **options)


def damage(directory, step):
  for path in (directory / str(step) / 'state').rglob('*'):
    if path.is_file():
      path.write_bytes(b'\0' * 7)


@pytest.mark.parametrize(
  ('keep', 'kept'), [(1, [2, 5]), (2, [2, 4, 5]), (9, [1, 2, 3, 4, 5])]
)
def test_the_newest_and_the_best_are_kept(tmp_path, keep, kept):
  save(tmp_path, {1: 0.1, 2: 0.9, 3: 0.8, 4: None, 5: 0.7}, keep)
  assert steps_in(tmp_path) == kept
  with Checkpoints(tmp_path) as checkpoints:
    assert (checkpoints.latest(), checkpoints.best()) == (5, 2)
    best = checkpoints.restore(ABSTRACT, FACTS, 2)
  assert best is not None
  np.testing.assert_array_equal(best.params['kernel'], np.full((3, 2), 2.0))


def test_the_best_outlives_a_restart(tmp_path):
  save(tmp_path, {1: 0.1, 2: 0.9, 3: 0.8})
  save(tmp_path, {4: None, 5: 0.7})
  assert steps_in(tmp_path) == [2, 5]


def test_where_none_is_there_is_none(tmp_path):
  assert restore(tmp_path / 'new') is None


def test_an_unfinished_one_does_not_count(tmp_path):
  save(tmp_path, {1: 0.1})
  (tmp_path / '2.orbax-checkpoint-tmp').mkdir()
  state = restore(tmp_path)
  assert state is not None
  assert int(state.step) == 1


def test_a_damaged_one_is_set_aside_for_the_one_before(tmp_path, caplog):
  directory = tmp_path / 'bort'
  save(directory, {1: 0.1, 2: 0.2, 3: 0.3}, keep=9)
  damage(directory, 3)
  for sets_aside in (False, True):
    state = restore(directory, sets_aside=sets_aside)
    assert state is not None
    assert int(state.step) == 2
    assert steps_in(directory) == ([1, 2] if sets_aside else [1, 2, 3])
  assert 'Checkpoint 3' in caplog.text
  assert 'cannot be read' in caplog.text
  assert [p.name for p in (tmp_path / 'bort-damaged').iterdir()] == ['3-0']
  with Checkpoints(directory, 9) as checkpoints:
    checkpoints.save(3, state_of(3), FACTS)  # its step is free again
  assert steps_in(directory) == [1, 2, 3]


def test_when_all_are_damaged_it_says_so(tmp_path):
  directory = tmp_path / 'bort'
  save(directory, {1: 0.1, 2: 0.2}, keep=9)
  damage(directory, 1)
  damage(directory, 2)
  with pytest.raises(RunError, match=r'can be read \(steps 2, 1\)'):
    restore(directory, sets_aside=True)
  assert steps_in(directory) == [1, 2]


@pytest.mark.parametrize(
  ('name', 'value', 'message'),
  [
    ('num_classes', 100, 'num_classes: 10 there, 100 here'),
    ('model', 'resnet8', "model: 'simple_cnn' there, 'resnet8' here"),
  ],
)
def test_a_foreign_one_is_refused_and_kept(tmp_path, name, value, message):
  save(tmp_path, {1: 0.1})
  with pytest.raises(RunError, match=message):
    restore(tmp_path, {**FACTS, name: value})
  assert steps_in(tmp_path) == [1]


def test_a_directory_that_is_no_checkpoint(tmp_path):
  (tmp_path / '7').mkdir()
  (tmp_path / '7' / 'notes.txt').write_text('mine')
  with pytest.raises(RunError, match='can be read'):
    restore(tmp_path)
