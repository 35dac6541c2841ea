"""Deletion and insertion as RISE and Xplique define them, in NumPy.

Written from descriptions of their protocols, one picture at a time and as
plainly as can be: what ``bort_jax.metrics`` is compared with.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.ndimage

Logits = Callable[[np.ndarray], np.ndarray]  # of (B, H, W, C), (B, K)


class Published(NamedTuple):
  """A curve and the area that the tool computes of it."""

  scores: np.ndarray  # (N, S + 1)
  auc: np.ndarray  # (N,)


def rise(
  logits: Logits,
  x: np.ndarray,
  target: np.ndarray,
  maps: np.ndarray,
  step: int,
  insertion: bool,
) -> Published:
  """RISE: ``step`` pixels at a time, probabilities, ties from the last index.

  Args:
    logits: the network.
    x: pictures (N, H, W, C).
    target: (N,) classes.
    maps: (N, H, W).
    step: pixels.
    insertion: onto the blurred picture; else deletion to 0.

  Returns:
    The curves.
  """
  n, height, width, channels = x.shape
  pixels = height * width
  curves = []
  for i in range(n):
    start, finish = x[i : i + 1].copy(), np.zeros_like(x[i : i + 1])
    if insertion:
      start, finish = rise_blur(start), start
    order = np.flip(np.argsort(maps[i].ravel(), kind='stable'))
    scores = []
    for j in range(math.ceil(pixels / step) + 1):
      scores.append(_softmax(logits(start))[0, target[i]])
      chosen = order[step * j : step * (j + 1)]
      flat = start.reshape(pixels, channels).copy()
      flat[chosen] = finish.reshape(pixels, channels)[chosen]
      start = flat.reshape(1, height, width, channels)
    curves.append(scores)
  s = np.array(curves)
  area = (s.sum(1) - s[:, 0] / 2 - s[:, -1] / 2) / (s.shape[1] - 1)
  return Published(s, area)


def rise_blur(x: np.ndarray, size: int = 11, stdev: float = 5) -> np.ndarray:
  """RISE's blur: a filtered point as kernel, zeros beyond the border."""
  point = np.zeros((size, size))
  point[size // 2, size // 2] = 1
  kernel = scipy.ndimage.gaussian_filter(point, stdev)
  return np.stack(
    [
      np.stack(
        [
          scipy.ndimage.correlate(picture[..., c], kernel, mode='constant')
          for c in range(x.shape[-1])
        ],
        axis=-1,
      )
      for picture in x
    ]
  )


def xplique(
  logits: Logits,
  x: np.ndarray,
  target: np.ndarray,
  maps: np.ndarray,
  steps: int,
  insertion: bool,
) -> Published:
  """Xplique: ``steps`` cut to integers, logits, ties from the last index.

  Args:
    logits: the network.
    x: pictures (N, H, W, C).
    target: (N,) classes.
    maps: (N, H, W, C); their channels are averaged.
    steps: of all pixels.
    insertion: onto 0; else deletion to 0.

  Returns:
    The curves.
  """
  n, height, width, channels = x.shape
  pixels = height * width
  order = np.argsort(maps.mean(-1).reshape(n, pixels), axis=1, kind='stable')[
    :, ::-1
  ]
  flat, zero = x.reshape(n, pixels, channels), np.zeros((channels,))
  columns = []
  for k in np.linspace(0, pixels, steps + 1, dtype=np.int32):
    mixed = np.zeros_like(flat) if insertion else flat.copy()
    for i in range(n):
      chosen = order[i, :k]
      mixed[i, chosen] = flat[i, chosen] if insertion else zero
    out = logits(mixed.reshape(x.shape))
    columns.append(out[np.arange(n), target])
  scores = np.stack(columns, axis=1)
  return Published(scores, np.mean(scores[:, :-1] + scores[:, 1:], 1) * 0.5)


def _softmax(logits: np.ndarray) -> np.ndarray:
  exponentials = np.exp(logits - logits.max(-1, keepdims=True))
  return exponentials / exponentials.sum(-1, keepdims=True)
