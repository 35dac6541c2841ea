"""Which parameters of a tree are matrices, and along which axes.

Everything here goes by a parameter's *path*: the names that lead to it, joined
by ``/``. Paths are the same for a Flax Linen dict, an NNX ``State`` with or
without its boxes, a Haiku dict and an Equinox module, and they survive masking,
so one description of the matrices fits them all.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from bort_jax.matrices import MatrixAxes, MatrixView

Rule: TypeAlias = Callable[[str, Any], MatrixAxes | None]
Spec: TypeAlias = MatrixAxes | optax.contrib.MuonDimensionNumbers
# A rule, one spec, a tree of specs (None: not a matrix), or None: default_rule.
AxesLike: TypeAlias = Any


def default_rule(path: str, leaf: Any) -> MatrixAxes | None:
  """Says by its name whether a parameter is a matrix, and along which axes.

  * ``kernel`` (Flax) and ``w`` (Haiku): the last axis is the output, all
    others are inputs; a rank-3 ``query``, ``key`` or ``value`` kernel of Flax
    attention is (input | heads, head size).
  * ``weight`` (Equinox, PyTorch layout): the first axis is the output. Weights
    of modules whose name contains ``norm``, and rank-2 weights of modules whose
    name contains ``embed``, are not matrices.
  * everything else (biases, scales, embeddings, positions, tokens) is not.

  A name cannot tell a grouped or depthwise kernel, layers stacked by a scan, a
  ``DenseGeneral`` with several output axes, or a lookup table called
  ``weight``: give ``axes`` for those, with ``groups``, with the stacked axis
  left out, or with None for what is no matrix.

  Args:
    path: names from the root to the parameter, joined by ``/``.
    leaf: the parameter, or anything with its shape.

  Returns:
    The axes, or None where the parameter is not a matrix.

  Examples:
    >>> import jax
    >>> from bort_jax.selection import default_rule
    >>> kernel = jax.ShapeDtypeStruct((3, 3, 16, 32), 'float32')
    >>> default_rule('Conv_0/kernel', kernel)
    MatrixAxes(in_axes=(0, 1, 2), out_axes=(3,), groups=1)
    >>> default_rule('Conv_0/bias', kernel) is None
    True
  """
  *modules, name = path.split('/')
  module = modules[-1].lower() if modules else ''
  rank = len(jnp.shape(leaf))
  if rank < 2:
    return None
  if name in ('kernel', 'w'):
    if rank == 3 and module in ('query', 'key', 'value'):
      return MatrixAxes(0, (1, 2))
    return MatrixAxes(tuple(range(rank - 1)), rank - 1)
  if name == 'weight' and 'norm' not in module:
    if rank == 2 and 'embed' in module:
      return None
    return MatrixAxes(tuple(range(1, rank)), 0)
  return None


def matrix_views(
  axes: AxesLike, tree: Any, *, required: bool = True
) -> dict[str, MatrixView]:
  """Finds the matrices of a tree.

  Args:
    axes: a rule ``(path, leaf) -> MatrixAxes | None``; or one spec, for every
      parameter of sufficient rank; or a tree of specs, matched by path, where a
      spec may stand for a whole subtree and None for "not a matrix"; or None
      for :func:`default_rule`. A spec is a :class:`MatrixAxes` or an
      ``optax.contrib.MuonDimensionNumbers``.
    tree: parameters, or anything of their structure and shapes. ``None``,
      ``optax.MaskedNode`` and leaves without a shape are passed over.
    required: whether parameters of which none is a matrix are refused.

  Returns:
    For each parameter that is a matrix, by path: how it is one.

  Raises:
    TypeError: if a selected parameter is not of a float or complex dtype, or
      the rule returns something else than axes.
    ValueError: if the specs do not fit the tree or a shape, or if matrices are
      required and the tree has parameters but none is selected.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.selection import matrix_views
    >>> params = {'dense': {'kernel': jnp.ones((3, 2)), 'bias': jnp.ones(2)}}
    >>> [(path, view.axes) for path, view in matrix_views(None, params).items()]
    [('dense/kernel', MatrixAxes(in_axes=(0,), out_axes=(1,), groups=1))]
  """
  leaves = {
    path_name(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    if hasattr(leaf, 'shape')  # an Equinox module holds functions too
  }
  if axes is None or _is_rule(axes):
    rule = axes or default_rule
    found = {path: _to_axes(path, rule(path, x)) for path, x in leaves.items()}
  else:
    found = _match_specs(axes, leaves, tree)
  views = {
    path: _view(path, leaves[path], found_axes)
    for path, found_axes in found.items()
    if found_axes is not None
  }
  if required and leaves and not views:
    raise ValueError(_nothing_selected(axes, leaves))
  return views


def map_matrices(
  fn: Callable[..., Any],
  axes: AxesLike,
  tree: Any,
  *rest: Any,
  others: Callable[..., Any] = lambda leaf, *rest: leaf,
  required: bool = False,
) -> Any:
  """Maps ``fn(view, leaf, *rest)`` over the matrices of a tree.

  Args:
    fn: function of a parameter's view, its leaf, and the leaves of ``rest``.
    axes: as for :func:`matrix_views`.
    tree: a tree; ``None`` leaves stay.
    *rest: trees of the same structure, or with more below a ``None``.
    others: what becomes of the other leaves; by default they stay.
    required: as for :func:`matrix_views`.

  Returns:
    A tree like ``tree``.

  Raises:
    TypeError, ValueError: as :func:`matrix_views`.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.selection import map_matrices
    >>> params = {'kernel': jnp.ones((3, 2)), 'bias': jnp.ones(2)}
    >>> map_matrices(lambda view, w: 2 * w, None, params)['kernel'].tolist()
    [[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]
  """
  views = matrix_views(axes, tree, required=required)

  def visit(path, leaf, *rest):
    if leaf is None:
      return None
    view = views.get(path_name(path))
    return others(leaf, *rest) if view is None else fn(view, leaf, *rest)

  return jax.tree_util.tree_map_with_path(
    visit, tree, *rest, is_leaf=lambda x: x is None
  )


def path_name(path: tuple[Any, ...]) -> str:
  """The names of a key path joined by ``/``, without the box of a variable."""
  if len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey('value'):
    path = path[:-1]  # flax.nnx.Variable and flax.linen.Partitioned
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _is_spec(x: Any) -> bool:
  return isinstance(x, MatrixAxes | optax.contrib.MuonDimensionNumbers)


def _is_rule(axes: Any) -> bool:
  # A module of specs, as Equinox has them, can be callable too.
  specs = jax.tree.leaves(axes, is_leaf=_is_spec)
  return callable(axes) and not any(map(_is_spec, specs))


def _match_specs(
  specs: Any, leaves: dict[str, Any], tree: Any
) -> dict[str, MatrixAxes | None]:
  """The spec of each leaf whose path starts with the spec's path."""
  found: dict[str, MatrixAxes | None] = {}
  for key_path, spec in jax.tree_util.tree_leaves_with_path(
    specs, is_leaf=lambda x: x is None or _is_spec(x)
  ):
    path = path_name(key_path)
    axes = _to_axes(path, spec)
    below = [leaf for leaf in leaves if _is_below(leaf, path)]
    fitting = [leaf for leaf in below if _has_axes(leaves[leaf], axes)]
    if below and not fitting:
      shapes = {leaf: jnp.shape(leaves[leaf]) for leaf in below}
      raise ValueError(
        f'axes: {axes} names an axis that no parameter at'
        f' {path or "the root"!r} has; the shapes there are {shapes}.'
      )
    if leaves and not below and not _is_masked(path, tree):
      raise ValueError(
        f'axes has a spec at {path!r}, where the parameters have nothing;'
        f' their paths are {_listing(leaves)}.'
      )
    found.update(dict.fromkeys(fitting, axes))
  return found


def _is_masked(path: str, tree: Any) -> bool:
  """Whether ``tree`` has None or a masked node at, above or below a path."""
  absent = lambda x: x is None or isinstance(x, optax.MaskedNode)
  return any(
    _is_below(path, path_name(key_path)) or _is_below(path_name(key_path), path)
    for key_path, x in jax.tree_util.tree_leaves_with_path(tree, is_leaf=absent)
    if absent(x)
  )


def _is_below(path: str, prefix: str) -> bool:
  return not prefix or path == prefix or path.startswith(prefix + '/')


def _has_axes(leaf: Any, axes: MatrixAxes | None) -> bool:
  rank = len(jnp.shape(leaf))
  return axes is None or all(
    -rank <= axis < rank for axis in (*axes.in_axes, *axes.out_axes)
  )


def _to_axes(path: str, spec: Any) -> MatrixAxes | None:
  if isinstance(spec, optax.contrib.MuonDimensionNumbers):
    return MatrixAxes(spec.reduction_axis, spec.output_axis)
  if spec is None or isinstance(spec, MatrixAxes):
    return spec
  raise TypeError(
    f'axes must give a MatrixAxes, MuonDimensionNumbers or None for {path!r},'
    f' got {spec!r}.'
  )


def _view(path: str, leaf: Any, axes: MatrixAxes) -> MatrixView:
  dtype = jax.dtypes.canonicalize_dtype(jnp.result_type(leaf))
  if not jnp.issubdtype(dtype, jnp.inexact):
    raise TypeError(
      f'Parameter {path!r} has dtype {dtype}; only float and complex'
      ' parameters can be kept orthogonal. Leave it out with axes.'
    )
  try:
    return MatrixView(jnp.shape(leaf), axes)
  except ValueError as error:
    raise ValueError(f'Parameter {path!r}: {error}') from None


def _nothing_selected(axes: AxesLike, leaves: dict[str, Any]) -> str:
  source = 'The default rule' if axes is None else 'axes'
  return (
    f'{source} selects no parameter as a matrix among {_listing(leaves)}. Give'
    ' axes=MatrixAxes(in_axes=..., out_axes=...), a tree of them, or a rule'
    ' (path, leaf) -> MatrixAxes | None.'
  )


def _listing(leaves: dict[str, Any], limit: int = 8) -> str:
  paths = [repr(path) for path in leaves]
  more = len(paths) - limit
  return ', '.join(paths[:limit]) + (f' and {more} more' if more > 0 else '')
