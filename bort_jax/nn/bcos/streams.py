"""What is dynamic in a network, and the network with that held.

A B-cos network is linear in its input but for some numbers computed from the
input: the scales of B-cos layers, the variances of norms, the queries and keys
of attention. The layers name these numbers with :func:`dynamic`, which changes
no value and no derivative. :func:`two_streams` is a transformation of
functions, as ``jax.grad`` is one: it reads the operations of a network, runs
them once on x, and gives the affine function that runs them again on another
input, with every number that is named as it was at x. So a network is written
once; there is no mode to switch, nothing to detach and nothing to restore; and
since what is held are ordinary values of x and the parameters, everything can
be differentiated, through the dynamic numbers too. (With ``stop_gradient`` in
their place, the gradient of an explanation with respect to parameters would
miss that part and be wrong.)

What chooses among inputs is held without a name: comparisons and other results
that are not floats, such as the unit that MaxOut picks; and maxima, minima and
ReLUs, which are taken as the linear functions that they are around x. So
networks that are linear by pieces have an exact affine form too.
"""

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
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
  tape = _Tape()
  args = [tape.node(leaf) for leaf in (*jax.tree.leaves(params), x)]
  outs = tape.run(closed.jaxpr, closed.consts, args)
  if len(tape.encoded) > 1:
    raise ValueError(
      f'{len(tape.encoded)} inputs are encoded in apply_fn, so it is not a'
      ' function of one: encode once, before everything else.'
    )
  (start,) = tape.encoded or args[-1:]
  steps = tape.needed(outs)
  structure = jax.tree.structure(shape)

  def linear(v: jax.Array) -> Any:
    return jax.tree.unflatten(structure, tape.replay(steps, start, v, outs))

  return TwoStreams(
    output=jax.tree.unflatten(structure, [tape.values[n] for n in outs]),
    encoded=tape.values[start],
    logit_bias=sum(tape.logit_biases),
    linear=linear,
  )


# Calls that only wrap other operations.
_CALLS = ('jit', 'closed_call', 'remat2')
# Calls with a derivative of their own.
_CUSTOM = ('custom_jvp_call', 'custom_vjp_call')
_CHOICES = (
  'max',
  'min',
  'abs',
  'clamp',
  'reduce_max',
  'reduce_min',
  'reduce_window_max',
  'reduce_window_min',
)
_COMPARISONS = ('lt', 'le', 'gt', 'ge', 'eq', 'ne', 'select_n')
_SCALINGS = ('mul', 'broadcast_in_dim', 'convert_element_type', 'jit')


class _Step(NamedTuple):
  """One operation, on nodes of a tape."""

  function: Callable[..., Sequence[Any]]
  chooses: bool  # whether it is replaced by its linear form
  ins: list[int]
  outs: list[int]


