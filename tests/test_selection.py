"""Which parameters of a tree are matrices: rules, specs and their errors."""

import dataclasses
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import optax
import pytest
from hypothesis import given, settings
from jax.tree_util import (
  DictKey,
  FlattenedIndexKey,
  GetAttrKey,
  SequenceKey,
)

import bort_jax
from bort_jax import MatrixAxes
from bort_jax.selection import (
  default_rule,
  map_matrices,
  matrix_views,
  path_name,
)

DENSE = MatrixAxes(0, 1)
OUTPUT_FIRST = MatrixAxes(1, 0)
HWIO = MatrixAxes((0, 1, 2), 3)
LAST_TWO = MatrixAxes(-2, -1)
MUON = optax.contrib.MuonDimensionNumbers(0, 1)

examples = settings(max_examples=50, deadline=None)


def array(*shape, dtype='float32'):
  return jax.ShapeDtypeStruct(shape, dtype)


def selected(axes, tree):
  """The axes of every selected parameter, by path."""
  return {path: view.axes for path, view in matrix_views(axes, tree).items()}


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Box:
  """As flax boxes a parameter: the array is the attribute ``value``."""

  value: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class CallableModule:
  """As in Equinox: a tree that can be called."""

  weight: Any
  bias: Any

  def __call__(self, x):
    return self.weight @ x + self.bias


@pytest.mark.parametrize(
  ('path', 'shape', 'axes'),
  [
    ('Dense_0/kernel', (3, 4), DENSE),
    ('kernel', (3, 4), DENSE),
    ('Conv_0/kernel', (3, 3, 4, 8), HWIO),
    ('params/Conv_0/kernel', (3, 4, 8), MatrixAxes((0, 1), 2)),
    ('attention/query/kernel', (8, 2, 4), MatrixAxes(0, (1, 2))),
    ('attention/key/kernel', (8, 2, 4), MatrixAxes(0, (1, 2))),
    ('attention/value/kernel', (8, 2, 4), MatrixAxes(0, (1, 2))),
    ('attention/out/kernel', (2, 4, 8), MatrixAxes((0, 1), 2)),
    ('attention/query/kernel', (8, 4), DENSE),
    ('mlp/~/linear_0/w', (3, 4), DENSE),
    ('conv2_d/w', (3, 3, 4, 8), HWIO),
    ('layers/0/weight', (4, 3), OUTPUT_FIRST),
    ('conv/weight', (8, 4, 3, 3), MatrixAxes((1, 2, 3), 0)),
    ('weight', (4, 3), OUTPUT_FIRST),
    ('embed_conv/weight', (8, 4, 3), MatrixAxes((1, 2), 0)),
  ],
)
def test_default_rule_selects(path, shape, axes):
  assert default_rule(path, array(*shape)) == axes


@pytest.mark.parametrize(
  ('path', 'shape'),
  [
    ('Dense_0/bias', (4,)),
    ('Dense_0/bias', (4, 4)),
    ('Dense_0/kernel', (4,)),
    ('Dense_0/kernel', ()),
    ('LayerNorm_0/scale', (4, 4)),
    ('layer_norm/weight', (4, 4)),
    ('LayerNorm/weight', (4, 4)),
    ('Embed_0/embedding', (10, 4)),
    ('token_embedding/weight', (10, 4)),
    ('Embedding/weight', (10, 4)),
    ('pos_embed', (1, 10, 4)),
    ('kernel/other', (4, 4)),
    ('my_kernel', (4, 4)),
    ('', (4, 4)),
  ],
)
def test_default_rule_passes_over(path, shape):
  assert default_rule(path, array(*shape)) is None


@pytest.mark.parametrize(
  ('key_path', 'name'),
  [
    ((), ''),
    ((DictKey('kernel'),), 'kernel'),
    ((DictKey('layers'), SequenceKey(0), GetAttrKey('w')), 'layers/0/w'),
    ((DictKey(3), FlattenedIndexKey(1)), '3/1'),
    ((DictKey('kernel'), GetAttrKey('value')), 'kernel'),
    ((GetAttrKey('value'),), 'value'),
    ((DictKey('value'), DictKey('kernel')), 'value/kernel'),
    ((DictKey('attention'), DictKey('value')), 'attention/value'),
  ],
)
def test_path_name(key_path, name):
  assert path_name(key_path) == name


