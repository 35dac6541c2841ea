"""How a class's logit falls when a window of the picture is covered."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.attribution.batches import at_once, in_blocks, run, summed
from bort_jax.attribution.checks import (
  ApplyFn,
  check_count,
  checked,
  checked_like_x,
)
from bort_jax.attribution.errors import AttributionError
from bort_jax.attribution.scores import class_scores


class _Grid(NamedTuple):
  """Where windows lie."""

  window: tuple[int, int]
  stride: tuple[int, int]

  def counts(self, height: int, width: int) -> tuple[int, int]:
    """How many windows from top to bottom and from left to right."""
    rows, columns = (
      1 + max(0, -(-(size - window) // stride))
      for size, window, stride in zip(
        (height, width), self.window, self.stride, strict=True
      )
    )
    return rows, columns

  def masks(self, index: jax.Array, height: int, width: int) -> jax.Array:
    """(m, H, W) true inside each window, numbered row by row."""
    columns = self.counts(height, width)[1]
    inside = lambda place, axis, size: (
      (jnp.arange(size)[None] >= place[:, None] * self.stride[axis])
      & (
        jnp.arange(size)[None]
        < place[:, None] * self.stride[axis] + self.window[axis]
      )
    )
    rows = inside(index // columns, 0, height)
    return rows[:, :, None] & inside(index % columns, 1, width)[:, None]


def occlusion(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  *,
  window: int | tuple[int, int],
  stride: int | tuple[int, int],
  baseline: ArrayLike = 0.0,
  chunk: int | None = None,
) -> jax.Array:
  """The fall of a class's logit where a window is covered.

  Windows start at 0, stride, 2 · stride, … from the top left; the last ones
  reach the border and are cut by it, so that every pixel is covered if the
  stride does not exceed the window: 1 + ⌈(H − window) / stride⌉ of them from
  top to bottom. A pixel gets the mean of logit(x) − logit(covered x) over the
  windows that cover it, and 0 if there is none. All channels are covered
  together and get the same number, as in Captum.

  Args:
    apply_fn: ``apply_fn(params, x)`` returns logits (N, K), each of a picture
      alone (no batch statistics).
    params: its parameters.
    x: pictures (N, H, W, C), floats of any range.
    target: (N,) int, 0 … K − 1, or one for all.
    window: height and width of the window in pixels, or one number for both,
      ≥ 1 and known at compilation. It may be larger than the picture.
    stride: its steps down and to the right, likewise.
    baseline: what covers: a number or an array that broadcasts to x.
    chunk: how many pictures go through the network at once; by default N, one
      window at a time.

  Returns:
    (N, H, W, C), the same in all channels, in the type of x.

  Raises:
    AttributionError: for what does not fit, and where memory does not suffice.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import attribution
    >>> apply_fn = lambda params, x: params * x.sum((1, 2))
    >>> x = jnp.array([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1)
    >>> attribution.occlusion(
    ...   apply_fn, 1.0, x, jnp.array([0]), window=(1, 2), stride=1
    ... ).ravel()
    Array([3. , 4.5, 6. ], dtype=float32)

  References:
    Zeiler and Fergus, `Visualizing and Understanding Convolutional Networks
    <https://arxiv.org/abs/1311.2901>`_, 2013, section 4.2
  """
  x, target = checked(apply_fn, params, x, target, chunk)
  grid = _Grid(_pair('window', window), _pair('stride', stride))
  baseline = checked_like_x('baseline', baseline, x)
  setting = grid, chunk
  return run(_occlusion, apply_fn, setting, params, x, target, baseline)


def _pair(name: str, value: Any) -> tuple[int, int]:
  pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
  if len(pair) != 2:
    raise AttributionError(
      f'{name} must be one number or two, height and width, got {value!r}.'
    )
  for number in pair:
    check_count(name, number)
  return int(pair[0]), int(pair[1])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _occlusion(apply_fn, setting, params, x, target, baseline):
  grid, chunk = setting
  height, width = x.shape[1:3]
  rows, columns = grid.counts(height, width)
  count = rows * columns
  masks = lambda index: grid.masks(index, height, width)

  def of_block(x, target, baseline):
    whole = class_scores(apply_fn, params, x[None], target)

    def term(index):
      covered = masks(index)[:, None, :, :, None]
      pictures = jnp.where(covered, baseline[None], x[None])
      fall = whole - class_scores(apply_fn, params, pictures, target)
      return jnp.where(covered, fall[:, :, None, None, None], 0)

    return summed(term, count, at_once(chunk, len(x), count))

  total = in_blocks(of_block, chunk, x, target, baseline)
  ones = lambda index: masks(index).astype(total.dtype)
  times = jnp.maximum(summed(ones, count, 1), 1)[None, :, :, None]
  return jnp.broadcast_to(total / times, x.shape).astype(x.dtype)
