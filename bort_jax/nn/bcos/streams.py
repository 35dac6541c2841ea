"""What is dynamic in a network, and the network with that held.

A B-cos network is linear in its input but for some numbers computed from the
input: the scales of B-cos layers, the units that MaxOut picks, the variances of
norms, the queries and keys of attention. The layers name these numbers with
:func:`dynamic`, which changes no value and no derivative. :func:`two_streams`
is a transformation of functions, as ``jax.grad`` is one: it reads the
operations of a network, runs them once on x and keeps what is named, and gives
the affine function that runs them again on another input with those numbers in
their places. So a network is written once; there is no mode to switch, nothing
to detach and nothing to restore; and since what is kept are ordinary values of
x and the parameters, everything can be differentiated, through the dynamic
numbers too. (With ``stop_gradient`` in their place, the gradient of an
explanation with respect to parameters would miss that part and be wrong.)
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core

_DYNAMIC = 'bort_jax: dynamic'
_ENCODED = 'bort_jax: encoded'
_LOGIT_BIAS = 'bort_jax: logit bias'
_NAMES = (_DYNAMIC, _ENCODED, _LOGIT_BIAS)


def dynamic(x: jax.Array) -> jax.Array:
  """Names an array that is held fixed where a network is explained.

  Args:
    x: any array.

  Returns:
    The same, with the same derivatives.

  Examples:
    >>> import jax
    >>> from jax import numpy as jnp
    >>> from bort_jax.nn.bcos import dynamic, two_streams
    >>> square = lambda params, x: dynamic(x) * x
    >>> x = jnp.array(3.0)
    >>> float(jax.grad(square, 1)(None, x))
    6.0
    >>> float(jax.grad(two_streams(square, None, x).linear)(x))
    3.0
  """
  return checkpoint_name(x, _DYNAMIC)


def encoded(x: jax.Array) -> jax.Array:
  """Names the array that a network is a linear function of: its coded input."""
  return checkpoint_name(x, _ENCODED)


def logit_bias(x: jax.Array) -> jax.Array:
  """Names the number that the logits have added."""
  return checkpoint_name(x, _LOGIT_BIAS)


class TwoStreams(NamedTuple):
  """A function at one input, and as an affine function of another.

  Attributes:
    output: what the function returns.
    encoded: the input of the affine function at x: the array that
      :class:`AddInverse` made in the function, or x where there is none.
    logit_bias: what :class:`LogitLayer` adds to the logits, or 0.0.
    linear: from an array like ``encoded`` to what the function would return if
      everything dynamic stayed as it is; ``linear(encoded)`` is ``output``.
  """

  output: Any
  encoded: jax.Array
  logit_bias: jax.Array | float
  linear: Callable[[jax.Array], Any]


def two_streams(
  apply_fn: Callable[[Any, jax.Array], Any], params: Any, x: jax.Array
) -> TwoStreams:
  """Separates what is dynamic in a function from what is linear.

  Args:
    apply_fn: function of parameters and input, made of the layers of
      :mod:`bort_jax.nn.bcos` or with :func:`dynamic` in it. Jitted functions,
      loops by ``jax.lax.scan`` and rematerialized parts may be inside it.
    params: its parameters.
    x: its input.

  Returns:
    The function's output and its affine form.

  Raises:
    ValueError: if several inputs are encoded in it, or something is named
      inside a control flow other than a scan.

  Examples:
    The affine form is exact, and may be differentiated like any function:

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax import nn
    >>> layer = nn.bcos.BcosDense(3, 2, rngs=nnx.Rngs(0))
    >>> x = jnp.array([[1.0, -2.0, 3.0]])
    >>> streams = nn.bcos.two_streams(*nn.functional(layer), x)
    >>> bool((streams.linear(x) == layer(x)).all())
    True
    >>> jnp.allclose(streams.linear(2 * x), 2 * layer(x)).item()
    True
  """
  closed, shape = jax.make_jaxpr(apply_fn, return_shape=True)(params, x)
  structure = jax.tree.structure(shape)
  leaves = jax.tree.leaves(params)
  seen: dict[str, list[jax.Array]] = {name: [] for name in _NAMES}

  def keep(name: str, value: jax.Array) -> jax.Array:
    seen[name].append(value)
    return value

  run = lambda x, visit: jax.tree.unflatten(
    structure, _run(closed.jaxpr, closed.consts, [*leaves, x], visit)
  )
  output = run(x, keep)
  if len(seen[_ENCODED]) > 1:
    raise ValueError(
      f'{len(seen[_ENCODED])} inputs are encoded in apply_fn, so it is not a'
      ' function of one: encode once, before everything else.'
    )

  def linear(v: jax.Array) -> Any:
    held = iter(seen[_DYNAMIC])
    put = {_DYNAMIC: lambda _: next(held), _ENCODED: lambda _: v}
    visit = lambda name, value: put.get(name, lambda value: value)(value)
    return run(x if seen[_ENCODED] else v, visit)

  start = (seen[_ENCODED] or [x])[0]
  return TwoStreams(output, start, sum(seen[_LOGIT_BIAS]), linear)


# Calls that only wrap other operations.
_CALLS = (
  'jit',
  'closed_call',  # up to JAX 0.11
  'custom_jvp_call',
  'custom_vjp_call',
  'remat2',
)
_Visit = Callable[[str, jax.Array], jax.Array]


def _run(
  jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any], visit: _Visit
) -> list[Any]:
  """The outputs, where ``visit(name, value)`` replaces each named value."""
  names = [*jaxpr.constvars, *jaxpr.invars]
  env = dict(zip(names, [*consts, *args], strict=True))
  for eqn in jaxpr.eqns:
    values = [_read(env, atom) for atom in eqn.invars]
    env.update(zip(eqn.outvars, _step(eqn, values, visit), strict=True))
  return [_read(env, atom) for atom in jaxpr.outvars]


def _read(env: dict[core.Var, Any], atom: Any) -> Any:
  """The value of a variable or of a number in the program."""
  if isinstance(atom, core.Literal):  # halves are lost where it is bound as is
    aval: Any = atom.aval
    return np.asarray(atom.val, aval.dtype)
  return env[atom]


def _step(
  eqn: core.JaxprEqn, values: list[Any], visit: _Visit
) -> Sequence[Any]:
  """The results of one operation."""
  primitive = eqn.primitive
  if primitive.name == 'name' and eqn.params['name'] in _NAMES:
    return [visit(eqn.params['name'], values[0])]
  inner = list(_inner(eqn))
  if not any(_names_something(jaxpr) for jaxpr, _ in inner):
    options = primitive.get_bind_params(eqn.params)
    outs = primitive.bind(*values, **options)
    return outs if primitive.multiple_results else [outs]
  jaxpr, consts = inner[0]
  if primitive.name == 'scan':
    return _unrolled(eqn, jaxpr, consts, values, visit)
  if primitive.name in _CALLS:
    return _run(jaxpr, consts, values, visit)
  raise ValueError(
    f'A dynamic value is named inside {primitive.name!r}, which cannot be taken'
    ' apart: use jax.lax.scan or a Python loop, or name it outside.'
  )


def _unrolled(eqn, jaxpr, consts, values, visit) -> list[Any]:
  """A scan, step by step."""
  length, reverse = eqn.params['length'], eqn.params['reverse']
  fixed, carried = eqn.params['num_consts'], eqn.params['num_carry']
  carry = values[fixed : fixed + carried]
  rows = []
  for i in reversed(range(length)) if reverse else range(length):
    row = [x[i] for x in values[fixed + carried :]]
    outs = _run(jaxpr, consts, [*values[:fixed], *carry, *row], visit)
    carry = outs[:carried]
    rows.append(outs[carried:])
  rows = rows[::-1] if reverse else rows
  return [*carry, *(jnp.stack(column) for column in zip(*rows, strict=True))]


def _inner(eqn: core.JaxprEqn) -> Iterator[tuple[core.Jaxpr, Sequence[Any]]]:
  """The programs inside an operation, with what they close over."""
  for value in jax.tree.leaves(
    list(eqn.params.values()),
    is_leaf=lambda v: isinstance(v, core.Jaxpr | core.ClosedJaxpr),
  ):
    if isinstance(value, core.ClosedJaxpr):
      yield value.jaxpr, value.consts
    elif isinstance(value, core.Jaxpr):
      yield value, ()


def _names_something(jaxpr: core.Jaxpr) -> bool:
  return any(
    (eqn.primitive.name == 'name' and eqn.params['name'] in _NAMES)
    or any(_names_something(inner) for inner, _ in _inner(eqn))
    for eqn in jaxpr.eqns
  )
