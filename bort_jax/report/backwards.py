"""What comes back when networks are run backwards."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bort_jax.inversion import Method, Segment, reconstruct, until
from bort_jax.metrics import reconstruction_error
from bort_jax.plots import best_scale
from bort_jax.report.png import encode
from bort_jax.report.shown import Shown, attempt
from bort_jax.report.subject import Subject
from bort_jax.report.undone import is_far, not_undone


class Way(NamedTuple):
  """One way back."""

  name: str
  label: str
  method: Method


WAYS = (
  Way('published', 'Reconstruction, by transposes', 'published'),
  Way('least_squares', 'Reconstruction, by least squares', 'auto'),
)


def reconstructions(
  way: Way, subject: Subject, weights: Any, x: jax.Array
) -> list[Shown]:
  """Pictures that come back from the last features.

  Args:
    way: how.
    subject: the networks.
    weights: those of one.
    x: (N, H, W, C) in 0 … 1.

  Returns:
    One for each picture, drawn at its best scale, or one reason for all. The
    caption tells where Gauss–Newton did not bring back what was there.
  """
  if subject.features is None:
    return [Shown(why='This network names no features to come back from.')]
  features = until(subject.outputs, subject.features)
  found = attempt(
    lambda: reconstruct(
      features, weights, x, method=way.method, **subject.effort
    )
  )
  if isinstance(found, str):
    return [Shown(why=found)]
  results = np.asarray(found.x, np.float32)
  if not np.all(np.isfinite(results)):
    return [Shown(why='What comes back is not finite.')]
  pictures = np.asarray(x)
  scaled = best_scale(pictures, results) * results
  errors = reconstruction_error(x, found.x)
  shown = np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
  stuck = not_undone(found.segments)
  return [
    Shown(
      encode(one),
      caption=f'From {subject.features}: relative error {raw:.2f}, at its best'
      f' scale, as drawn, {fitted:.2f}.{_left(stuck, i)}',
    )
    for i, (one, raw, fitted) in enumerate(
      zip(shown, errors.raw, errors.scale_fitted, strict=True)
    )
  ]


def _left(stuck: Sequence[Segment], i: int) -> str:
  """What a reader must know of a picture that was not run back to the end."""
  return ''.join(
    f' Gauss–Newton did not undo segment {segment.index}: a relative residual'
    f' of {float(segment.residual[i]):.2g} is left after'
    f' {int(segment.newton_steps)} steps.'
    for segment in stuck
    if is_far(segment)[i]
  )
