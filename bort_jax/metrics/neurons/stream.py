"""Batches of pictures as they come, in one shape."""

import itertools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from bort_jax.metrics.checks import check_count, checked_pictures
from bort_jax.metrics.errors import MetricError
from bort_jax.validation import checked_classes


class Stream:
  """Batches, checked, all of the size of the first by padding.

  Args:
    given: tuples of pictures (N, H, W, C), one array or several, and labels.
    num_classes: K.
    pictures: how many arrays of pictures there are in each.

  Raises:
    MetricError: for what does not fit, when it is met, and if there is none.
  """

  def __init__(self, given: Iterable[Any], num_classes: int, pictures: int):
    check_count('num_classes', num_classes)
    self._num_classes, self._pictures = num_classes, pictures
    batches = iter(given)
    try:
      self.first = self._checked(next(batches))
    except StopIteration:
      raise MetricError(
        'There are no batches. An iterator that was used before is at its end:'
        ' make a new one for every pass.'
      ) from None
    self._batches = batches

  def __iter__(self):
    """Arrays of pictures, their labels, and how many are no padding."""
    size = len(self.first[1])
    rest = map(self._checked, self._batches)
    for arrays, labels in itertools.chain([self.first], rest):
      n = len(labels)
      if n > size:
        raise MetricError(
          f'A batch has {n} pictures, the first one {size}. Let the first be'
          ' the largest.'
        )
      self._check_like_first(arrays[0])
      if n < size:
        arrays = tuple(_padded(a, size - n) for a in arrays)
        labels = _padded(labels, size - n)
      yield arrays, labels, jnp.asarray(n)

  def _check_like_first(self, x: jax.Array) -> None:
    first = self.first[0][0]
    if (x.shape[1:], x.dtype) != (first.shape[1:], first.dtype):
      raise MetricError(
        f'A batch has pictures of {x.dtype}{list(x.shape[1:])}, the first one'
        f' of {first.dtype}{list(first.shape[1:])}. Resize all to one size, and'
        ' give them in one type.'
      )

  def _checked(self, batch):
    if not isinstance(batch, tuple | list) or len(batch) != self._pictures + 1:
      names = ('x', 'x_adversarial')[: self._pictures]
      raise MetricError(
        f'batches must be tuples ({", ".join((*names, "labels"))}), got'
        f' {type(batch).__name__}'
        + (f' of {len(batch)}.' if isinstance(batch, tuple | list) else '.')
      )
    *arrays, labels = batch
    arrays = tuple(map(checked_pictures, arrays))
    if len({(a.shape, a.dtype) for a in arrays}) > 1:
      raise MetricError(
        'Adversarial pictures must be of the shape and type of the real ones,'
        f' got {", ".join(f"{a.dtype}{list(a.shape)}" for a in arrays)}.'
      )
    if jnp.shape(labels) != arrays[0].shape[:1]:
      raise MetricError(
        f'labels must be of shape ({len(arrays[0])},), a class for each'
        f' picture, got {jnp.shape(labels)}.'
      )
    labels = checked_classes(
      'labels', labels, len(arrays[0]), self._num_classes, MetricError
    )
    return arrays, labels


def _padded(a: jax.Array, more: int) -> jax.Array:
  return jnp.pad(a, [(0, more), *[(0, 0)] * (a.ndim - 1)])
