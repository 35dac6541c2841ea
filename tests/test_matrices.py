"""The matrices of a parameter, against matrices that numpy builds."""

import math
from typing import Any, NamedTuple

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import hermitian, random_array
from hypothesis import given, settings

from bort_jax import MatrixAxes
from bort_jax.matrices import MatrixView
from bort_jax.placement import on_matrices

SIDES = ('out', 'in', 'smaller')
HWIO = MatrixAxes((0, 1, 2), 3)

examples = settings(max_examples=12, deadline=None)


def numpy_matrices(w, axes):
  """The stack (*stack, m, n) that a parameter is, by numpy alone."""
  rows = [axis % w.ndim for axis in axes.out_axes]
  columns = [axis % w.ndim for axis in axes.in_axes]
  batch = [axis for axis in range(w.ndim) if axis not in rows + columns]
  size = lambda axes: math.prod(w.shape[axis] for axis in axes)
  stack = [w.shape[axis] for axis in batch]
  matrices = w.transpose(batch + rows + columns).reshape(
    *stack, axes.groups, size(rows) // axes.groups, size(columns)
  )
  if axes.groups == 1:
    return np.squeeze(matrices, len(batch))
  before = sum(axis < rows[0] for axis in batch)
  return np.moveaxis(matrices, len(batch), before)


class Layout(NamedTuple):
  shape: tuple[int, ...]
  axes: MatrixAxes
  dtype: type
  seed: int

  @property
  def view(self):
    return MatrixView(self.shape, self.axes)

  def array(self, offset=0):
    return random_array([self.seed, offset], self.shape, self.dtype)

  def split(self, offset=0):
    return self.view.split(jnp.asarray(self.array(offset)))

  def matrices(self, w):
    return numpy_matrices(np.asarray(w), self.axes)


@st.composite
def layouts(draw):
  """Any rank, disjoint axes in any order and sign, batch axes, groups."""
  shape = draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
  rank = len(shape)
  order = draw(st.permutations(range(rank)))
  signed = [axis - rank * draw(st.booleans()) for axis in order]
  rows = draw(st.integers(1, rank - 1))
  columns = draw(st.integers(1, rank - rows))
  size = shape[order[0]]
  divisors = [k for k in range(1, size + 1) if size % k == 0]
  axes = MatrixAxes(
    signed[rows : rows + columns],
    signed[:rows],
    draw(st.sampled_from(divisors)),
  )
  dtype = draw(st.sampled_from([np.float64, np.complex128]))
  return Layout(tuple(shape), axes, dtype, draw(st.integers(0, 2**32 - 1)))


sides = st.sampled_from(SIDES)


def chosen_side(view, side):
  if side == 'smaller':
    return 'out' if view.num_out <= view.num_in else 'in'
  return side


def square(view, gram, side):
  """A Gram of the library as a stack of square matrices."""
  n = view.num_out if chosen_side(view, side) == 'out' else view.num_in
  return np.asarray(gram).reshape(*view.stack, n, n)


def numpy_gram(w, v, side):
  return w @ hermitian(v) if side == 'out' else hermitian(w) @ v


def from_stack(view, stack_of_grams, side):
  """A stack of square matrices in the shape the library has for a Gram."""
  w = view.split(jnp.zeros(view.shape))
  return jnp.asarray(stack_of_grams).reshape(view.gram(w, w, side).shape)


@examples
@given(layouts())
def test_to_matrices_is_exact(layout):
  with jax.enable_x64(True):
    w = layout.array()
    got = layout.view.to_matrices(jnp.asarray(w))
  np.testing.assert_array_equal(got, layout.matrices(w), strict=True)


@examples
@given(layouts())
def test_round_trip_is_exact(layout):
  with jax.enable_x64(True):
    w = layout.array()
    got = layout.view.from_matrices(jnp.asarray(layout.matrices(w)))
  np.testing.assert_array_equal(got, w, strict=True)


@examples
@given(layouts())
def test_sizes(layout):
  *stack, m, n = layout.matrices(layout.array()).shape
  view = layout.view
  assert (view.stack, view.num_out, view.num_in) == (tuple(stack), m, n)
  assert view.is_wide == (m <= n)


@examples
@given(layouts())
def test_split_and_merge_are_inverse(layout):
  with jax.enable_x64(True):
    split = layout.split()
    merged = layout.view.merge(split)
  assert split.ndim == len(layout.shape) + (layout.axes.groups > 1)
  np.testing.assert_array_equal(merged, layout.array(), strict=True)


