"""How far a network can be trusted: its stretch, its losses, its margins."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bort_jax.inversion.errors import InversionError
from bort_jax.inversion.invert import (
  check_hashable,
  newton_of,
  refuse_nonfinite,
)
from bort_jax.inversion.linear_map import singular_value_range, tangent_map
from bort_jax.inversion.lipschitz import upper_bound
from bort_jax.inversion.program import evaluate, trace
from bort_jax.inversion.report import (
  LANCZOS_STEPS,
  null_space_share,
  relative_norms,
  stretches,
)
from bort_jax.inversion.segments import Kind, Piece, cut
from bort_jax.inversion.undo import Setting, default_tolerance, run_back, undo

_static = {'static': True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SegmentCertificate:
  """What is certain of one segment."""

  index: int = dataclasses.field(metadata=_static)
  kind: Kind = dataclasses.field(metadata=_static)
  operations: tuple[str, ...] = dataclasses.field(metadata=_static)
  source: str = dataclasses.field(metadata=_static)  # FILE:LINE of its end
  in_shape: tuple[int, ...] = dataclasses.field(metadata=_static)
  out_shape: tuple[int, ...] = dataclasses.field(metadata=_static)
  unbounded_by: str | None = dataclasses.field(metadata=_static)
  """The operation of which no Lipschitz constant is known, and its place."""
  upper: jax.Array
  """() no two inputs are stretched by more."""
  lower: jax.Array
  """() some two inputs near x are stretched by this much."""
  least: jax.Array
  """() some two inputs near x are stretched by this little, of those that are
  not collapsed into one."""
  null_space_share: jax.Array
  """() share of the energy of white noise that does not come back, at least:
  by shapes alone."""
  lost_energy: jax.Array
  """(N,) of what x brings about here, the squared error of what comes back over
  its energy: the share that is lost where undoing is a projection, and more
  than 1 where it adds something else."""
  newton_steps: jax.Array
  """() steps of Gauss–Newton in undoing what x brings about here."""
  residual: jax.Array
  """(N,) ‖s(x̂) − y‖ / ‖y‖ of what x brings about here, y, and of what that is
  undone to, x̂: large where steps did not suffice, or led to a local minimum."""


class Certificate(NamedTuple):
  """What is certain of a network at some inputs."""

  segments: tuple[SegmentCertificate, ...]
  upper: jax.Array  # () Lipschitz constant of the whole network
  lower: jax.Array  # () of which this much is reached near x
  lost_energy: jax.Array  # (N,) of x, through all segments, may exceed 1
  prediction: jax.Array  # (N,) int, the largest output; −1 if not (N, K)
  margin: jax.Array  # (N,) largest output less the second; NaN if not (N, K)
  radius: jax.Array  # (N,) no change of x of a smaller 2-norm alters it

  def rows(self) -> list[tuple[str, ...]]:
    """The headings, and what each segment has to say under them."""
    return [_HEADINGS, *(_row(segment) for segment in self.segments)]

  def table(self) -> str:
    """One line for each segment, as text."""
    rows = self.rows()
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
      '  '.join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
      for row in rows
    )


def certificate(
  apply_fn: Callable[[Any, jax.Array], jax.Array],
  params: Any,
  x: jax.Array,
  *,
  frequencies: int = 32,
  max_steps: int = 100,
  newton_steps: int | None = None,
  linear_steps: int = 500,
) -> Certificate:
  """Bounds of a network's stretch, what it loses of x, and certified radii.

  A bound of the whole is the product of those of the segments: it holds for all
  inputs, and is far from tight for deep networks. Convolutions count by their
  norm as operators on pictures (see
  :func:`bort_jax.inversion.operator_norm.convolution_norm`), not by that of
  their reshaped kernel; sums of branches by the sum; B-cos layers, which say
  what they are (:func:`bort_jax.claims.aligned`), by
  :func:`bort_jax.inversion.alignment.aligned_bound`. Floating-point rounding
  of the forward pass is not counted.

  Args:
    apply_fn: the function.
    params: its parameters.
    x: (N, ...) inputs, in evaluation mode: one must not affect another.
    frequencies: per dimension, at which large convolutions are measured; more
      are tighter and slower.
    max_steps: most iterations to find out what is lost.
    newton_steps: see :func:`bort_jax.inversion.invert`, as of
      ``linear_steps``: fewer make what is lost a rougher figure, and change no
      bound.
    linear_steps: see there.

  Returns:
    The certificate. A radius is margin / (√2 L): the logits of two classes,
    taken as (z_a − z_b)/√2, cannot change by more than L times the change of x.

  Raises:
    InversionError: for a function that cannot be read.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import inversion
    >>> apply_fn = lambda params, x: jnp.maximum(x @ params, 0)
    >>> found = inversion.certificate(apply_fn, 2 * jnp.eye(2), jnp.eye(2))
    >>> round(float(found.upper), 2), found.margin.tolist()
    (2.0, [2.0, 2.0])
    >>> [round(float(radius), 3) for radius in found.radius]
    [0.707, 0.707]

  References:
    Tsuzuku et al., `Lipschitz-Margin Training
    <https://arxiv.org/abs/1802.04034>`_, 2018
  """
  check_hashable(apply_fn)
  x = jnp.asarray(x)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise InversionError(
      f'x must be floats, got {x.dtype}: convert pictures to 0 … 1 first.'
    )
  refuse_nonfinite({'params': params, 'x': x})
  newton = newton_of(max_steps, newton_steps, linear_steps)
  return _certificate(apply_fn, frequencies, max_steps, newton, params, x)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _certificate(
  apply_fn, frequencies, max_steps, newton, params, x
) -> Certificate:
  with jax.default_matmul_precision('highest'):
    like = jax.ShapeDtypeStruct(x.shape, x.dtype)
    program = trace(apply_fn, params, like)
    constants = program.constants(params)
    recorded = evaluate(program.eqns, {**constants, program.invar: x})
    tolerance = default_tolerance(x.dtype)
    setting = Setting(
      program, 'auto', constants, recorded, tolerance, max_steps, newton, {}
    )
    pieces = cut(program)
    segments = tuple(
      _of_segment(i, piece, setting, frequencies)
      for i, piece in enumerate(pieces)
    )
    out = recorded[program.outvar]
    prediction, margin = _decided(out)
    upper = _product([s.upper for s in segments])
    back = [*(u.x for u in run_back(pieces, setting, out)), out][0]
    whole = lambda v: program(constants, v)
    return Certificate(
      segments,
      upper,
      singular_value_range(tangent_map(whole, x), LANCZOS_STEPS)[1],
      relative_norms(back - x, x) ** 2,
      prediction,
      margin,
      margin / (2**0.5 * upper),
    )


def _product(bounds: list[jax.Array]) -> jax.Array:
  """Of the segments; without limit where one is, whatever the others are."""
  bounds = [jnp.float32(1), *bounds]
  unlimited = jnp.any(jnp.isinf(jnp.stack(bounds)))
  return jnp.where(unlimited, jnp.inf, jnp.prod(jnp.stack(bounds)))


def _of_segment(
  index: int, piece: Piece, setting: Setting, frequencies: int
) -> SegmentCertificate:
  assert setting.recorded is not None
  entered, left = setting.recorded[piece.invar], setting.recorded[piece.outvar]
  bound = upper_bound(piece, setting.program, setting.constants, frequencies)
  tangent = tangent_map(setting.function(piece), entered)
  least, greatest = stretches(piece, tangent)
  undone = undo(piece, setting, left, None)
  miss = setting.function(piece)(undone.x) - left
  return SegmentCertificate(
    index,
    piece.kind,
    piece.operations,
    piece.source,
    piece.like.shape,
    piece.out_like.shape,
    bound.unbounded_by,
    _rounded_up(bound.value, entered.dtype),
    greatest,
    least,
    null_space_share(piece, undone, None),
    relative_norms(undone.x - entered, entered) ** 2,
    jnp.asarray(undone.newton_steps, jnp.int32),
    relative_norms(miss, left),
  )


def _rounded_up(bound: jax.Array, dtype) -> jax.Array:
  """The bound and what rounding can have taken from it."""
  return bound * (1 + _ROUNDINGS * float(jnp.finfo(dtype).eps))


_ROUNDINGS = 100


def _decided(out: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The prediction and its margin, if the outputs are logits."""
  if out.ndim != 2 or out.shape[1] < 2:
    unknown = jnp.full(out.shape[:1], jnp.nan, out.dtype)
    return jnp.full(out.shape[:1], -1), unknown
  largest, _ = jax.lax.top_k(out, 2)
  return jnp.argmax(out, axis=1), largest[:, 0] - largest[:, 1]


_HEADINGS = (
  'segment',
  'kind',
  'in',
  'out',
  'L ≤',
  'L ≥',
  'σ min',
  'null space',
  'lost energy',
  'source',
)


def _row(segment: SegmentCertificate) -> tuple[str, ...]:
  size = lambda shape: '×'.join(map(str, shape[1:]))
  upper = f'{float(segment.upper):.3g}'
  if segment.unbounded_by:
    upper = f'∞ by {segment.unbounded_by}'
  return (
    str(segment.index),
    segment.kind,
    size(segment.in_shape),
    size(segment.out_shape),
    upper,
    f'{float(segment.lower):.3g}',
    f'{float(segment.least):.3g}',
    f'{float(segment.null_space_share):.3f}',
    f'{float(jnp.mean(segment.lost_energy)):.3g}',
    segment.source,
  )
