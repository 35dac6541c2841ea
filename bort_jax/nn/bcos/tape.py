"""The operations of a network, run once and again on another input."""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from bort_jax.nn.bcos.names import ENCODED, LOGIT_BIAS, NAMES
from bort_jax.nn.bcos.operations import (
  bind,
  chooses,
  is_float,
  literal,
  names_something,
  programs_in,
)

# Calls that only wrap other operations.
_CALLS = ('jit', 'closed_call', 'remat2')
# Calls with a derivative of their own.
_CUSTOM = ('custom_jvp_call', 'custom_vjp_call')


class Step(NamedTuple):
  """One operation, on nodes of a tape."""

  function: Callable[..., Sequence[Any]]
  chooses: bool  # whether it is replaced by its linear form
  ins: list[int]
  outs: list[int]


class Tape:
  """All operations of a function in order, and what they gave at x.

  A node is the place of a value. What is held has a node, but no step.
  """

  def __init__(self):
    self.values: list[Any] = []
    self.steps: list[Step] = []
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
    self.steps.append(Step(function, chooses, ins, outs))
    return outs

  def run(
    self, jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[int]
  ) -> list[int]:
    """The places of a program's results, of those of its arguments."""
    names = [*jaxpr.constvars, *jaxpr.invars]
    env = dict(zip(names, [*map(self.node, consts), *args], strict=True))
    read = lambda atom: (
      self.node(literal(atom)) if isinstance(atom, core.Literal) else env[atom]
    )
    for eqn in jaxpr.eqns:
      outs = self.step(eqn, [read(atom) for atom in eqn.invars])
      env.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]

  def step(self, eqn: core.JaxprEqn, ins: list[int]) -> list[int]:
    """Runs one operation of a program."""
    name = eqn.primitive.name
    if name == 'name' and eqn.params['name'] in NAMES:
      return [self.named(eqn.params['name'], self.values[ins[0]])]
    inner = list(programs_in(eqn))
    named = any(names_something(jaxpr) for jaxpr, _ in inner)
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
    outs = self.do(functools.partial(bind, eqn), ins, chooses=chooses(eqn))
    if not any(is_float(v.aval) for v in eqn.outvars):
      self.steps.pop()  # held
    return outs

  def named(self, name: str, value: jax.Array) -> int:
    """The place of a named value."""
    node = self.node(value)
    if name == ENCODED:
      self.encoded.append(node)
    if name == LOGIT_BIAS:
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

  def needed(self, outs: Collection[int]) -> list[Step]:
    """The steps that the results need."""
    wanted, steps = set(outs), []
    for step in reversed(self.steps):
      if not wanted.isdisjoint(step.outs):
        wanted.update(step.ins)
        steps.append(step)
    return steps[::-1]

  def replay(
    self, steps: Sequence[Step], start: int, v: Any, outs: Sequence[int]
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

  def linearly(self, step: Step, new: dict[int, Any]) -> list[Any]:
    """What a choice gives if it is made as it was at x."""
    moved = [n for n in step.ins if n in new]
    old = [self.values[n] for n in moved]

    def function(*values):
      given = dict(zip(moved, values, strict=True))
      return step.function(*(given.get(n, self.values[n]) for n in step.ins))

    change = [new[n] - self.values[n] for n in moved]
    _, slope = jax.jvp(function, old, change)
    return [self.values[n] + d for n, d in zip(step.outs, slope, strict=True)]
