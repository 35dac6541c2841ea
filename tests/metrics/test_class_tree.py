"""Trees of classes, and what is refused of them and of surveys."""

import jax.numpy as jnp
import numpy as np
import pytest

from bort_jax import metrics
from bort_jax.metrics import neurons

TREE = [('thing', 'animal'), ('animal', 'cat'), ('animal', 'dog')]
TREE += [('thing', 'ship')]


@pytest.mark.parametrize(
  ('data', 'count'),
  [
    ('digits', 10),
    ('mnist', 10),
    ('fashion_mnist', 10),
    ('cifar10', 10),
    ('cifar100', 100),
  ],
)
def test_built_in_trees_cover_their_classes(data, count):
  distances = neurons.class_distances(*neurons.class_tree(data))
  assert distances.shape == (count, count)
  assert np.all((distances == 0) == np.eye(count, dtype=bool))
  np.testing.assert_array_equal(distances, distances.T)
  # a tree's distances: no way round is shorter
  assert np.all(distances[:, None] <= distances[:, :, None] + distances.T[None])


def test_kin_are_nearer_than_strangers():
  tree = neurons.class_tree('cifar100')
  distances = neurons.class_distances(*tree)
  far = lambda a, b: distances[tree.classes.index(a), tree.classes.index(b)]
  assert far('maple_tree', 'oak_tree') == 2 < far('maple_tree', 'rose') == 4
  clothes = neurons.class_tree('fashion_mnist')
  distances = neurons.class_distances(*clothes)
  assert distances[0, 6] < distances[0, 3] < distances[0, 9]


def test_digits_are_no_kin_but_animals_are():
  np.testing.assert_array_equal(neurons.class_affinity('mnist'), np.eye(10))
  near = neurons.class_affinity('cifar10')
  cat, dog, ship = 3, 5, 8
  assert near[cat, dog] == pytest.approx(np.exp(-0.5))
  assert near[cat, ship] < near[cat, dog]


def test_a_child_of_several_parents_takes_the_shortest_way():
  links = [*TREE, ('pet', 'cat'), ('pet', 'goldfish'), ('thing', 'pet')]
  found = neurons.class_distances(links, ['cat', 'goldfish', 'dog'])
  assert found.tolist() == [[0, 2, 2], [2, 0, 4], [2, 4, 0]]


def test_a_tree_of_a_file(tmp_path):
  path = tmp_path / 'tree.txt'
  path.write_text('# is-a\nthing\tbig cat\n\nthing dog\n')
  links = neurons.read_class_tree(path)
  assert links == [('thing', 'big cat'), ('thing', 'dog')]
  near = neurons.affinity(neurons.class_distances(links, ['big cat', 'dog']), 1)
  np.testing.assert_allclose(near[0], [1, np.exp(-2)], rtol=1e-6)


@pytest.mark.parametrize(
  ('classes', 'match'),
  [
    (
      ['cat', 'owl', 'cow'],
      r"does not cover 2 of 3 classes: 'owl', 'cow'\. Add",
    ),
    (['cat', 'cat'], "'cat' more than once"),
    ([], 'at least one'),
    ('cat', 'names of the classes'),
  ],
)
def test_classes_that_do_not_fit_a_tree_are_refused(classes, match):
  with pytest.raises(metrics.MetricError, match=match):
    neurons.class_distances(TREE, classes)


def test_trees_that_are_none_are_refused(tmp_path):
  refused = lambda match: pytest.raises(metrics.MetricError, match=match)
  with refused(r"'cat' and 'oak' have nothing above them in common\. Add"):
    neurons.class_distances([*TREE, ('plant', 'oak')], ['cat', 'oak'])
  with refused('goes in a circle'):
    neurons.class_distances([*TREE, ('cat', 'animal')], ['cat', 'dog'])
  with refused("in a circle: '[ab]' → '[ab]' → '[ab]'. Remove one"):
    links = [('a', 'b'), ('b', 'a'), ('a', 'cat'), ('b', 'dog')]
    neurons.class_distances(links, ['cat', 'dog'])
  with refused(r"Did you mean 'cifar10'\?.*read_class_tree"):
    neurons.class_tree('cifar1')
  with refused('cannot be read'):
    neurons.read_class_tree(tmp_path / 'none.txt')
  (tmp_path / 'bad.txt').write_text('a b\na big cat\n')
  with refused('Line 2 of the class tree .* one tab'):
    neurons.read_class_tree(tmp_path / 'bad.txt')
  with refused('scale must be'):
    neurons.affinity(jnp.eye(2), 0)
  with refused(r'distances must be \(K, K\)'):
    neurons.affinity(jnp.ones((2, 3)))


