"""What a page shows in one place: a picture, or why there is none."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from bort_jax.attribution import AttributionError
from bort_jax.inversion import InversionError
from bort_jax.metrics import MetricError

T = TypeVar('T')


class Shown(NamedTuple):
  """A picture for the page."""

  png: str | list[str] | None = None  # in base64; a list: one for each class
  why: str | None = None  # there is none
  caption: str | None = None

  def as_json(self) -> dict[str, Any]:
    """Without what is missing."""
    return {k: v for k, v in self._asdict().items() if v is not None}


def attempt(function: Callable[..., T], *args: Any) -> T | str:
  """What a function returns, or the reason why it refuses.

  Some networks cannot be run backwards, and some methods need what a network
  does not have: a page says so in their place.
  """
  try:
    return function(*args)
  except (AttributionError, InversionError, MetricError) as error:
    return str(error)