def test_default_rule_is_the_default():
  tree = {'dense': {'kernel': array(3, 2), 'bias': array(2)}}
  assert selected(None, tree) == {'dense/kernel': DENSE}


def test_a_rule_sees_path_and_leaf():
  tree = {'a': [array(2, 3), array(4, 5)], 'b': array(6)}
  seen = {}

  def rule(path, leaf):
    seen[path] = leaf.shape
    return DENSE if path == 'a/1' else None

  assert selected(rule, tree) == {'a/1': DENSE}
  assert seen == {'a/0': (2, 3), 'a/1': (4, 5), 'b': (6,)}


@pytest.mark.parametrize('spec', [DENSE, MUON])
def test_a_rule_may_return_either_spec(spec):
  assert selected(lambda path, leaf: spec, [array(2, 3)]) == {'0': DENSE}


@pytest.mark.parametrize('spec', [DENSE, MUON])
def test_one_spec_selects_what_has_its_axes(spec):
  tree = {'a': array(2, 3), 'b': array(2), 'c': [array(4, 2, 3)]}
  assert selected(spec, tree) == {'a': DENSE, 'c/0': DENSE}


def test_one_spec_with_negative_axes_counts_from_each_end():
  tree = {'a': array(2, 3), 'c': array(4, 2, 3), 'b': array(2)}
  views = matrix_views(LAST_TWO, tree)
  assert {path: view.stack for path, view in views.items()} == {
    'a': (),
    'c': (4,),
  }


def test_muon_dimension_numbers_of_several_axes():
  numbers = optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)
  assert selected({'kernel': numbers}, {'kernel': array(3, 3, 2, 4)}) == {
    'kernel': HWIO
  }


def test_a_tree_of_specs():
  tree = {'a': [array(2, 3), array(3, 3, 2, 4)], 'b': array(5, 6), 'c': {}}
  specs = {'a': [OUTPUT_FIRST, HWIO], 'b': None}
  assert selected(specs, tree) == {'a/0': OUTPUT_FIRST, 'a/1': HWIO}


def test_a_spec_stands_for_a_subtree():
  tree = {
    'encoder': {'0': {'w': array(2, 3), 'b': array(3)}, '1': array(4, 4)},
    'head': {'w': array(3, 2)},
  }
  specs = {'encoder': DENSE, 'head': None}
  assert selected(specs, tree) == {'encoder/0/w': DENSE, 'encoder/1': DENSE}


def test_a_prefix_is_a_whole_name():
  tree = {'dense': array(2, 3), 'dense_1': array(2, 3)}
  assert selected({'dense': DENSE}, tree) == {'dense': DENSE}


def test_specs_match_by_path_across_containers():
  assert selected((None, DENSE), [array(2, 3), array(2, 3)]) == {'1': DENSE}


def test_specs_of_a_module_that_can_be_called():
  """A tree of specs is no rule, even if its root has a ``__call__``."""
  params = CallableModule(array(3, 2), array(3))
  specs = jax.tree.map(lambda x: OUTPUT_FIRST if x.ndim == 2 else None, params)
  assert selected(specs, params) == {'weight': OUTPUT_FIRST}


def test_boxed_values():
  boxed = {'kernel': Box(array(2, 3)), 'bias': Box(array(3))}
  assert selected(None, boxed) == {'kernel': DENSE}
  assert selected({'kernel': OUTPUT_FIRST}, boxed) == {'kernel': OUTPUT_FIRST}
  assert selected({'kernel': Box(OUTPUT_FIRST)}, boxed) == {
    'kernel': OUTPUT_FIRST
  }


def test_boxed_specs_fit_plain_parameters():
  specs = {'kernel': Box(OUTPUT_FIRST)}
  assert selected(specs, {'kernel': array(2, 3)}) == {'kernel': OUTPUT_FIRST}


def test_leaves_that_are_no_arrays_are_passed_over():
  """As in a whole Equinox module, which holds its activation."""
  tree = {'w': array(2, 3), 'a': {'w': jax.nn.relu}, 'b': {'w': 'same'}}
  assert selected(None, tree) == {'w': DENSE}
  assert selected(DENSE, tree) == {'w': DENSE}
  mapped = map_matrices(lambda view, w: w, None, tree)
  assert mapped['a']['w'] is jax.nn.relu