def code(params, x):
  return {'code': x.reshape(len(x), -1) @ params}


X, LABELS = jnp.ones((4, 1, 2, 1)), jnp.arange(4) % 2
GIVEN = {'batches': [(X, LABELS)], 'num_classes': 2}


def one(params, x):
  return x.reshape(len(x), -1)


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'layers': ['cod']}, "There is no layer 'cod'.* Did you mean 'code'"),
    ({'layers': 'code'}, 'must be a list'),
    ({'layers': []}, 'at least one'),
    ({'layers': ['code', 'code']}, 'more than once'),
    ({'count': 0}, 'count must be an integer'),
    ({'pool': 'sum'}, 'pool must be one of max, mean'),
    ({'batches': []}, 'There are no batches.* make a new one'),
    ({'batches': [X]}, r'tuples \(x, labels\)'),
    (
      {'batches': [(X, LABELS, LABELS)]},
      'got tuple of 3',
    ),
    ({'batches': [(X, LABELS[:2])]}, r'labels must be of shape \(4,\)'),
    ({'batches': [(X, LABELS + 1)]}, 'labels 2 does not exist'),
    ({'batches': [(X[0], LABELS)]}, r'pictures \(N, H, W, C\)'),
    ({'batches': [(X[:2], LABELS[:2]), (X, LABELS)]}, 'first be the largest'),
    ({'num_classes': 3}, r'1 of 3 classes have no pictures: 2\..*allow_empty'),
    ({'num_classes': 0}, 'num_classes must be'),
  ],
)
def test_surveys_refuse_what_does_not_fit(options, match):
  with pytest.raises(metrics.MetricError, match=match):
    neurons.survey(code, jnp.eye(2), **{**GIVEN, **options})


def test_other_bad_input_is_refused():
  refused = lambda match: pytest.raises(metrics.MetricError, match=match)
  with refused('returns outputs without names'):
    neurons.survey(one, None, **GIVEN)
  with refused(r"Layer 'flat' must be floats \(N, ..., units\)"):
    neurons.survey(lambda p, x: {'flat': x[:, 0, 0, 0]}, None, **GIVEN)
  with refused('of the shape and type of the real ones'):
    neurons.survey_pairs(code, jnp.eye(2), [(X, X[:2], LABELS)], num_classes=2)
  found = neurons.survey(code, jnp.eye(2), **GIVEN)
  with refused("Layer 'out' was not surveyed; 'code' were"):
    found['out']
  with refused('affinity is of 1 classes, but pictures are of class'):
    neurons.consistency(found['code'], jnp.eye(1))
  with refused(r'affinity must be \(K, K\)'):
    neurons.consistency(found['code'], jnp.ones(2))
  with refused('affinity must be finite'):
    neurons.consistency(found['code'], jnp.full((2, 2), jnp.nan))
  with refused(r'affinity is of 2 classes, counts of \(3,\)'):
    neurons.chance(jnp.ones(3), jnp.eye(2), 2)
  pairs = neurons.survey_pairs(
    code, jnp.eye(2), [(X, X, LABELS)], num_classes=2
  )
  with refused(r'bounds must be of shape \(1,\)'):
    neurons.summarize(pairs, jnp.eye(2), jnp.ones(3))


def past(params, x):
  hidden = x.reshape(len(x), -1)
  return {'hidden': jnp.tanh(hidden), 'logits': jnp.tanh(hidden) + hidden}


def test_influence_refuses_what_it_cannot_remove():
  refused = lambda match: pytest.raises(metrics.MetricError, match=match)
  with refused('Choose a layer between two blocks'):
    neurons.influence(past, None, X, 0, layer='hidden')
  with refused("There is no layer 'hiden'"):
    neurons.influence(past, None, X, 0, layer='hiden')
  with refused('target 5 does not exist'):
    neurons.influence(
      past, None, X, jnp.full(4, 5), layer='logits', output='logits'
    )
