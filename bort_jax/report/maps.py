"""Attribution maps of pictures, for several classes of each."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax.plots.colors import map_colors
from bort_jax.report.method import MapKind, Method
from bort_jax.report.png import encode
from bort_jax.report.shown import Shown, attempt
from bort_jax.report.subject import Subject

_ALL_UP_TO = 10  # classes
_SIDE = 112  # of the largest maps on a page, in pixels


def classes_shown(
  probabilities: np.ndarray, labels: np.ndarray, most: int = 6
) -> np.ndarray:
  """Which classes of each picture are explained.

  Args:
    probabilities: (N, K).
    labels: (N,) int; −1 where there is none.
    most: how many, where there are more than ten classes.

  Returns:
    (N, k) int, the most probable first: all classes, or those of the highest
    probability. The label is among them.

  Examples:
    >>> import numpy as np
    >>> from bort_jax.report.maps import classes_shown
    >>> ranked = np.linspace(1, 0, 12)[None]
    >>> classes_shown(ranked, np.array([11]), most=3).tolist()
    [[0, 1, 11]]
  """
  order = np.argsort(-probabilities, axis=1, kind='stable')
  if probabilities.shape[1] <= _ALL_UP_TO:
    return order
  chosen = order[:, :most]
  missing = (labels >= 0) & ~np.any(chosen == labels[:, None], axis=1)
  chosen[missing, -1] = labels[missing]
  return chosen


def maps_of(
  method: Method,
  subject: Subject,
  weights: Any,
  x: jax.Array,
  targets: np.ndarray,
) -> np.ndarray | str:
  """A method's maps of all pictures and classes, or why there are none.

  Args:
    method: the method.
    subject: the networks.
    weights: those of one.
    x: (N, H, W, C).
    targets: (N, k) classes of each.

  Returns:
    (k, N, H, W, C or 1) float32, or the reason.
  """
  of_class = lambda target: method.explain(subject, weights, x, target)
  in_turn = lambda targets: jnp.stack([*map(of_class, targets)])
  of_all = in_turn if method.in_turn else jax.vmap(of_class)
  found = attempt(of_all, jnp.asarray(targets).T)
  if isinstance(found, str):
    return found
  maps = np.asarray(found, np.float32)
  if not np.all(np.isfinite(maps)):
    return 'What comes out is not finite.'
  return maps


def shown_maps(maps: np.ndarray | str, kind: MapKind) -> list[Shown]:
  """The maps of each picture, coloured.

  Args:
    maps: (k, N, H, W, C), or why there are none.
    kind: whether they have signs, or are in colours as they are.

  Returns:
    For each picture its maps, one for each class. A reason makes one for all.
  """
  if isinstance(maps, str):
    return [Shown(why=maps)]
  thin = [_thinned(one) for one in maps]
  if kind == 'colours':
    colored = np.stack([on_white(one) for one in thin], 1)
  else:
    colored = np.stack([map_colors(one, kind) for one in thin], 1)
  return [Shown([encode(one) for one in picture]) for picture in colored]


def on_white(pictures: np.ndarray) -> np.ndarray:
  """Pictures (..., 4) in 0 … 1 as they look on white paper, (..., 3) uint8."""
  colours, opacity = pictures[..., :3], pictures[..., 3:]
  seen = opacity * colours + (1 - opacity)
  return np.round(255 * np.clip(seen, 0, 1)).astype(np.uint8)


def _thinned(maps: np.ndarray) -> np.ndarray:
  """Means over blocks of pixels, where maps are larger than a page shows."""
  step = -(-max(maps.shape[1:3]) // _SIDE)
  if step == 1:
    return maps
  n, height, width, channels = maps.shape
  rows, columns = height // step, width // step
  cut = maps[:, : rows * step, : columns * step]
  return cut.reshape(n, rows, step, columns, step, channels).mean((2, 4))
