"""The pictures of a report and the names of their classes."""

from typing import NamedTuple

import numpy as np

from bort_jax.train.config import TrainConfig
from bort_jax.train.prepared import open_set
from bort_jax.train.source import Source

_DRAWN_FROM = 512  # test pictures


class TestPictures(NamedTuple):
  """The first test pictures."""

  pixels: np.ndarray  # (N, H, W, C) uint8
  labels: np.ndarray  # (N,) int


def first_test_pictures(
  source: Source, limit: int = _DRAWN_FROM
) -> TestPictures:
  """As many as a report draws from, or as there are."""
  pixels, labels, count = [], [], 0
  for images, classes, mask in source.test():
    pixels.append(images[mask])
    labels.append(classes[mask])
    count += int(mask.sum())
    if count >= limit:
      break
  joined = (np.concatenate(a)[:limit] for a in (pixels, labels))
  return TestPictures(*joined)


def spread(labels: np.ndarray, count: int) -> np.ndarray:
  """Indices of pictures of as many classes as there are, in order.

  Args:
    labels: (N,) classes.
    count: how many.

  Returns:
    At most so many indices: the first of every class, then the second, …

  Examples:
    >>> import numpy as np
    >>> from bort_jax.report.gather import spread
    >>> spread(np.array([1, 1, 0, 2, 0]), 4).tolist()
    [2, 0, 3, 4]
  """
  seen: dict[int, int] = {}
  turns = np.zeros(len(labels), int)
  for i, label in enumerate(labels.tolist()):
    turns[i] = seen.get(label, 0)
    seen[label] = turns[i] + 1
  return np.lexsort((labels, turns))[:count]


def class_names(config: TrainConfig, num_classes: int) -> list[str]:
  """What the data set calls its classes; their numbers where it does not."""
  if config.data == 'digits':
    return [str(i) for i in range(num_classes)]
  builder = open_set(config.data, config.data_dir)
  return list(builder.info.features['label'].names)