@pytest.mark.parametrize('absent', [None, optax.MaskedNode()])
@pytest.mark.parametrize('axes', [None, DENSE, {'kernel': DENSE, 'a': DENSE}])
def test_passes_over_what_is_masked(absent, axes):
  tree = {'kernel': array(2, 3), 'a': absent}
  assert selected(axes, tree) == {'kernel': DENSE}


def test_a_spec_below_a_masked_node_is_passed_over():
  specs = {'a': {'b': DENSE}, 'c': DENSE}
  assert selected(specs, {'a': None, 'c': array(2, 3)}) == {'c': DENSE}


def test_a_spec_above_a_masked_node_is_passed_over():
  specs = {'a': DENSE, 'c': DENSE}
  tree = {'a': {'b': optax.MaskedNode()}, 'c': array(2, 3)}
  assert selected(specs, tree) == {'c': DENSE}


@pytest.mark.parametrize('axes', [None, DENSE, {'kernel': DENSE}])
@pytest.mark.parametrize('tree', [{}, None, [None], optax.MaskedNode()])
def test_an_empty_tree_has_no_matrices(axes, tree):
  assert selected(axes, tree) == {}


def test_map_matrices_maps_matrices_and_keeps_the_rest():
  tree = {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3), 'none': None}
  other = {'kernel': jnp.full((2, 3), 5.0), 'bias': jnp.ones(3), 'none': None}
  got = map_matrices(lambda view, x, y: x + y, None, tree, other)
  assert got['kernel'].tolist() == [[6.0] * 3] * 2
  assert got['bias'] is tree['bias']
  assert got['none'] is None


def test_map_matrices_takes_what_becomes_of_the_others():
  tree = {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)}
  got = map_matrices(
    lambda view, x, y: view.num_out,
    None,
    tree,
    tree,
    others=lambda x, y: x + y,
  )
  assert got['kernel'] == 3
  assert got['bias'].tolist() == [2.0] * 3


def test_map_matrices_lets_rest_have_more_below_a_none():
  tree = {'kernel': jnp.ones((2, 3)), 'frozen': None}
  rest = {'kernel': jnp.ones((2, 3)), 'frozen': {'w': jnp.ones(2)}}
  got = map_matrices(lambda view, x, y: x + y, None, tree, rest)
  assert got['frozen'] is None
  assert got['kernel'].tolist() == [[2.0] * 3] * 2


def test_map_matrices_keeps_masked_nodes():
  masked = optax.MaskedNode()
  got = map_matrices(
    lambda view, x: x, None, {'kernel': jnp.ones((2, 3)), 'a': masked}
  )
  assert got['a'] == masked


# Random trees: half the leaves get a spec; the paths are built independently.

LEAVES = st.builds(
  lambda shape, spec: (array(*shape), spec),
  st.lists(st.integers(1, 4), min_size=2, max_size=4),
  st.sampled_from([DENSE, OUTPUT_FIRST, MatrixAxes(-1, 0), None]),
)
NAMES = st.text('abcdefgh_0123', min_size=1, max_size=4)
TREES = st.recursive(
  LEAVES,
  lambda below: st.one_of(
    st.lists(below, min_size=1, max_size=3),
    st.dictionaries(NAMES, below, min_size=1, max_size=3),
  ),
  max_leaves=12,
)


def is_pair(x):
  return isinstance(x, tuple)


def walk(tree, names=()):
  """Every (path, leaf, spec), in the order of ``jax.tree.leaves``."""
  if is_pair(tree):
    yield '/'.join(names), *tree
    return
  children = sorted(tree.items()) if isinstance(tree, dict) else enumerate(tree)
  for name, below in children:
    yield from walk(below, (*names, str(name)))


def unzip(tree):
  pick = lambda i: jax.tree.map(lambda pair: pair[i], tree, is_leaf=is_pair)
  return pick(0), pick(1)


def with_a_spec(tree):
  return any(spec is not None for _, _, spec in walk(tree))


@examples
@given(TREES.filter(with_a_spec))
def test_random_trees_of_specs(tree):
  params, specs = unzip(tree)
  expected = {path: spec for path, _, spec in walk(tree) if spec is not None}
  assert selected(specs, params) == expected


@examples
@given(TREES.filter(with_a_spec))
def test_random_rules(tree):
  params, _ = unzip(tree)
  by_path = {path: spec for path, _, spec in walk(tree)}
  got = selected(lambda path, leaf: by_path[path], params)
  assert got == {path: spec for path, spec in by_path.items() if spec}


