"""What is known of each operation: linear, elementwise, or neither."""

import pathlib
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

# Linear in the operands at these places, when the others are constants.
_LINEAR = {
  'add_any': (0, 1),
  'broadcast_in_dim': (0,),
  'concatenate': None,  # all
  'conv_general_dilated': (0, 1),
  'convert_element_type': (0,),
  'copy': (0,),
  'cumsum': (0,),
  'dot_general': (0, 1),
  'dynamic_slice': (0,),
  'dynamic_update_slice': (0, 1),
  'gather': (0,),
  'mul': (0, 1),
  'div': (0,),
  'neg': (0,),
  'optimization_barrier': None,
  'pad': (0, 1),
  'pvary': (0,),
  'reduce_precision': (0,),
  'reduce_sum': (0,),
  'reduce_window_sum': (0,),
  'reshape': (0,),
  'reshard': (0,),
  'rev': (0,),
  'scatter-add': (0, 2),
  'scatter-sub': (0, 2),
  'select_n': None,  # but for the choice, see below
  'sharding_constraint': (0,),
  'slice': (0,),
  'split': (0,),
  'squeeze': (0,),
  'stack': None,
  'tile': (0,),
  'transpose': (0,),
  'unstack': (0,),
}
_AFFINE = {'add': (0, 1), 'sub': (0, 1)}
_BILINEAR = ('conv_general_dilated', 'dot_general', 'mul')

ELEMENTWISE = frozenset(
  (
    'abs',
    'acos',
    'acosh',
    'add',
    'add_any',
    'and',
    'asin',
    'asinh',
    'atan',
    'atan2',
    'atanh',
    'cbrt',
    'ceil',
    'clamp',
    'convert_element_type',
    'copy',
    'cos',
    'cosh',
    'digamma',
    'div',
    'eq',
    'erf',
    'erf_inv',
    'erfc',
    'exp',
    'exp2',
    'expm1',
    'floor',
    'ge',
    'gt',
    'integer_pow',
    'is_finite',
    'le',
    'lgamma',
    'log',
    'log1p',
    'log2',  # from JAX 0.12 on
    'logistic',
    'lt',
    'max',
    'min',
    'mul',
    'ne',
    'neg',
    'nextafter',
    'not',
    'one_minus_square',  # from JAX 0.12 on
    'optimization_barrier',
    'or',
    'pow',
    'reduce_precision',
    'rem',
    'round',
    'rsqrt',
    'select_n',
    'sign',
    'sin',
    'sinh',
    'sqrt',
    'square',
    'stop_gradient',
    'sub',
    'tan',
    'tanh',
    'xor',
  )
)

# Which of several numbers a result is, depends on x.
SWITCHES = frozenset(
  (
    'cummax',
    'cummin',
    'reduce_max',
    'reduce_min',
    'reduce_window_max',
    'reduce_window_min',
    'sort',
  )
)

# They return what they are given, and only tell JAX how to keep it.
IDENTITIES = frozenset(('layout_constraint', 'name'))

# Differentiable, and so run backwards by iteration.
_SMOOTH = frozenset(
  (
    'cholesky',
    'cond',
    'cumlogsumexp',
    'cumprod',
    'reduce_prod',
    'scatter',
    'scatter-mul',
    'top_k',
    'triangular_solve',
  )
)


def aval_of(atom) -> Any:
  """Shape and dtype of an operand; a name for what JAX types as abstract."""
  return atom.aval


def is_affine(eqn: core.JaxprEqn, dependent: Collection[core.Var]) -> bool:
  """Whether a result is affine in the operands that depend on x."""
  places = [
    i
    for i, atom in enumerate(eqn.invars)
    if not isinstance(atom, core.Literal) and atom in dependent
  ]
  name = eqn.primitive.name
  if not all(is_float(v) for v in eqn.outvars):
    return False
  if name in _AFFINE:
    return True
  if name not in _LINEAR:
    return False
  if name == 'select_n' and 0 in places:
    return False
  if name in _BILINEAR and len(places) > 1:
    return False
  allowed = _LINEAR[name]
  return allowed is None or set(places) <= set(allowed)


def is_elementwise(eqn: core.JaxprEqn) -> bool:
  """Whether each number of a result depends on the one at its place alone."""
  shapes = {aval_of(a).shape for a in (*eqn.invars, *eqn.outvars)} - {()}
  return eqn.primitive.name in ELEMENTWISE and len(shapes) <= 1


def is_known(eqn: core.JaxprEqn) -> bool:
  """Whether an operation can be run backwards by some means."""
  name = eqn.primitive.name
  if name in SWITCHES:
    return is_choice(eqn)
  tables = (_LINEAR, _AFFINE, ELEMENTWISE, _SMOOTH)
  return any(name in table for table in tables)


def is_choice(eqn: core.JaxprEqn) -> bool:
  """Whether it picks numbers of one array, not of several sorted together."""
  return eqn.primitive.name in SWITCHES and len(eqn.invars) == 1


def is_float(atom: core.Var | core.Literal) -> bool:
  """Whether an operand holds floating-point numbers."""
  return jnp.issubdtype(aval_of(atom).dtype, jnp.floating)


def is_of_jax(jaxpr) -> bool:
  """Whether JAX defines it, as ReLU, whose derivative is its own."""
  source = jaxpr.debug_info.func_filename
  package = pathlib.Path(jax.__file__).parent
  return source is not None and pathlib.Path(source).is_relative_to(package)


UNKNOWN = 'unknown'


def source_of(eqn: core.JaxprEqn) -> str:
  """Where in the user's source an operation comes from, ``FILE:LINE``."""
  traceback = getattr(eqn.source_info, 'traceback', None)
  frames = [] if traceback is None else traceback.frames
  for frame in frames:
    if not _is_framework(frame.file_name):
      return f'{pathlib.Path(frame.file_name).name}:{frame.line_num}'
  return UNKNOWN


_FRAMEWORKS = tuple(
  f'/{name}/' for name in ('jax', 'flax', 'haiku', 'equinox', 'jaxlib')
)


def _is_framework(file_name: str) -> bool:
  inside = file_name.split('site-packages')[-1]
  return inside != file_name and inside.startswith(_FRAMEWORKS)
