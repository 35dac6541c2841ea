"""How each operation hands on relevance.

Relevance R of a value v is kept as S = R / v. Linear operations then hand S on
as they do derivatives: aᵢ Σⱼ wᵢⱼ Sⱼ is the relevance of aᵢ. So all is done by
derivatives, of which rules replace those of other operations.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.typing import ArrayLike

from bort_jax.attribution.errors import AttributionError
from bort_jax.attribution.factors import Makers, common_source, is_factor
from bort_jax.attribution.rules import Rule, replaced, with_slope
from bort_jax.inversion.operations import (
  SWITCHES,
  is_affine,
  is_elementwise,
  is_float,
  source_of,
)
from bort_jax.inversion.program import Program, apply, read

_SUMS = frozenset(
  (
    'add',
    'add_any',
    'conv_general_dilated',
    'cumsum',
    'dot_general',
    'reduce_sum',
    'reduce_window_sum',
    'sub',
  )
)
_PRODUCTS = frozenset(('conv_general_dilated', 'dot_general', 'mul'))
# Their derivatives hand relevance on: to what was chosen, or to nothing.
_CHOICES = SWITCHES | {
  'dynamic_slice',
  'gather',
  'max',
  'min',
  'select_n',
  'stop_gradient',
  'top_k',
}


def relevance_rules(
  program: Program, *, positive: bool, epsilon: ArrayLike
) -> dict[core.Var, Rule]:
  """The rules of a program's operations, by what they return.

  Args:
    program: the program.
    positive: whether sums go by their positive parts: z⁺.
    epsilon: ε.

  Returns:
    Rules of the operations whose derivatives do not hand on relevance.

  Raises:
    AttributionError: for an operation that has no rule.
  """
  makers = Makers(program)
  rules = {}
  for eqn in program.eqns:
    rule = _rule(eqn, makers, positive, epsilon)
    if rule is not None:
      rules[eqn.outvars[0]] = rule
  return rules


def share(value: jax.Array, of: jax.Array, epsilon: ArrayLike) -> jax.Array:
  """Value / (of + ε sign of), with sign 0 = 1; 0 where that divides by 0."""
  below = of + jnp.where(of < 0, -1, 1) * jnp.asarray(epsilon, of.dtype)
  return jnp.where(below == 0, 0, value / jnp.where(below == 0, 1, below))


def _rule(
  eqn: core.JaxprEqn, makers: Makers, positive: bool, epsilon: ArrayLike
) -> Rule | None:
  name, operands = eqn.primitive.name, makers.floats(eqn)
  if not operands or not all(map(is_float, eqn.outvars)):
    return None
  if is_affine(eqn, makers.program.dependent):
    if not positive or name not in _SUMS:
      return None
    if name in ('add', 'sub') and len(operands) == 1:
      return functools.partial(_identity, operands[0], epsilon)
    return functools.partial(_positive, makers)
  source = operands[0] if len(set(operands)) == 1 else None
  if source is None or not is_elementwise(eqn):
    source = common_source(eqn, makers)
  if source is not None and name != 'stop_gradient':
    return functools.partial(_identity, source, epsilon)
  if name in _CHOICES:
    return None
  if name in _PRODUCTS and len(operands) == 2:
    return functools.partial(_product, makers)
  if name == 'div' and len(operands) == 2:
    return _quotient
  raise AttributionError(
    f'No rule hands relevance on through the operation {name!r}'
    f' ({source_of(eqn)}).'
  )


def _identity(source: core.Var, epsilon, eqn, env, out) -> jax.Array:
  """All relevance goes on to the one number that another is made of."""
  del eqn
  slope = jax.lax.stop_gradient(share(out, env[source], epsilon))
  return with_slope(out, env[source], slope)


def _positive(makers: Makers, eqn, env, out) -> jax.Array:
  """Relevance goes on by the shares of positive terms."""
  values = [read(env, atom) for atom in eqn.invars]
  places = [i for i, a in enumerate(eqn.invars) if makers.depends(a)]
  operands = tuple(values[i] for i in places)
  kept = jax.lax.stop_gradient((out, tuple(values)))
  pull = functools.partial(_pull_positive, eqn, tuple(places))
  return replaced(pull, jax.lax.stop_gradient(out), operands, kept)


def _pull_positive(eqn, places: tuple[int, ...], change, kept):
  out, values = kept
  relevance = out * change
  operands = tuple(values[i] for i in places)
  terms = functools.partial(_terms, eqn, places, values)
  up, back_up = jax.vjp(functools.partial(terms, 1), *operands)
  down, back_down = jax.vjp(functools.partial(terms, -1), *operands)
  # plain sums go by the terms of their sign: negative values are split too
  is_plain = len(places) == len(values)
  goes_up = out > 0 if is_plain else up > 0
  goes_down = ~goes_up & (down < 0)
  return tuple(
    map(
      jnp.add,
      back_up(_quotient_or_zero(relevance, up, goes_up)),
      back_down(_quotient_or_zero(relevance, down, goes_down)),
    )
  )


def _quotient_or_zero(
  a: jax.Array, b: jax.Array, where: jax.Array
) -> jax.Array:
  return jnp.where(where, a / jnp.where(where, b, 1), 0)


def _terms(
  eqn, places: tuple[int, ...], values: Sequence, sign: int, *operands
) -> jax.Array:
  """The sum of those terms of a result that have a sign."""
  given = list(values)
  for place, operand in zip(places, operands, strict=True):
    given[place] = operand
  up, down = (lambda a: jnp.maximum(a, 0)), (lambda a: jnp.minimum(a, 0))
  same, other = (up, down) if sign > 0 else (down, up)
  call = lambda *values: apply(eqn, values)[0]
  if eqn.primitive.name == 'sub':
    return call(same(given[0]), other(given[1]))
  if len(places) == len(given):
    return call(*map(same, given))
  weighed = lambda own, weight: call(
    *(own(a) if i in places else weight(a) for i, a in enumerate(given))
  )
  return weighed(up, same) + weighed(down, other)


def _product(makers: Makers, eqn, env, out) -> jax.Array:
  """A factor that is a weight hands all on to the other; else half to each."""
  del out
  left, right = (env[a] for a in eqn.invars)
  is_weight = [is_factor(a, makers) for a in eqn.invars]
  if is_weight[0] != is_weight[1]:
    cut = jax.lax.stop_gradient
    left, right = (cut(left), right) if is_weight[0] else (left, cut(right))
    return apply(eqn, [left, right])[0]
  product = apply(eqn, [left, right])[0]
  return jax.lax.stop_gradient(product / 2) + product / 2


def _quotient(eqn, env, out) -> jax.Array:
  """What is divided by is a constant."""
  del out
  left, right = (env[a] for a in eqn.invars)
  return apply(eqn, [left, jax.lax.stop_gradient(right)])[0]