class _Tape:
  """All operations of a function in order, and what they gave at x.

  A node is the place of a value. What is held has a node, but no step.
  """

  def __init__(self):
    self.values: list[Any] = []
    self.steps: list[_Step] = []
    self.encoded: list[int] = []
    self.logit_biases: list[jax.Array] = []

  def node(self, value: Any) -> int:
    """A new place with that value."""
    self.values.append(value)
    return len(self.values) - 1

  def do(
    self,
    function: Callable[..., Sequence[Any]],
    ins: list[int],
    *,
    chooses: bool = False,
  ) -> list[int]:
    """Runs an operation; its results have places."""
    values = [self.values[n] for n in ins]
    outs = [self.node(value) for value in function(*values)]
    self.steps.append(_Step(function, chooses, ins, outs))
    return outs

  def run(
    self, jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[int]
  ) -> list[int]:
    """The places of a program's results, of those of its arguments."""
    names = [*jaxpr.constvars, *jaxpr.invars]
    env = dict(zip(names, [*map(self.node, consts), *args], strict=True))
    read = lambda atom: (
      self.node(_literal(atom)) if isinstance(atom, core.Literal) else env[atom]
    )
    for eqn in jaxpr.eqns:
      outs = self.step(eqn, [read(atom) for atom in eqn.invars])
      env.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]

  def step(self, eqn: core.JaxprEqn, ins: list[int]) -> list[int]:
    """Runs one operation of a program."""
    name = eqn.primitive.name
    if name == 'name' and eqn.params['name'] in _NAMES:
      return [self.named(eqn.params['name'], self.values[ins[0]])]
    inner = list(_inner(eqn))
    named = any(_names_something(jaxpr) for jaxpr, _ in inner)
    if name in _CALLS or (named and name in _CUSTOM):
      (jaxpr, consts), *_ = inner
      return self.run(jaxpr, consts, ins)
    if named and name == 'scan':
      (jaxpr, consts), *_ = inner
      return self.unroll(eqn, jaxpr, consts, ins)
    if named:
      raise ValueError(
        f'A dynamic value is named inside {name!r}, which cannot be taken'
        ' apart: use jax.lax.scan or a Python loop, or name it outside.'
      )
    outs = self.do(functools.partial(_bind, eqn), ins, chooses=_chooses(eqn))
    if not any(_is_float(v.aval) for v in eqn.outvars):
      self.steps.pop()  # held
    return outs

  def named(self, name: str, value: jax.Array) -> int:
    """The place of a named value."""
    node = self.node(value)
    if name == _ENCODED:
      self.encoded.append(node)
    if name == _LOGIT_BIAS:
      self.logit_biases.append(value)
    return node

  def unroll(self, eqn, jaxpr, consts, ins: list[int]) -> list[int]:
    """A scan, step by step."""
    length, reverse = eqn.params['length'], eqn.params['reverse']
    # What the loop runs over has an axis more outside (JAX 0.12 says no more).
    same = lambda a, b: len(a.aval.shape) == len(b.aval.shape)
    carried = sum(map(same, eqn.outvars, jaxpr.outvars))
    fixed = sum(map(same, eqn.invars, jaxpr.invars)) - carried
    carry, rows = ins[fixed : fixed + carried], []
    for i in reversed(range(length)) if reverse else range(length):
      take = lambda x, i=i: [x[i]]
      row = [self.do(take, [n])[0] for n in ins[fixed + carried :]]
      outs = self.run(jaxpr, consts, [*ins[:fixed], *carry, *row])
      carry = outs[:carried]
      rows.append(outs[carried:])
    rows = rows[::-1] if reverse else rows
    stack = lambda *values: [jnp.stack(values)]
    columns = zip(*rows, strict=True)
    return [*carry, *(self.do(stack, list(column))[0] for column in columns)]

  def needed(self, outs: Collection[int]) -> list[_Step]:
    """The steps that the results need."""
    wanted, steps = set(outs), []
    for step in reversed(self.steps):
      if not wanted.isdisjoint(step.outs):
        wanted.update(step.ins)
        steps.append(step)
    return steps[::-1]

  def replay(
    self, steps: Sequence[_Step], start: int, v: Any, outs: Sequence[int]
  ) -> list[Any]:
    """The results if ``v`` stood at the start and what is held stayed."""
    new = {start: v}
    for step in steps:
      if new.keys().isdisjoint(step.ins):
        continue
      if step.chooses:
        results = self.linearly(step, new)
      else:
        results = step.function(*(new.get(n, self.values[n]) for n in step.ins))
      new.update(zip(step.outs, results, strict=True))
    return [new.get(n, self.values[n]) for n in outs]

  def linearly(self, step: _Step, new: dict[int, Any]) -> list[Any]:
    """What a choice gives if it is made as it was at x."""
    moved = [n for n in step.ins if n in new]
    old = [self.values[n] for n in moved]

    def function(*values):
      given = dict(zip(moved, values, strict=True))
      return step.function(*(given.get(n, self.values[n]) for n in step.ins))

    change = [new[n] - self.values[n] for n in moved]
    _, slope = jax.jvp(function, old, change)
    return [self.values[n] + d for n, d in zip(step.outs, slope, strict=True)]


def _bind(eqn: core.JaxprEqn, *values: Any) -> Sequence[Any]:
  """The results of one operation."""
  options = eqn.primitive.get_bind_params(eqn.params)
  outs = eqn.primitive.bind(*values, **options)
  return outs if eqn.primitive.multiple_results else [outs]


def _chooses(eqn: core.JaxprEqn) -> bool:
  """Whether an operation is linear by pieces, and not linear."""
  if eqn.primitive.name != 'custom_jvp_call':
    return eqn.primitive.name in _CHOICES
  names = set(_names_in(next(_inner(eqn))[0]))
  known = names <= {*_CHOICES, *_COMPARISONS, *_SCALINGS}
  return known and not names.isdisjoint((*_CHOICES, 'select_n'))


def _names_in(jaxpr: core.Jaxpr) -> Iterator[str]:
  for eqn in jaxpr.eqns:
    yield eqn.primitive.name
    for inner, _ in _inner(eqn):
      yield from _names_in(inner)


def _is_float(aval: Any) -> bool:
  return jnp.issubdtype(aval.dtype, jnp.inexact)


def _literal(atom: Any) -> np.ndarray:
  """A number in the program; halves are lost where it is bound as it is."""
  return np.asarray(atom.val, atom.aval.dtype)


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