@examples
@given(TREES.filter(with_a_spec), st.randoms(use_true_random=False))
def test_random_prefix_trees(tree, random):
  """Subtrees replaced by one spec, which holds for all that is below."""
  params, specs = unzip(tree)
  expected = {path: spec for path, _, spec in walk(tree) if spec is not None}

  def prune(specs, names):
    if not isinstance(specs, dict | list):
      return specs
    if names and random.random() < 0.4:
      for path, _, _ in walk(tree):
        if f'{path}/'.startswith('/'.join(names) + '/'):
          expected[path] = LAST_TWO
      return LAST_TWO
    if isinstance(specs, dict):
      return {k: prune(v, (*names, k)) for k, v in specs.items()}
    return [prune(v, (*names, str(i))) for i, v in enumerate(specs)]

  assert selected(prune(specs, ()), params) == expected


@examples
@given(TREES.filter(with_a_spec))
def test_map_matrices_touches_exactly_the_matrices(tree):
  params, specs = unzip(tree)
  got = map_matrices(lambda view, x: view.axes, specs, params)
  assert jax.tree.structure(got) == jax.tree.structure(params)
  leaves = [leaf if spec is None else spec for _, leaf, spec in walk(tree)]
  assert jax.tree.leaves(got) == leaves


# Errors: each names the parameter, what was given, and what to do.


def message_of(error_type, axes, tree):
  with pytest.raises(error_type) as error:
    matrix_views(axes, tree)
  return str(error.value)


def assert_names(message, *parts):
  for part in parts:
    assert part in message, message


def test_refuses_axes_that_overlap_for_a_shape():
  message = message_of(
    ValueError, lambda path, leaf: MatrixAxes(1, -1), {'a': [array(2, 3)]}
  )
  assert_names(message, "'a/0'", '(2, 3)', 'MatrixAxes(in_axes=(1,)', 'twice')


def test_refuses_an_axis_out_of_range():
  message = message_of(
    ValueError, lambda path, leaf: MatrixAxes(0, 2), {'a': [array(2, 3)]}
  )
  assert_names(message, "'a/0'", '(2, 3)', 'out_axes=(2,)')


def test_refuses_groups_that_do_not_divide():
  message = message_of(
    ValueError, {'a': MatrixAxes(0, 1, groups=2)}, {'a': array(2, 3)}
  )
  assert_names(message, "'a'", 'groups=2', '3 outputs', 'axis 1', '(2, 3)')


@pytest.mark.parametrize('specs', [HWIO, {'a': HWIO}, {'a': {'b': HWIO}}])
def test_refuses_a_spec_whose_axes_no_parameter_has(specs):
  message = message_of(ValueError, specs, {'a': {'b': array(2, 3)}})
  assert_names(message, 'in_axes=(0, 1, 2)', "'a/b': (2, 3)")


def test_names_the_root_when_one_spec_fits_nothing():
  message = message_of(ValueError, HWIO, {'a': array(2, 3)})
  assert_names(message, "at 'the root'", "'a': (2, 3)")


@pytest.mark.parametrize(
  ('specs', 'path'),
  [
    ({'b': DENSE}, "'b'"),
    ({'a': {'c': DENSE}}, "'a/c'"),
    ([DENSE], "'0'"),
    ({'a': DENSE, 'b': None}, "'b'"),
  ],
)
def test_refuses_specs_where_there_is_no_parameter(specs, path):
  message = message_of(ValueError, specs, {'a': {'b': array(2, 3)}})
  assert_names(message, f'spec at {path}', "'a/b'")


@pytest.mark.parametrize('bad', [(0, 1), True, 'kernel', 1])
def test_refuses_a_rule_that_returns_no_axes(bad):
  message = message_of(TypeError, lambda path, leaf: bad, {'a': [array(2, 3)]})
  assert_names(message, "'a/0'", f'got {bad!r}', 'MatrixAxes', 'None')


@pytest.mark.parametrize('bad', [True, 'kernel', 1])
def test_refuses_a_tree_of_something_else(bad):
  message = message_of(TypeError, {'a': [bad]}, {'a': [array(2, 3)]})
  assert_names(message, "'a/0'", f'got {bad!r}', 'MatrixAxes', 'None')