@examples
@given(layouts(), sides)
def test_gram(layout, side):
  view, w, v = layout.view, layout.array(), layout.array(1)
  with jax.enable_x64(True):
    got = view.gram(layout.split(), layout.split(1), side)
  expected = numpy_gram(
    layout.matrices(w), layout.matrices(v), chosen_side(view, side)
  )
  np.testing.assert_allclose(square(view, got, side), expected, 1e-12, 1e-12)


@examples
@given(layouts(), sides)
def test_multiply(layout, side):
  view, w = layout.view, layout.array()
  rows = chosen_side(view, side) == 'out'
  n = view.num_out if rows else view.num_in
  g = random_array(layout.seed, (*view.stack, n, n), layout.dtype)
  with jax.enable_x64(True):
    g_of_view = from_stack(view, g, side)
    got = view.merge(view.multiply(g_of_view, layout.split(), side))
  matrices = layout.matrices(w)
  expected = g @ matrices if rows else matrices @ g
  np.testing.assert_allclose(layout.matrices(got), expected, 1e-12, 1e-12)


@examples
@given(layouts(), sides)
def test_adjoint(layout, side):
  view, w, v = layout.view, layout.array(), layout.array(1)
  with jax.enable_x64(True):
    got = view.adjoint(view.gram(layout.split(), layout.split(1), side), side)
  expected = numpy_gram(
    layout.matrices(v), layout.matrices(w), chosen_side(view, side)
  )
  np.testing.assert_allclose(square(view, got, side), expected, 1e-12, 1e-12)


@examples
@given(layouts())
@pytest.mark.parametrize(('side', 'axis'), [('out', -1), ('in', -2)])
def test_squared_norms(side, axis, layout):
  view, w = layout.view, layout.array()
  with jax.enable_x64(True):
    split = layout.split()
    got = view.merge(
      jnp.broadcast_to(view.squared_norms(split, side), split.shape)
    )
  matrices = layout.matrices(w)
  norms = (np.abs(matrices) ** 2).sum(axis, keepdims=True)
  np.testing.assert_allclose(
    layout.matrices(got), np.broadcast_to(norms, matrices.shape), 1e-12
  )


@examples
@given(layouts())
def test_mean_over_rows(layout):
  view, w = layout.view, layout.array()
  with jax.enable_x64(True):
    norms = view.squared_norms(layout.split(), 'out')
    got = view.mean_over_rows(norms)
  expected = (np.abs(layout.matrices(w)) ** 2).sum(-1).mean(-1)
  np.testing.assert_allclose(got, expected, 1e-12, strict=True)


@examples
@given(layouts())
def test_largest_entry(layout):
  view, w = layout.view, layout.array()
  with jax.enable_x64(True):
    got = view.largest_entry(layout.split())
  expected = np.abs(layout.matrices(w)).max((-1, -2))
  np.testing.assert_allclose(got, expected, 1e-15, strict=True)


@examples
@given(layouts(), sides)
def test_largest_row_sum_bounds_the_largest_eigenvalue(layout, side):
  view, w = layout.view, layout.array()
  with jax.enable_x64(True):
    split = layout.split()
    got = np.asarray(view.largest_row_sum(view.gram(split, split, side)))
  matrices = layout.matrices(w)
  gram = numpy_gram(matrices, matrices, chosen_side(view, side))
  np.testing.assert_allclose(
    got, np.abs(gram).sum(-1).max(-1), 1e-12, strict=True
  )
  assert np.all(got >= np.linalg.eigvalsh(gram)[..., -1] * (1 - 1e-12))


@examples
@given(layouts())
def test_per_matrix(layout):
  view, w = layout.view, layout.array()
  values = random_array(layout.seed, view.stack, float)
  with jax.enable_x64(True):
    factors = view.per_matrix(jnp.asarray(values))
    got = view.merge(factors * layout.split())
  expected = values[..., None, None] * layout.matrices(w)
  np.testing.assert_array_equal(layout.matrices(got), expected)


@examples
@given(layouts(), sides)
def test_per_gram_and_identity(layout, side):
  view = layout.view
  values = random_array(layout.seed, view.stack, float)
  with jax.enable_x64(True):
    identity = np.asarray(view.identity(jnp.float64, side))
    factors = np.asarray(view.per_gram(jnp.asarray(values), side))
  got = square(view, factors * identity, side)
  expected = values[..., None, None] * np.eye(got.shape[-1])
  np.testing.assert_array_equal(got, expected)


