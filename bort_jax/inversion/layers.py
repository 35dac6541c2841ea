"""Part of a function: up to one of its layers."""

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any

import jax

from bort_jax.inversion.errors import InversionError
from bort_jax.inversion.program import evaluate, trace, trace_after
from bort_jax.inversion.segments import cut

Layer = str | int


@dataclasses.dataclass(frozen=True)
class Until:
  """A function that stops at a layer; equal ones are compiled once."""

  apply_fn: Callable[[Any, jax.Array], Any]
  layer: Layer

  def __call__(self, params: Any, x: jax.Array) -> jax.Array:
    """The layer's output."""
    if isinstance(self.layer, str):
      return _named(self.apply_fn(params, x), self.layer)
    return _segments(self.apply_fn, params, x, self.layer)[0]


def until(apply_fn: Callable[[Any, jax.Array], Any], layer: Layer) -> Until:
  """A function up to one of its layers.

  Args:
    apply_fn: a function of parameters and input. For a layer by name it returns
      a mapping of outputs by their names, as
      ``nn.functional(model, 'intermediates')`` gives; names of nested mappings
      are joined by ``/``.
    layer: the name of an output, or the number of a segment, as
      in ``reconstruct(…).segments``, of a function with one output.

  Returns:
    ``apply_fn(params, x)`` that returns that layer's output.

  Raises:
    InversionError: when it is called, if there is no such layer.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import inversion
    >>> outputs = lambda params, x: {'twice': 2 * x, 'all': jnp.sum(x)}
    >>> inversion.until(outputs, 'twice')(None, jnp.ones(2)).tolist()
    [2.0, 2.0]
  """
  return Until(apply_fn, layer)


def segments_before(
  apply_fn: Callable[[Any, jax.Array], Any],
  params: Any,
  x: jax.Array | jax.ShapeDtypeStruct,
  layer: Layer,
) -> int:
  """How many segments a function is cut into up to the end of a layer.

  Args:
    apply_fn: the function, see :func:`until`.
    params: its parameters.
    x: its input, for shape and dtype.
    layer: the layer.

  Returns:
    The number: those with a smaller index are what an inversion from the layer
    runs backwards.

  Raises:
    InversionError: if there is no such layer, or it cannot be read.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import inversion
    >>> def outputs(params, x):
    ...   half = x @ params
    ...   return {'half': half, 'logits': jnp.maximum(half, 0)}
    >>> of = lambda layer: inversion.segments_before(
    ...   outputs, jnp.eye(2), jnp.ones((1, 2)), layer
    ... )
    >>> of('half'), of('logits')
    (1, 2)
  """
  like = jax.ShapeDtypeStruct(x.shape, x.dtype)
  return len(cut(trace(until(apply_fn, layer), params, like)))


def rest(
  apply_fn: Callable[[Any, jax.Array], Any],
  params: Any,
  x: jax.Array | jax.ShapeDtypeStruct,
  layer: Layer,
  output: str = 'logits',
) -> Callable[[jax.Array], jax.Array]:
  """What a function makes of a layer's output.

  Args:
    apply_fn: the function, see :func:`until`.
    params: its parameters.
    x: its input, for shape and dtype.
    layer: the layer.
    output: the name of the last output, if it has names.

  Returns:
    The function from the layer's output to the last one. At kinks its
    derivatives are those of its operations: of max(x, 0) at 0, one half.

  Raises:
    InversionError: if the last output does not depend on the layer, or on x
      past it too.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import inversion
    >>> def outputs(params, x):
    ...   twice = 2 * x
    ...   return {'twice': twice, 'logits': params * jnp.sum(twice)}
    >>> head = inversion.rest(outputs, 3.0, jnp.ones(2), 'twice')
    >>> float(head(jnp.array([1.0, 4.0])))
    15.0
  """
  program = trace_after(
    _Pair(apply_fn, layer, output),
    params,
    jax.ShapeDtypeStruct(x.shape, x.dtype),
  )
  if program is None:
    raise InversionError(
      f'{output!r} is not made of layer {layer!r} alone: it does not depend on'
      ' it, or on x past it too. Choose a layer between two blocks.'
    )
  with jax.default_matmul_precision('highest'):
    constants = program.constants(params)
  return lambda z: program(constants, z)


@dataclasses.dataclass(frozen=True)
class _Pair:
  """A layer's output and the last one, of one pass."""

  apply_fn: Callable[[Any, jax.Array], Any]
  layer: Layer
  output: str

  def __call__(self, params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    if isinstance(self.layer, str):
      outputs = self.apply_fn(params, x)
      last = outputs
      if not isinstance(outputs, jax.Array):
        last = _named(outputs, self.output)
      return _named(outputs, self.layer), last
    return _segments(self.apply_fn, params, x, self.layer)


def _segments(
  apply_fn: Callable[[Any, jax.Array], Any],
  params: Any,
  x: jax.Array,
  last: int,
) -> tuple[jax.Array, jax.Array]:
  """The outputs of one segment and of the last."""
  program = trace(apply_fn, params, jax.ShapeDtypeStruct(x.shape, x.dtype))
  pieces = cut(program)
  if not 0 <= last < len(pieces):
    raise InversionError(
      f'There is no segment {last}: the function has {len(pieces)}, from 0 to'
      f' {len(pieces) - 1}.'
    )
  values = {**program.constants(params), program.invar: x}
  values = evaluate(program.eqns, values)
  return values[pieces[last].outvar], values[program.outvar]


def _named(outputs: Any, layer: str) -> jax.Array:
  by_name = {
    '/'.join(str(getattr(k, 'key', getattr(k, 'idx', k))) for k in path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(outputs)
  }
  by_name.pop('', None)  # a function of one output has no names
  if layer in by_name:
    return by_name[layer]
  if not by_name:
    raise InversionError(
      f'There is no layer {layer!r}: apply_fn returns one array without a name.'
      " Use nn.functional(model, 'intermediates'), or a segment's number."
    )
  near = difflib.get_close_matches(layer, by_name, n=1)
  hint = f' Did you mean {near[0]!r}?' if near else ''
  raise InversionError(
    f'There is no layer {layer!r}; there are {", ".join(by_name)}.{hint}'
  )