@pytest.mark.parametrize(
  ('axes', 'source'),
  [
    (None, 'The default rule'),
    (lambda path, leaf: None, 'axes'),
    ({'a': None}, 'axes'),
  ],
)
def test_refuses_to_select_nothing(axes, source):
  message = message_of(ValueError, axes, {'a': {'b': array(2, 3)}})
  assert_names(message, f'{source} selects no parameter', "'a/b'")
  assert_names(message, 'axes=MatrixAxes(in_axes=..., out_axes=...)')


def test_lists_at_most_eight_parameters():
  tree = {f'p{i}': array(2, 3) for i in range(10)}
  message = message_of(ValueError, None, tree)
  assert_names(message, "'p0', 'p1'", "'p7' and 2 more")
  assert 'p8' not in message


@pytest.mark.parametrize('dtype', ['int32', 'uint8', 'bool'])
def test_refuses_parameters_that_are_no_floats(dtype):
  tree = {'a': [array(2, 3, dtype=dtype)], 'b': array(2, 3)}
  message = message_of(TypeError, DENSE, tree)
  assert_names(message, "'a/0'", dtype, 'Leave it out with axes')


def test_integers_that_are_not_selected_are_no_error():
  tree = {'count': array(2, 3, dtype='int32'), 'kernel': array(2, 3)}
  assert selected(None, tree) == {'kernel': DENSE}


@pytest.mark.parametrize(
  'make',
  [
    lambda axes: bort_jax.bort(1.0, axes=axes),
    lambda axes: bort_jax.keep_orthogonal(axes=axes),
    lambda axes: bort_jax.bort_sgd(0.1, 1.0, axes=axes),
    lambda axes: bort_jax.bort_adamw(0.1, 1.0, axes=axes),
    lambda axes: bort_jax.bort_lamb(0.1, 1.0, axes=axes),
    lambda axes: bort_jax.bort_muon(0.1, 1.0, axes=axes),
  ],
  ids=['bort', 'keep', 'sgd', 'adamw', 'lamb', 'muon'],
)
def test_init_refuses_axes_that_do_not_fit(make):
  params = {'a': {'b': jnp.ones((2, 3))}}
  with pytest.raises(ValueError, match='selects no parameter'):
    make(None).init(params)
  with pytest.raises(ValueError, match="spec at 'c'"):
    make({'c': DENSE}).init(params)
  with pytest.raises(TypeError, match="None for 'a/b', got True"):
    make(lambda path, leaf: True).init(params)


@pytest.mark.parametrize(
  'tx',
  [
    bort_jax.bort(0.1),
    bort_jax.bort_sgd(0.1, 0.1, momentum=0.9, weight_decay=0.01),
    bort_jax.keep_orthogonal(),
  ],
  ids=['bort', 'sgd', 'keep'],
)
def test_an_update_may_leave_every_matrix_alone(tx):
  params = {'kernel': jnp.eye(3), 'bias': jnp.ones(3)}
  frozen = {'kernel': None, 'bias': jnp.ones(3)}
  updates, _ = tx.update(frozen, tx.init(params), params)
  assert updates['kernel'] is None
  assert updates['bias'].any()


@pytest.mark.parametrize(
  'call',
  [
    lambda params: bort_jax.spectrum.singular_values(params),
    lambda params: bort_jax.spectrum.orthogonality_error(params),
    lambda params: bort_jax.spectrum.polish(params),
    lambda params: bort_jax.spectrum.largest_safe_step(params, 1.0),
    lambda params: bort_jax.spectrum.check(params, 0.1, 1.0),
  ],
  ids=['singular_values', 'error', 'polish', 'step', 'check'],
)
def test_spectrum_refuses_to_select_nothing(call):
  with pytest.raises(ValueError, match='default rule selects no parameter'):
    call({'a': jnp.ones((2, 3))})


def test_masked_bort_with_a_tree_of_specs():
  params = {'a': jnp.full((2, 3), 2.0), 'b': jnp.full((2, 3), 2.0)}
  specs = {'a': DENSE, 'b': DENSE}
  tx = optax.masked(bort_jax.bort(1.0, axes=specs), {'a': True, 'b': False})
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates: Any = tx.update(zeros, tx.init(params), params)[0]
  assert float(updates['a'][0, 0]) == 2.0 * (4.0 * 6 - 1)
  assert not updates['b'].any()
