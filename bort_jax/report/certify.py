"""What is certain of a network, layer by layer, in words and a table."""

import decimal
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from bort_jax.inversion import Certificate, SegmentCertificate
from bort_jax.report.html import Table
from bort_jax.report.method import Method


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
  said = (_whole(label, found), _loss(found), _ended(found, newton_steps))
  return Statement(' '.join(filter(None, said)), table)


def not_undone(
  found: Certificate | str, newton_steps: int
) -> list[SegmentCertificate]:
  """The segments for which that many steps of Gauss–Newton were too few."""
  if isinstance(found, str):
    return []
  return [s for s in found.segments if int(s.newton_steps) >= newton_steps]


def left_out(
  methods: Sequence[Method], found: Certificate | str, newton_steps: int
) -> dict[str, str]:
  """Which methods a page leaves out because they would take too long.

  Where the network does not come back in the steps that it has, what runs it
  backwards for every class or unit spends all of them every time, and shows
  what then is left of the error.

  Args:
    methods: the methods that nobody asked for by name.
    found: the certificate of the network, or why there is none.
    newton_steps: how many steps it had.

  Returns:
    The reason, by the names of the methods.
  """
  stuck = not_undone(found, newton_steps)
  if not stuck:
    return {}
  last = stuck[-1]
  return {
    m.name: f'Left out: it runs the network backwards for every class, and'
    f' {newton_steps} steps of Gauss–Newton do not undo segment {last.index}'
    f' ({last.source}). --methods {m.name} asks for it all the same,'
    ' --newton-steps gives it more steps.'
    for m in methods
    if m.backwards
  }


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


def _ended(found: Certificate, newton_steps: int) -> str:
  """Where what is lost is not known to the end."""
  stuck = [str(s.index) for s in not_undone(found, newton_steps)]
  if not stuck:
    return ''
  return (
    f'The energy lost in segment {", ".join(stuck)} is what'
    f' {newton_steps} steps of Gauss–Newton leave (--newton-steps), which did'
    ' not converge.'
  )
