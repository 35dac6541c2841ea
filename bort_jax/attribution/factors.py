"""Of what a value is made: one other, or what is taken as a constant."""

from jax.extend import core

from bort_jax.inversion.operations import aval_of, is_elementwise, is_float
from bort_jax.inversion.program import Program, variables

_PASSING = frozenset(
  (
    'add',  # of a constant, like sub: 1 − σ(v)
    'broadcast_in_dim',
    'convert_element_type',
    'copy',
    'div',
    'mul',
    'neg',
    'optimization_barrier',
    'reshape',
    'select_n',
    'slice',
    'squeeze',
    'sub',
    'transpose',
  )
)
_FACTORS = frozenset(('exp', 'logistic', 'rsqrt'))


class Makers:
  """Which operation makes each value of a program, and in which order."""

  def __init__(self, program: Program):
    self.program = program
    self._order = {
      var: i for i, eqn in enumerate(program.eqns) for var in eqn.outvars
    }

  def depends(self, atom) -> bool:
    """Whether an operand depends on x."""
    is_number = isinstance(atom, core.Literal)
    return not is_number and atom in self.program.dependent

  def floats(self, eqn: core.JaxprEqn) -> list[core.Var]:
    """The operands that depend on x and hold floats."""
    return [v for v in variables(eqn) if self.depends(v) and is_float(v)]

  def order(self, var: core.Var) -> int:
    """The place in the program of the operation that makes a value."""
    return self._order.get(var, -1)

  def maker(self, var: core.Var) -> core.JaxprEqn | None:
    """The operation that makes a value; None for x."""
    place = self.order(var)
    return None if place < 0 else self.program.eqns[place]


def common_source(eqn: core.JaxprEqn, makers: Makers) -> core.Var | None:
  """The nearest value of which another is a function, number by number.

  Of GELU, v · Φ(v), it is v.

  Args:
    eqn: the operation that makes the other.
    makers: of its program.

  Returns:
    The value; None if there is none, as for products across places.
  """
  if not is_elementwise(eqn):
    return None
  open_ends = {v for v in variables(eqn) if makers.depends(v)}
  while len(open_ends) > 1 or not all(map(is_float, open_ends)):
    last = max(open_ends, key=makers.order)
    made_by = makers.maker(last)
    if made_by is None or not is_elementwise(made_by):
      return None
    open_ends.remove(last)
    open_ends.update(v for v in variables(made_by) if makers.depends(v))
  (source,) = open_ends
  same_shape = aval_of(source).shape == aval_of(eqn.outvars[0]).shape
  return source if same_shape else None


def is_factor(var: core.Var, makers: Makers) -> bool:
  """Whether a value weighs others: of softmax, sigmoid or one over a root."""
  made_by = makers.maker(var)
  if made_by is None:
    return False
  name, operands = made_by.primitive.name, makers.floats(made_by)
  if name in _FACTORS:
    return True
  if name == 'integer_pow':
    return made_by.params['y'] < 0
  if name == 'div' and operands and operands[0] is not made_by.invars[0]:
    return True  # a constant over a value
  return (
    name in _PASSING
    and bool(operands)
    and is_factor(operands[0], makers)
    and (len(operands) == 1 or name == 'div')
  )
