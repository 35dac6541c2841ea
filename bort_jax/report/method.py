"""One method of a report, as a reader knows it."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax

from bort_jax.plots.colors import Kind
from bort_jax.report.subject import Subject

# Maps, or pictures in colours that are shown as they are.
MapKind: TypeAlias = Kind | Literal['colours']


class Method(NamedTuple):
  """One method and what a reader must know of it."""

  name: str
  label: str
  kind: MapKind
  about: str
  explain: Callable[[Subject, Any, jax.Array, jax.Array], jax.Array]
  """subject, weights, x (N, H, W, C), target (N,) -> (N, H, W, C or 1); of
  colours (N, H, W, 4): red, green, blue and opacity in 0 … 1"""
  in_turn: bool = False
  """Whether it takes one class after another, where all at once are slower to
  compile than to compute."""
  backwards: Literal['logits', 'feature_map'] | None = None
  """From where it runs the network backwards, for each class or unit anew."""
