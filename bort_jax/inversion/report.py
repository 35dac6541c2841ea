"""What became of each segment of an inversion."""

import dataclasses
import math
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from bort_jax.inversion.linear_map import (
  AffineMap,
  singular_value_range,
  slope_range,
  tangent_map,
)
from bort_jax.inversion.segments import Kind, Piece
from bort_jax.inversion.undo import Setting, Undone

Exactness: TypeAlias = Literal[
  'exact', 'projection', 'least squares', 'lossy', 'not solved'
]

LANCZOS_STEPS = 12
_static = {'static': True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Segment:
  """One segment between two bottlenecks, and how well it was undone."""

  index: int = dataclasses.field(metadata=_static)
  kind: Kind = dataclasses.field(metadata=_static)
  operations: tuple[str, ...] = dataclasses.field(metadata=_static)
  one_to_one: bool = dataclasses.field(metadata=_static)
  """Whether no two inputs give one output, as far as its kind tells."""
  source: str = dataclasses.field(metadata=_static)  # FILE:LINE of its end
  in_shape: tuple[int, ...] = dataclasses.field(metadata=_static)
  out_shape: tuple[int, ...] = dataclasses.field(metadata=_static)
  rounding: float = dataclasses.field(metadata=_static)
  """Relative rounding of the coarsest floats that it computes with."""
  residual: jax.Array
  """(N,) ‖s(x) − y‖ / ‖y‖ over the numbers of y that are known."""
  steps: jax.Array
  """() iterations."""
  newton_steps: jax.Array
  """() of these, steps of Gauss–Newton; the residual tells how far they led."""
  singular_values: jax.Array
  """(2,) least and greatest of the tangent at x, as far as twelve Lanczos steps
  find them; those below 1e-4 of the greatest count as zero and are left out."""
  null_space_share: jax.Array
  """() share of the input's dimensions that the output does not determine, by
  the shapes of its layers and the numbers that are known: at least."""
  amplitude_factor: jax.Array
  """(N,) norm of what comes back over that of what went in; NaN without x."""
  contraction: jax.Array
  """() of a residual segment, the greatest ratio of two steps that followed: a
  lower bound of its branch's Lipschitz constant, which must be below 1 for the
  fixed point. NaN for others."""

  @property
  def condition_number(self) -> jax.Array:
    """() greatest over least singular value, those that are zero left out."""
    return self.singular_values[1] / self.singular_values[0]

  @property
  def exactness(self) -> Exactness:
    """What the recovered input is, as measured; not under jit.

    ``'exact'``: the only preimage, unless the segment has singular values that
    are zero or too small to be found beside others. ``'projection'``: of all
    preimages the smallest. ``'least squares'``: no input gives this output,
    and this one comes closest. ``'lossy'``: a preimage, chosen by rule.
    ``'not solved'``: the method does not invert this segment, or did not
    converge.
    """
    solved = bool(jnp.all(self.residual <= _solved_to(self.rounding)))
    whole = self.one_to_one and float(self.null_space_share) == 0
    whole = whole and float(self.singular_values[1]) > 0
    match self.kind:
      case 'elementwise':
        return 'exact' if whole and solved else 'lossy'
      case 'pooling':
        return 'lossy'
      case 'affine' if solved:
        return 'exact' if whole else 'projection'
      case 'affine' | 'nonlinear' if int(self.steps) > 0 and not solved:
        return 'least squares'
      case 'residual' if solved:
        contracts = float(self.contraction) < 1
        return 'exact' if whole and contracts else 'lossy'
      case 'nonlinear' if solved:
        return 'exact' if whole else 'lossy'
    return 'not solved'


def _solved_to(rounding: float) -> float:
  return rounding**0.5 * 0.1


def segment_of(
  index: int,
  piece: Piece,
  setting: Setting,
  undone: Undone,
  y: jax.Array,
  known: jax.Array | None,
) -> Segment:
  """The account of a segment.

  Args:
    index: its place in the forward pass.
    piece: the segment.
    setting: what held for all.
    undone: what it was undone to.
    y: what it was undone from.
    known: which numbers of y are known; None for all.

  Returns:
    The account.
  """
  affine = tangent_map(setting.function(piece), undone.x)
  out = affine.offset
  miss = out - y if known is None else jnp.where(known, out - y, 0)
  factor = jnp.full(y.shape[:1], jnp.nan, y.dtype)
  if setting.recorded is not None:
    factor = relative_norms(undone.x, setting.recorded[piece.invar])
  return Segment(
    index,
    piece.kind,
    piece.operations,
    undone.one_to_one,
    piece.source,
    piece.like.shape,
    piece.out_like.shape,
    piece.rounding,
    relative_norms(miss, y),
    jnp.asarray(undone.steps, jnp.int32),
    jnp.asarray(undone.newton_steps, jnp.int32),
    stretches(piece, affine),
    null_space_share(piece, undone, known),
    factor,
    jnp.asarray(undone.contraction, out.dtype),
  )


def stretches(piece: Piece, tangent: AffineMap) -> jax.Array:
  """(2,) least and greatest singular value of a segment's tangent.

  Args:
    piece: the segment.
    tangent: its tangent.

  Returns:
    Exact for elementwise segments, else as far as Lanczos steps find them.
  """
  if piece.kind == 'elementwise':
    return slope_range(tangent)
  return singular_value_range(tangent, LANCZOS_STEPS)


def relative_norms(difference: jax.Array, reference: jax.Array) -> jax.Array:
  """(N,) ‖difference‖ / ‖reference‖ of each of a batch; 0 / 0 is 0."""
  rows = lambda a: a.reshape(*a.shape[:1], -1)
  norm = lambda a: jnp.sqrt(jnp.sum(jnp.square(rows(a)), axis=-1))
  scale = norm(reference)
  return norm(difference) / jnp.where(scale > 0, scale, 1)


def null_space_share(
  piece: Piece, undone: Undone, known: jax.Array | None
) -> jax.Array:
  """() share of the input's dimensions that the output does not determine.

  Args:
    piece: the segment.
    undone: what it was undone to.
    known: which numbers of its output are known; None for all.

  Returns:
    The share, by shapes: what is missing where a layer has fewer outputs than
    inputs. A layer whose rank is smaller still loses more.
  """
  if undone.known is not None:
    return jnp.mean(~undone.known, dtype=jnp.float32)
  if piece.kind == 'elementwise':
    return jnp.float32(0)
  layers = piece.parts or (piece,)
  rank = min(math.prod(layer.out_like.shape) for layer in layers)
  if known is not None:
    rank = jnp.minimum(rank, jnp.sum(known))
  return jnp.maximum(0.0, 1 - jnp.float32(rank / math.prod(piece.like.shape)))
