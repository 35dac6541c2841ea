"""Operations are known by the names that JAX gives them."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint
from jax.extend.core import Primitive

from bort_jax import inversion
from bort_jax.inversion import inlining, operations, program
from bort_jax.inversion.segments import cut

# Of supported versions, not of all: up to 0.11; from 0.12 on.
OTHER_VERSIONS = {'closed_call', 'log2', 'one_minus_square'}
X = jax.random.normal(jax.random.key(0), (2, 4))
W = jax.nn.initializers.orthogonal()(jax.random.key(1), (4, 4))
WIDE = jnp.ones((2, 8))


def names_in_jax() -> set[str]:
  """The names of all primitives in what is imported of JAX."""
  modules = [m for name, m in sys.modules.items() if name.startswith('jax')]
  return {
    value.name
    for module in modules
    for value in list(vars(module).values())
    if isinstance(value, Primitive)
  }


TABLES = {
  'linear': operations._LINEAR,
  'affine': operations._AFFINE,
  'bilinear': operations._BILINEAR,
  'elementwise': operations.ELEMENTWISE,
  'switches': operations.SWITCHES,
  'identities': operations.IDENTITIES,
  'smooth': operations._SMOOTH,
  'calls': inlining._CALLS,
}


@pytest.mark.parametrize('table', TABLES)
def test_every_name_is_that_of_a_primitive(table):
  assert set(TABLES[table]) <= names_in_jax() | OTHER_VERSIONS


def test_what_is_linear_is_not_called_smooth_too():
  known = set(operations._LINEAR) | operations.ELEMENTWISE
  assert not known & operations._SMOOTH


def scatter_sub(params, x):
  return jnp.ones((2, 6)).at[:, jnp.array([4, 1, 0, 2])].subtract(x @ params)


LINEAR = {
  'stack': lambda p, x: jnp.stack([x @ p, x, 2 * x]),
  'unstack': lambda p, x: jnp.unstack((x @ p).reshape(2, 2, 2), axis=0)[1],
  'tile': lambda p, x: jnp.tile(x @ p, (1, 3)),
  'scatter-sub': scatter_sub,
}


@pytest.mark.parametrize('method', ['auto', 'transpose', 'least_squares'])
@pytest.mark.parametrize('name', LINEAR)
def test_linear_operations_are_undone_as_such(name, method):
  apply_fn = LINEAR[name]
  assert name in str(jax.make_jaxpr(apply_fn)(W, X))
  found = inversion.reconstruct(apply_fn, W, X, method=method)
  assert [s.kind for s in found.segments] == ['affine']
  expected = X.at[0].set(0) if name == 'unstack' else X  # half is lost
  np.testing.assert_allclose(found.x, expected, atol=1e-5)


def test_names_of_values_change_nothing():
  plain = lambda p, x: jnp.tanh(jax.nn.leaky_relu(x @ p) @ p)

  def named(params, x):
    h = checkpoint_name(x @ params, 'first')
    h = checkpoint_name(jax.nn.leaky_relu(h), 'second')
    return checkpoint_name(jnp.tanh(h @ params), 'last')

  results = [inversion.reconstruct(f, W, X) for f in (plain, named)]
  np.testing.assert_array_equal(results[0].x, results[1].x)
  kinds = [[s.kind for s in result.segments] for result in results]
  assert kinds[0] == kinds[1]


def test_layouts_change_nothing():
  layout = Layout((0, 1))
  apply_fn = lambda p, x: with_layout_constraint(x, layout) @ p
  assert 'layout_constraint' in str(jax.make_jaxpr(apply_fn)(W, X))
  found = inversion.reconstruct(apply_fn, W, X)
  assert [s.kind for s in found.segments] == ['affine']
  np.testing.assert_allclose(found.x, X, atol=1e-5)


def test_a_new_sharding_is_linear():
  explicit = (jax.sharding.AxisType.Explicit,)
  spec = jax.sharding.PartitionSpec('data', None)
  apply_fn = lambda p, x: jax.sharding.reshard(x @ p, spec)
  with jax.set_mesh(jax.make_mesh((1,), ('data',), axis_types=explicit)):
    assert 'reshard' in str(jax.make_jaxpr(apply_fn)(W, X))
    pieces = cut(
      program.trace(apply_fn, W, jax.ShapeDtypeStruct(X.shape, X.dtype))
    )
  assert [piece.kind for piece in pieces] == ['affine']


def outputs_of_a_scan(params, x):
  step = lambda h, w: (h @ w, h @ w)
  return jax.lax.scan(step, x, jnp.stack([params, 2 * params]))[1]


def mapped(params, x):
  return jax.lax.map(lambda row: row @ params, x)


@pytest.mark.parametrize('apply_fn', [outputs_of_a_scan, mapped])
def test_scans_may_collect_outputs(apply_fn):
  found = inversion.reconstruct(apply_fn, W, X)
  assert [s.kind for s in found.segments] == ['affine']
  np.testing.assert_allclose(found.x, X, atol=1e-5)


def test_only_sorts_of_one_array_are_switches():
  keys = jnp.array([[3.0, 1.0, 2.0, 0.0]] * 2)
  alone = lambda p, x: jax.lax.sort(x @ p)
  found = inversion.reconstruct(alone, W, X)
  np.testing.assert_allclose(found.x, X, atol=1e-5)
  together = lambda p, x: jax.lax.sort((keys, x @ p), num_keys=1)[1]
  by_x = lambda p, x: jax.lax.sort((x @ p, keys), num_keys=1)[0]
  for apply_fn in (together, by_x):
    with pytest.raises(inversion.InversionError, match="'sort' backwards"):
      inversion.reconstruct(apply_fn, W, X)
