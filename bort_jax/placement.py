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
    like: a tree of arrays or shardings whose shardings the result has; what is
      on no mesh (constants under ``vmap``) is replicated.
    *args: trees of arrays.

  Returns:
    The result of ``fn``.
  """
  is_sharded = lambda x: has_explicit_axes(jax.typeof(x).sharding)
  sharded = filter(is_sharded, jax.tree.leaves(args))
  if (first := next(sharded, None)) is None:
    return fn(*args)
  replicated = jax.sharding.NamedSharding(
    jax.typeof(first).sharding.mesh, jax.sharding.PartitionSpec()
  )

  def sharding_of(x):
    is_one = isinstance(x, jax.sharding.Sharding)
    sharding: Any = x if is_one else jax.typeof(x).sharding
    return replicated if sharding.mesh.empty else sharding

  args = jax.tree.map(jnp.asarray, args)
  out_sharding = jax.tree.map(sharding_of, like)
  return jax.sharding.auto_axes(fn, out_sharding=out_sharding)(*args)


def has_explicit_axes(sharding: Any) -> bool:
  """Whether a type's sharding is along an explicit axis of a mesh."""
  types = dict(
    zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True)
  )
  names = jax.tree.leaves(tuple(sharding.spec))
  return any(types[n] == jax.sharding.AxisType.Explicit for n in names)
