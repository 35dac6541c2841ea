"""Part of a function: up to one of its layers."""

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any

import jax

from bort_jax.inversion.errors import InversionError
from bort_jax.inversion.program import evaluate, trace, variables
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
    like = jax.ShapeDtypeStruct(x.shape, x.dtype)
    program = trace(self.apply_fn, params, like)
    pieces = cut(program)
    if not 0 <= self.layer < len(pieces):
      raise InversionError(
        f'There is no segment {self.layer}: the function has {len(pieces)},'
        f' from 0 to {len(pieces) - 1}.'
      )
    values = {**program.constants(params), program.invar: x}
    for piece in pieces[: self.layer + 1]:
      values = evaluate(piece.eqns, values)
    return values[pieces[self.layer].outvar]


def until(apply_fn: Callable[[Any, jax.Array], Any], layer: Layer) -> Until:
  """A function up to one of its layers.

  Args:
    apply_fn: a function of parameters and input. For a layer by name it returns
      a mapping of outputs by their names, as
      ``nn.functional(model, 'intermediates')`` gives; names of nested mappings
      are joined by ``/``.
    layer: the name of an output, or the number of a segment (see
      :func:`bort_jax.inversion.segments_of`) of a function with one output.

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


def rest(
  apply_fn: Callable[[Any, jax.Array], Any],
  params: Any,
  x: jax.Array,
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
    The function from the layer's output to the last one.

  Raises:
    InversionError: if x reaches the last output past the layer too.
  """
  like = jax.ShapeDtypeStruct(x.shape, x.dtype)
  named = isinstance(jax.eval_shape(apply_fn, params, x), dict)
  whole = until(apply_fn, output) if named else apply_fn
  program = trace(whole, params, like)
  first = trace(until(apply_fn, layer), params, like)
  later = program.eqns[len(first.eqns) :]
  entrance = program.eqns[len(first.eqns) - 1].outvars[0]
  made = {entrance, *(v for eqn in later for v in eqn.outvars)}
  used = {v for eqn in later for v in variables(eqn)}
  if (used & program.dependent) - made:
    raise InversionError(
      f'Layer {layer!r} is not a bottleneck: {output!r} depends on x past it.'
      ' Choose a layer between two blocks.'
    )
  constants = program.constants(params)
  return lambda z: evaluate(later, {**constants, entrance: z})[program.outvar]


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