@examples
@given(layouts())
def test_muon_numbers(layout):
  """optax contracts the reduction axes and keeps the output axes."""
  with jax.enable_x64(True):
    split = np.asarray(layout.split())
  numbers = layout.view.muon_numbers
  axes = MatrixAxes(numbers.reduction_axis, numbers.output_axis)
  np.testing.assert_array_equal(
    numpy_matrices(split, axes), layout.matrices(layout.array()), strict=True
  )


@pytest.mark.parametrize(
  ('kernel_shape', 'groups'),
  [
    ((2, 3, 4, 6), 1),
    ((2, 3, 2, 6), 2),
    ((2, 3, 1, 6), 3),  # depthwise with two filters per channel
    ((2, 3, 1, 4), 4),  # depthwise
  ],
)
def test_convolution_is_one_matrix_per_group(kernel_shape, groups, float64):
  height, width, per_group, num_out = kernel_shape
  kernel = random_array(0, kernel_shape, float)
  x = random_array(1, (1, 4, 5, per_group * groups), float)
  y = jax.lax.conv_general_dilated(
    jnp.asarray(x),
    jnp.asarray(kernel),
    (1, 1),
    'VALID',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )
  view = MatrixView(kernel_shape, MatrixAxes((0, 1, 2), 3, groups))
  matrices = np.asarray(view.to_matrices(jnp.asarray(kernel)))
  matrices = matrices.reshape(groups, num_out // groups, -1)
  for row, column in np.ndindex(y.shape[1:3]):
    patch = x[0, row : row + height, column : column + width]
    columns = [part.ravel() for part in np.split(patch, groups, axis=-1)]
    outputs = np.einsum('gmn,gn->gm', matrices, np.stack(columns)).ravel()
    np.testing.assert_allclose(y[0, row, column], outputs, 1e-12, 1e-12)


def test_output_first_convolution_is_one_matrix_per_group(float64):
  kernel = random_array(0, (6, 2, 2, 3), float)
  x = random_array(1, (1, 4, 2, 3), float)
  y = jax.lax.conv_general_dilated(
    jnp.asarray(x),
    jnp.asarray(kernel),
    (1, 1),
    'VALID',
    dimension_numbers=('NCHW', 'OIHW', 'NCHW'),
    feature_group_count=2,
  )
  view = MatrixView(kernel.shape, MatrixAxes((1, 2, 3), 0, groups=2))
  patches = x.reshape(2, -1, 1)
  got = view.to_matrices(jnp.asarray(kernel)) @ jnp.asarray(patches)
  np.testing.assert_allclose(np.ravel(y), np.ravel(got), 1e-12)


@pytest.mark.parametrize(
  ('dtype', 'working', 'scalar'),
  [
    ('bfloat16', 'float32', 'float32'),
    ('float16', 'float32', 'float32'),
    ('float32', 'float32', 'float32'),
    ('float64', 'float64', 'float64'),
    ('complex64', 'complex64', 'float32'),
    ('complex128', 'complex128', 'float64'),
  ],
)
def test_on_matrices_works_wide_and_returns_the_dtype(
  dtype, working, scalar, float64
):
  seen = {}

  def fn(view, w, update, number, nothing):
    seen.update(w=w.dtype, update=update.dtype, number=number.dtype)
    assert nothing is None
    return w + number * update

  w = jnp.ones((2, 3), dtype)
  view = MatrixView(w.shape, MatrixAxes(0, 1))
  result = on_matrices(fn, view, w, jnp.ones((2, 3), 'float16'), 0.5, None)
  assert seen == {'w': working, 'update': working, 'number': scalar}
  assert result.dtype == dtype
  np.testing.assert_array_equal(
    result.astype('complex64'), np.full((2, 3), 1.5)
  )


def test_on_matrices_splits_every_array_of_the_parameters_shape():
  shapes = []

  def fn(view, w, update):
    shapes.extend([w.shape, update.shape])
    return w

  w = jnp.ones((2, 6))
  view = MatrixView(w.shape, MatrixAxes(0, 1, groups=3))
  assert on_matrices(fn, view, w, w).shape == (2, 6)
  assert shapes == [(2, 3, 2), (2, 3, 2)]


def test_on_matrices_returns_a_value_per_matrix_as_it_is():
  w = jnp.ones((2, 6), 'bfloat16')
  view = MatrixView(w.shape, MatrixAxes(0, 1, groups=3))
  largest = on_matrices(
    lambda view, w: view.largest_entry(w), view, w, per_matrix=True
  )
  np.testing.assert_array_equal(largest, np.ones(3, np.float32), strict=True)


def equations(jaxpr):
  """All equations of a jaxpr, those of the functions it calls included."""
  for equation in jaxpr.eqns:
    yield equation
    for value in jax.tree.leaves(
      equation.params, is_leaf=lambda x: hasattr(x, 'eqns')
    ):
      if hasattr(value, 'eqns'):
        yield from equations(getattr(value, 'jaxpr', value))


@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('dtype', ['bfloat16', 'float32'])
def test_products_have_the_highest_precision(dtype, side):
  view = MatrixView((2, 3, 4, 6), HWIO)

  def products(w):
    return on_matrices(
      lambda view, w: view.multiply(view.gram(w, w, side), w, side), view, w
    )

  jaxpr = jax.make_jaxpr(products)(jnp.ones(view.shape, dtype)).jaxpr
  dots = [
    eqn for eqn in equations(jaxpr) if eqn.primitive.name == 'dot_general'
  ]
  assert len(dots) == 2
  highest = jax.lax.Precision.HIGHEST
  for dot in dots:
    assert dot.params['precision'] == (highest, highest)
    assert {x.aval.dtype for x in dot.invars} == {jnp.dtype('float32')}


def test_gram_of_bfloat16_is_as_exact_as_float32():
  w = random_array(0, (40, 30), np.float32).astype('bfloat16')
  view = MatrixView(w.shape, MatrixAxes(0, 1))
  gram = on_matrices(
    lambda view, w: view.gram(w, w), view, jnp.asarray(w), per_matrix=True
  )
  exact = w.astype(float).T @ w.astype(float)
  assert gram.dtype == jnp.float32
  np.testing.assert_allclose(gram, exact, atol=1e-4)


def test_integers_count_as_one_axis():
  assert MatrixAxes(0, 1) == MatrixAxes((0,), [1])
  assert MatrixAxes(0, range(1, 3)) == MatrixAxes(0, (1, 2))


def test_integers_of_numpy_are_integers():
  integers: Any = np.arange(3)
  axes = MatrixAxes(integers[0], integers[1], groups=integers[2])
  assert axes == MatrixAxes(0, 1, groups=2)
  assert type(axes.groups) is int


def test_axes_are_a_hashable_leaf():
  axes = MatrixAxes(0, 1)
  assert jax.tree.leaves([axes]) == [axes]
  assert len({axes, MatrixAxes(0, 1), MatrixAxes(1, 0)}) == 2


@pytest.mark.parametrize(
  ('in_axes', 'out_axes', 'named'),
  [(0, 0, '0'), ((0, 1), 1, '1'), ((0, 0), 1, '0'), (0, (1, 1), '1')],
)
def test_refuses_an_axis_named_twice(in_axes, out_axes, named):
  with pytest.raises(ValueError, match='named twice') as error:
    MatrixAxes(in_axes, out_axes)
  assert named in str(error.value)


@pytest.mark.parametrize(
  ('arguments', 'name'), [(((), 0), 'in_axes'), ((0, ()), 'out_axes')]
)
def test_refuses_an_empty_side(arguments, name):
  with pytest.raises(ValueError, match=f'{name} is empty'):
    MatrixAxes(*arguments)


@pytest.mark.parametrize('bad', [0.5, '0', None, (0, 1.0)])
def test_refuses_axes_that_are_no_integers(bad):
  with pytest.raises(TypeError, match='in_axes must hold integers, got'):
    MatrixAxes(bad, 1)


@pytest.mark.parametrize('groups', [0, -1, 1.5, '2', None, True])
def test_refuses_groups_that_are_no_positive_integer(groups):
  with pytest.raises(ValueError, match='groups must be a positive integer'):
    MatrixAxes(0, 1, groups)


@pytest.mark.parametrize('axes', [MatrixAxes(0, 2), MatrixAxes(-3, 1)])
def test_refuses_an_axis_out_of_range(axes):
  with pytest.raises(ValueError, match=r'shape \(2, 3\) does not have'):
    MatrixView((2, 3), axes)


def test_refuses_an_axis_named_twice_by_a_negative_number():
  with pytest.raises(ValueError, match=r'named twice.* for shape \(2, 3\)'):
    MatrixView((2, 3), MatrixAxes(1, -1))


def test_refuses_groups_that_do_not_divide():
  with pytest.raises(ValueError, match='groups=4 do not divide the 6 outputs'):
    MatrixView((2, 6), MatrixAxes(0, 1, groups=4))


def test_refuses_groups_that_do_not_divide_several_output_axes():
  """The first output axis is split, so its size counts."""
  with pytest.raises(ValueError, match='groups=3 do not divide the 2 outputs'):
    MatrixView((4, 2, 3), MatrixAxes(0, (1, 2), groups=3))
