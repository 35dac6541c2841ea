"""What is certain of a network, layer by layer, in words and a table."""

import decimal
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from bort_jax.inversion import Certificate, SegmentCertificate
from bort_jax.report.html import Table
from bort_jax.report.method import Method
from bort_jax.report.undone import not_undone, residual_left


class Statement(NamedTuple):
  """A certificate as a page says it."""

  text: str
  table: Table | None


def statement(
  label: str, found: Certificate | str, newton_steps: int
) -> Statement:
  """What a certificate says of a network.

  Args:
    label: what the network is called.
    found: the certificate, or why there is none.
    newton_steps: how many it had.

  Returns:
    One sentence about the whole and a table of its segments.
  """
  if isinstance(found, str):
    return Statement(f'There is no certificate of {label}: {found}', None)
  headings, *rows = found.rows()
  table = Table(f'Segments of {label}', headings, {'': rows})
  said = (_whole(label, found), _loss(found), _left(found, newton_steps))
  return Statement(' '.join(filter(None, said)), table)


def left_out(
  methods: Sequence[Method],
  found: Certificate | str,
  newton_steps: int,
  depth: int,
) -> dict[str, str]:
  """Which methods a page leaves out because their maps would be of the error.

  Where a segment does not come back from what it brings about itself, what runs
  it backwards for every class or unit shows what is left of the error, and
  takes long for it.

  Args:
    methods: the methods that nobody asked for by name.
    found: the certificate of the network, or why there is none.
    newton_steps: how many steps it had.
    depth: how many segments there are up to the last feature map.

  Returns:
    The reason, by the names of the methods.
  """
  if isinstance(found, str):
    return {}
  stuck = not_undone(found.segments)
  crossed = {
    'logits': stuck,
    'feature_map': [s for s in stuck if s.index < depth],
  }
  return {
    m.name: _why_left_out(m, crossed[m.backwards][-1], newton_steps)
    for m in methods
    if m.backwards and crossed[m.backwards]
  }


def _why_left_out(
  method: Method, last: SegmentCertificate, newton_steps: int
) -> str:
  """The reason, and what can be done."""
  advice = f' --methods {method.name} asks for it all the same'
  if int(last.newton_steps) >= newton_steps:
    advice += ', --newton-steps gives it more steps'
  return (
    'Left out: it runs the network backwards for every class, and Gauss–Newton'
    f' does not undo segment {last.index} ({last.source}):'
    f' {residual_left(last)}.{advice}.'
  )


def lipschitz(found: Certificate | str) -> jax.Array | None:
  """The Lipschitz constant, if one is known."""
  if isinstance(found, str) or not np.isfinite(found.upper):
    return None
  return found.upper


def _whole(label: str, found: Certificate) -> str:
  unbounded = [s.unbounded_by for s in found.segments if s.unbounded_by]
  if unbounded:
    return (
      f'{label} has no global bound: none is known of {unbounded[0]}. Near'
      f' these pictures it stretches by {float(found.lower):.3g}.'
    )
  least, middle = np.min(found.radius), np.median(found.radius)
  return (
    f'{label} stretches no difference of two pictures by more than'
    f' {float(found.upper):.3g}; near these pictures {float(found.lower):.3g}'
    f' is reached. No change of a smaller 2-norm than {_rounded_down(least)}'
    ' alters what it predicts of any of these pictures, and none of a smaller'
    f' one than {_rounded_down(middle)} what it predicts of half of them.'
  )


def _rounded_down(radius: np.floating) -> str:
  """Two digits that claim no more than what is certain."""
  down = decimal.Context(prec=2, rounding=decimal.ROUND_FLOOR)
  return f'{down.create_decimal_from_float(float(radius)):.2g}'


def _loss(found: Certificate) -> str:
  lost = float(np.mean(found.lost_energy))
  return (
    'Of what comes back from its logits alone, the squared error is'
    f' {lost:.0%} of the energy of the pictures; black gets 100%.'
  )


def _left(found: Certificate, newton_steps: int) -> str:
  """Where what is lost is not known to the end."""
  return ' '.join(
    f'The energy lost in segment {segment.index} is what Gauss–Newton leaves,'
    f' which does not undo it: {residual_left(segment)} (--newton-steps'
    f' {newton_steps}).'
    for segment in not_undone(found.segments)
  )
