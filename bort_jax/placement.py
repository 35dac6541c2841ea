"""Computing with the matrices of a parameter wherever its shards lie."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bort_jax.matrices import MatrixView


def on_matrices(
  fn: Callable[..., Any],
  view: MatrixView,
  x: jax.Array,
  *args: jax.typing.ArrayLike | None,
  per_matrix: bool = False,
) -> Any:
  """Applies ``fn(view, x, *args)`` in working precision.

  ``x`` and the arrays of ``x``'s shape in ``args`` arrive in float32 or wider
  and split by group; the other arguments are real scalars. Explicitly sharded
  parameters are handled by letting the compiler place the intermediates
  (``jax.sharding.auto_axes``). Inside a ``shard_map`` over only some axes of an
  explicit mesh JAX cannot do that, and raises.

  Args:
    fn: function of a :class:`MatrixView` and split arrays.
    view: how ``x`` is a stack of matrices.
    x: the parameter or its update, any float or complex dtype.
    *args: further arrays of ``x``'s shape, scalars, or None.
    per_matrix: whether ``fn`` returns something for each matrix of the stack,
      which is returned as it is. Otherwise it returns a split array, and the
      result has ``x``'s shape, dtype and sharding.

  Returns:
    The result of ``fn``.
  """
  dtype = jnp.result_type(x)
  working = jnp.promote_types(dtype, jnp.float32)

  def prepare(arg):
    arg = jnp.asarray(arg)
    if arg.shape == view.shape:
      return view.split(arg.astype(working))
    return arg.astype(jnp.finfo(working).dtype)

  def compute(*arrays):
    result = fn(view, *jax.tree.map(prepare, arrays))
    return result if per_matrix else view.merge(result).astype(dtype)

  result = x
  if per_matrix:
    mesh = jax.typeof(x).sharding.mesh
    result = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  return let_compiler_place(compute, result, x, *args)


def let_compiler_place(fn: Callable[..., Any], like: Any, *args: Any) -> Any:
  """``fn(*args)``, also of explicitly sharded arrays.

  Args:
    fn: a function of arrays.
    like: a tree of arrays or shardings whose shardings the result has.
    *args: trees of arrays.

  Returns:
    The result of ``fn``.
  """
  if not any(map(_is_sharded, jax.tree.leaves(args))):
    return fn(*args)
  shardings = jax.tree.map(
    lambda x: (
      x if isinstance(x, jax.sharding.Sharding) else jax.typeof(x).sharding
    ),
    like,
  )
  args = jax.tree.map(jnp.asarray, args)
  return jax.sharding.auto_axes(fn, out_sharding=shardings)(*args)


def _is_sharded(x: jax.typing.ArrayLike) -> bool:
  """Whether an array is sharded along an explicit axis of a mesh."""
  sharding = jax.typeof(x).sharding
  types = dict(
    zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True)
  )
  names = jax.tree.leaves(tuple(sharding.spec))
  return any(types[n] == jax.sharding.AxisType.Explicit for n in names)
