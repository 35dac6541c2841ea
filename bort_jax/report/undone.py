"""Where Gauss–Newton ended too far from what it was to bring back."""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from bort_jax.inversion import Segment, SegmentCertificate

_FAR = 0.05  # of the length of what came out
_Undone = TypeVar('_Undone', Segment, SegmentCertificate)


def not_undone(segments: Iterable[_Undone]) -> list[_Undone]:
  """The segments that Gauss–Newton did not undo, of some picture or other.

  Judged by what is left, not by the steps: it may arrive with the last that it
  has, and it may end before in a local minimum.
  """
  return [s for s in segments if int(s.newton_steps) and np.any(is_far(s))]


def is_far(segment: Segment | SegmentCertificate) -> np.ndarray:
  """(N,) whether what came back brings about something else, or nothing."""
  return ~(np.asarray(segment.residual, np.float64) <= _FAR)


def residual_left(segment: Segment | SegmentCertificate) -> str:
  """What Gauss–Newton left of a segment, of the worst picture."""
  return (
    f'a relative residual of {np.max(segment.residual):.2g} is left after'
    f' {int(segment.newton_steps)} steps'
  )
