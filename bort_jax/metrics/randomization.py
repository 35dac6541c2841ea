"""Whether a map depends on what the network has learned."""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.metrics.checks import (
  ApplyFn,
  check_hashable,
  checked_case,
  rows_of,
)
from bort_jax.metrics.chunks import check_chunk, over_pairs, within_memory
from bort_jax.metrics.correlation import spearman
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.sensitivity import Method, checked_method
from bort_jax.metrics.ssim import WINDOW, check_window, fits, ssim
from bort_jax.selection import path_name

Layers: TypeAlias = Sequence[str | Callable[[str], bool]]
_static = {'static': True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ParameterRandomization:
  """How alike maps are before and after layers forget what they learned."""

  spearman: jax.Array  # (N, L) rank correlation of the maps, −1 … 1
  spearman_absolute: jax.Array  # (N, L) that of their absolute values
  ssim: jax.Array  # (N, L) structural similarity of those, of greatest 1
  target: jax.Array  # (N, L) int, the class that was explained
  layers: tuple[str, ...] = dataclasses.field(metadata=_static)
  cascading: bool = dataclasses.field(metadata=_static)
  retarget: bool = dataclasses.field(metadata=_static)


def parameter_randomization(
  method: Method,
  apply_fn: ApplyFn,
  params: Any,
  reinitialized: Any,
  layers: Layers,
  x: ArrayLike,
  target: ArrayLike,
  *,
  key: jax.Array | None = None,
  cascading: bool = True,
  retarget: bool = False,
  window: int = WINDOW,
  chunk: int | None = None,
) -> ParameterRandomization:
  """Compares maps of a network with those of it with layers re-initialized.

  A map that stays the same does not explain the network.

  Args:
    method: ``method(apply_fn, params, x, target)`` returns maps, see
      :func:`max_sensitivity`.
    apply_fn: the network.
    params: its parameters.
    reinitialized: parameters drawn anew by the network's own initializers, or a
      function that draws them from a key.
    layers: which parameters forget, from the output down as a rule: the start
      of their paths such as ``'dense'`` or ``'blocks/3'``, or functions from a
      path to whether it is of the layer.
    x: pictures (N, H, W, C), floats.
    target: (N,) int.
    key: a random key, where ``reinitialized`` is a function.
    cascading: whether layers that forgot stay so; else one at a time.
    retarget: whether the class is explained that the network with forgotten
      layers predicts, as in the published code, and not ``target``.
    window: of :func:`ssim`.
    chunk: pictures in one pass; by default N.

  Returns:
    The likeness for each layer; every number of a map counts. NaN where a map
    is constant or not finite, and structural similarity where the window does
    not fit.

  Raises:
    MetricError: for layers that are not among the parameters, parameters of
      another structure, targets that do not exist, a method that returns no
      maps, or too little memory.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax import metrics
    >>> apply_fn = lambda params, x: x.reshape(len(x), -1) @ params['dense']
    >>> init = lambda key: {'dense': jax.random.normal(key, (144, 3))}
    >>> def gradient(apply_fn, params, x, target):
    ...   score = lambda x: apply_fn(params, x)[jnp.arange(len(x)), target]
    ...   return jax.grad(lambda x: score(x).sum())(x)
    >>> found = metrics.parameter_randomization(
    ...   gradient,
    ...   apply_fn,
    ...   init(jax.random.key(0)),
    ...   init,
    ...   ['dense'],
    ...   jnp.ones((1, 12, 12, 1)),
    ...   jnp.array([0]),
    ...   key=jax.random.key(1),
    ... )
    >>> found.layers, bool(abs(found.spearman[0, 0]) < 0.3)
    (('dense',), True)

  References:
    Adebayo et al., `Sanity Checks for Saliency Maps
    <https://arxiv.org/abs/1810.03292>`_, 2018
  """
  x, target = checked_case(apply_fn, params, x, target)
  check_hashable('method', method)
  check_chunk(chunk)
  check_window(window)
  new = _drawn(reinitialized, params, key)
  chosen = [_members(layer, params) for layer in _checked_layers(layers)]
  run = _Run(method, apply_fn, chunk)
  explain = lambda params, target: within_memory(
    _explained, run, params, x, target, chunk=chunk
  )
  plain = explain(params, target)
  found = []
  forgotten: set[str] = set()
  for members in chosen:
    forgotten = forgotten | members if cascading else members
    mixed = _mixed(params, new, forgotten)
    explained = _predicted(apply_fn, mixed, x) if retarget else target
    other = explain(mixed, explained)
    found.append((*_likeness(window, plain, other), explained))
  signed, absolute, structure, explained = (
    jnp.stack(column, axis=1) for column in zip(*found, strict=True)
  )
  names = tuple(map(_name, layers))
  return ParameterRandomization(
    signed, absolute, structure, explained, names, cascading, retarget
  )


class _Run(NamedTuple):
  method: Method
  apply_fn: ApplyFn
  chunk: int | None


@functools.partial(jax.jit, static_argnums=0)
def _explained(run: _Run, params, x, target) -> jax.Array:
  explain = lambda _, picture: checked_method(
    run.method, run.apply_fn, params, x[picture], target[picture]
  )
  return over_pairs(explain, 1, len(x), run.chunk)[:, 0]


@functools.partial(jax.jit, static_argnums=0)
def _predicted(apply_fn, params, x) -> jax.Array:
  return jnp.argmax(apply_fn(params, x), axis=-1)


@functools.partial(jax.jit, static_argnums=0)
def _likeness(
  window: int, plain: jax.Array, other: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  sizes = jnp.abs(plain), jnp.abs(other)
  structure = jnp.full(len(plain), jnp.nan, plain.dtype)
  if fits(window, plain.shape):
    constant = functools.reduce(
      jnp.logical_or, (jnp.ptp(rows_of(a), axis=1) == 0 for a in sizes)
    )
    greatest = lambda a: jnp.max(a, axis=(1, 2, 3), keepdims=True)
    structure = ssim(*(a / greatest(a) for a in sizes), window=window)
    structure = jnp.where(constant, jnp.nan, structure)
  signed = spearman(rows_of(plain), rows_of(other))
  return signed, spearman(*map(rows_of, sizes)), structure


def _drawn(reinitialized: Any, params: Any, key: jax.Array | None) -> Any:
  """Parameters drawn anew, of the structure and shapes of the others."""
  if callable(reinitialized):
    if key is None:
      raise MetricError('Give a random key: reinitialized is a function.')
    reinitialized = reinitialized(key)
  old, new = _by_name(params), _by_name(reinitialized)
  wrong = [
    name
    for name in {**old, **new}
    if name not in old
    or name not in new
    or jnp.shape(old[name]) != jnp.shape(new[name])
  ]
  if wrong:
    shape = lambda leaves: (
      jnp.shape(leaves[wrong[0]]) if wrong[0] in leaves else 'missing'
    )
    raise MetricError(
      'reinitialized must have the structure of params, but'
      f' {wrong[0]!r} is {shape(new)} there and {shape(old)} in params.'
    )
  return reinitialized


def _by_name(tree: Any) -> dict[str, Any]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {path_name(path): leaf for path, leaf in leaves}


def _checked_layers(layers: Layers) -> Layers:
  if isinstance(layers, str) or not layers:
    raise MetricError(
      f'layers must be a list of layers, at least one, got {layers!r}.'
    )
  return layers


def _members(layer: str | Callable[[str], bool], params: Any) -> set[str]:
  """The names of the parameters of a layer."""
  names = list(_by_name(params))
  if callable(layer):
    members = {name for name in names if layer(name)}
  else:
    members = {
      name for name in names if name == layer or name.startswith(f'{layer}/')
    }
  if members:
    return members
  prefixes = {
    '/'.join(name.split('/')[: depth + 1]): None
    for name in names
    for depth in range(name.count('/') + 1)
  }
  near = difflib.get_close_matches(_name(layer), prefixes, n=1)
  hint = f' Did you mean {near[0]!r}?' if near else ''
  raise MetricError(
    f'There are no parameters of layer {_name(layer)!r}; there are'
    f' {", ".join(names)}.{hint}'
  )


def _mixed(params: Any, new: Any, forgotten: set[str]) -> Any:
  """The parameters, those that are forgotten drawn anew."""
  return jax.tree_util.tree_map_with_path(
    lambda path, old, fresh: fresh if path_name(path) in forgotten else old,
    params,
    new,
  )


def _name(layer: str | Callable[[str], bool]) -> str:
  return layer if isinstance(layer, str) else getattr(layer, '__name__', '?')
