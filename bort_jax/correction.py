r"""The correction C(W) that Bort adds to the gradient of one parameter.

For the full constraint, W Wᴴ = aI, it is the gradient of
(1/4)·‖W Wᴴ − aI‖²: C(W) = W Wᴴ W − aW. Each singular value σ of W moves by
σ(σ² − a) and no singular vector moves. The same step is known as the Parseval
retraction and, at step size 1/(2a), as Newton–Schulz.
"""

from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from bort_jax.matrices import MatrixAxes, MatrixView
from bort_jax.placement import on_matrices
from bort_jax.validation import check_number

Mode: TypeAlias = Literal[
  'l2-full',
  'l2-row',
  'l2-col',
  'l1-fullrow',
  'l1-fullcol',
  'l1-row',
  'l1-col',
]
Amplitude: TypeAlias = jax.typing.ArrayLike | Literal['ada']


def bort_correction(
  w: jax.Array,
  axes: MatrixAxes,
  *,
  amplitude: Amplitude = 1.0,
  mode: Mode = 'l2-full',
) -> jax.Array:
  r"""C(W) of one parameter.

  ============ ======================================= =====================
  mode         C(W)                                    holds rows/columns at
  ============ ======================================= =====================
  l2-full      W Wᴴ W − aW                             orthogonal, norm √a
  l2-row       (‖row‖² − a)·row                        rows: norm √a
  l2-col       (‖column‖² − a)·column                  columns: norm √a
  l1-fullrow   sign(W Wᴴ − aI) W                       rows: orthogonal
  l1-fullcol   W sign(Wᴴ W − aI)                       columns: orthogonal
  l1-row       sign(‖row‖² − a)·row                    rows: norm √a
  l1-col       sign(‖column‖² − a)·column              columns: norm √a
  ============ ======================================= =====================

  The l1 modes do not converge: they chatter around the constraint with an
  amplitude proportional to the step size. ``'ada'`` takes a = (mean row norm)²
  at every step; on a tall matrix, l2-full with ``'ada'`` decays to zero.

  Args:
    w: the parameter, of any float or complex dtype.
    axes: its matrix axes; rows are outputs, columns are inputs.
    amplitude: a, a number > 0 or ``'ada'``.
    mode: one of the seven published modes.

  Returns:
    An array of ``w``'s shape and dtype, computed in float32 or wider.

  Raises:
    ValueError: if the mode is unknown, the amplitude is not > 0, or the axes do
      not fit.

  Examples:
    >>> import jax.numpy as jnp
    >>> import bort_jax
    >>> from bort_jax.correction import bort_correction
    >>> w = 2.0 * jnp.eye(2)
    >>> bort_correction(w, bort_jax.MatrixAxes(0, 1)).tolist()
    [[6.0, 0.0], [0.0, 6.0]]

  References:
    Zhang et al., `Bort: Towards Explainable Neural Networks with Bounded
    Orthogonal Constraint <https://arxiv.org/abs/2212.09062>`_, 2023
  """
  check_mode(mode)
  check_amplitude(amplitude)
  return on_matrices(
    lambda view, w, a: matrix_correction(view, w, a, mode),
    MatrixView(jnp.shape(w), axes),
    w,
    amplitude_argument(amplitude),
  )


def matrix_correction(
  view: MatrixView,
  w: jax.Array,
  amplitude: jax.Array | None,
  mode: Mode,
  scale: jax.Array | float = 1.0,
) -> jax.Array:
  """:func:`bort_correction` of a split parameter, inside ``on_matrices``.

  Args:
    view: how ``w`` is a stack of matrices.
    w: split parameter in working precision.
    amplitude: as :func:`amplitude_argument` gives it.
    mode: one of the seven modes.
    scale: what ``w`` is to be multiplied with first.

  Returns:
    A split array of ``w``'s shape.
  """
  a = amplitude_per_matrix(view, scale * w, amplitude)
  if mode == 'l2-full':  # the products take w itself: no copy of it is made
    gram = scale**2 * view.gram(w, w)
    return scale * (view.multiply(gram, w) - view.per_matrix(a) * w)
  w = scale * w
  # The other names say which side is constrained: rows are outputs.
  norm, kind = mode.split('-')
  side = 'out' if kind.endswith('row') else 'in'
  if kind.startswith('full'):
    excess = view.gram(w, w, side) - view.per_gram(a, side) * view.identity(
      a.dtype, side
    )
    return view.multiply(jnp.sign(excess), w, side)
  excess = view.squared_norms(w, side) - view.per_matrix(a)
  return (excess if norm == 'l2' else jnp.sign(excess)) * w


def amplitude_argument(amplitude: Amplitude) -> jax.typing.ArrayLike | None:
  """The amplitude as ``on_matrices`` takes it: a number, or None for 'ada'."""
  return None if isinstance(amplitude, str) else amplitude


def amplitude_per_matrix(
  view: MatrixView, w: jax.Array, amplitude: jax.Array | None
) -> jax.Array:
  """The amplitude of each matrix of the stack; (mean row norm)² for None."""
  if amplitude is not None:
    return jnp.broadcast_to(amplitude, view.stack)
  row_norms = jnp.sqrt(view.squared_norms(w, 'out'))
  return jnp.square(view.mean_over_rows(row_norms))


def check_mode(mode: str) -> None:
  """Refuses a mode that is not one of the seven published ones."""
  if mode not in get_args(Mode):
    raise ValueError(
      f'Unknown mode {mode!r}; the modes are {", ".join(get_args(Mode))}.'
    )


def check_amplitude(amplitude: Amplitude) -> None:
  """Refuses an amplitude that is neither a number > 0 nor ``'ada'``."""
  if isinstance(amplitude, str) and amplitude != 'ada':
    raise ValueError(
      f"amplitude must be a number > 0 or 'ada', got {amplitude!r}."
    )
  if not isinstance(amplitude, str):
    check_number('amplitude', amplitude, positive=True)
