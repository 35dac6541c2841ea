"""What is certain of a network, layer by layer, in words and a table."""

import decimal
from typing import NamedTuple

import jax
import numpy as np

from bort_jax.inversion import Certificate
from bort_jax.report.html import Table


class Statement(NamedTuple):
  """A certificate as a page says it."""

  text: str
  table: Table | None


def statement(label: str, found: Certificate | str) -> Statement:
  """What a certificate says of a network.

  Args:
    label: what the network is called.
    found: the certificate, or why there is none.

  Returns:
    One sentence about the whole and a table of its segments.
  """
  if isinstance(found, str):
    return Statement(f'There is no certificate of {label}: {found}', None)
  headings, *rows = found.rows()
  table = Table(f'Segments of {label}', headings, {'': rows})
  return Statement(f'{_whole(label, found)} {_loss(found)}', table)


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
