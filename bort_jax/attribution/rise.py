"""Where a picture must be seen for its class, from random masks."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.attribution.batches import at_once, in_blocks, run, summed
from bort_jax.attribution.checks import ApplyFn, check_count, checked
from bort_jax.attribution.errors import AttributionError
from bort_jax.attribution.scores import class_scores
from bort_jax.validation import is_known


def rise(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  *,
  key: jax.Array,
  masks: int = 4000,
  cells: int = 8,
  probability: float = 0.5,
  softmax: bool = True,
  chunk: int | None = None,
) -> jax.Array:
  """The mean of random masks, each weighted by what the class scores under it.

  S = Σᵢ f(x · Mᵢ) Mᵢ / (p · masks). A mask is a grid of ``cells`` × ``cells``,
  each 1 with probability p, else 0, enlarged by bilinear interpolation to
  ⌈H / cells⌉ · (cells + 1) pixels, and of these H × W from a random place less
  than a cell from the top left. All pictures see the same masks.

  Args:
    apply_fn: ``apply_fn(params, x)`` returns logits (N, K), each of a picture
      alone (no batch statistics).
    params: its parameters.
    x: pictures (N, H, W, C); what a mask hides is set to zero.
    target: (N,) int, 0 … K − 1, or one for all.
    key: a random key. The masks do not depend on ``chunk``.
    masks: how many, ≥ 1, known at compilation: 4000 to 8000 in the paper.
    cells: of a grid, in each direction, ≥ 1, known at compilation: 7 or 8.
    probability: p, 0 < p ≤ 1.
    softmax: whether f is the probability of the class, as published, or its
      logit.
    chunk: how many pictures go through the network at once; by default N, one
      mask at a time.

  Returns:
    (N, H, W, C), the same in all channels, in the type of x.

  Raises:
    AttributionError: for what does not fit, and where memory does not suffice.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from bort_jax import attribution
    >>> apply_fn = lambda params, x: params * x[:, 0, 0]  # looks at one pixel
    >>> maps = attribution.rise(
    ...   apply_fn,
    ...   1.0,
    ...   jnp.ones((1, 8, 8, 1)),
    ...   jnp.array([0]),
    ...   key=jax.random.key(0),
    ...   masks=500,
    ...   cells=4,
    ...   softmax=False,
    ... )
    >>> int(maps.argmax())
    0

  References:
    Petsiuk et al., `RISE <https://arxiv.org/abs/1806.07421>`_, 2018, section 3,
    equation 6
  """
  x, target = checked(apply_fn, params, x, target, chunk)
  check_count('masks', masks)
  check_count('cells', cells)
  if is_known(probability) and not 0 < float(probability) <= 1:
    raise AttributionError(
      f'probability must be above 0 and at most 1, got {probability!r}.'
    )
  setting = masks, cells, softmax, chunk
  return run(_rise, apply_fn, setting, params, x, target, key, probability)


def random_masks(
  key: jax.Array,
  index: jax.Array,
  size: tuple[int, int],
  cells: int,
  probability: ArrayLike,
) -> jax.Array:
  """(m, H, W) masks in 0 … 1 of some numbers (m,); float32."""
  height, width = size
  cell = -(-height // cells), -(-width // cells)
  large = (cells + 1) * cell[0], (cells + 1) * cell[1]

  def one(i):
    grid_key, place_key = jax.random.split(jax.random.fold_in(key, i))
    shape = cells, cells
    grid = jax.random.bernoulli(grid_key, probability, shape)
    smooth = jax.image.resize(grid.astype(jnp.float32), large, 'bilinear')
    place = jax.random.randint(place_key, (2,), 0, jnp.array(cell))
    return jax.lax.dynamic_slice(smooth, place, size)

  return jax.vmap(one)(index)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _rise(apply_fn, setting, params, x, target, key, probability):
  count, cells, softmax, chunk = setting
  size = x.shape[1:3]

  def scored(params, pictures):
    logits = apply_fn(params, pictures)
    return jax.nn.softmax(logits) if softmax else logits

  def of_block(x, target):
    def term(index):
      drawn = random_masks(key, index, size, cells, probability)
      drawn = drawn[:, None, :, :, None].astype(x.dtype)
      scores = class_scores(scored, params, x[None] * drawn, target)
      return scores[:, :, None, None, None] * drawn

    return summed(term, count, at_once(chunk, len(x), count))

  total = in_blocks(of_block, chunk, x, target) / (count * probability)
  return jnp.broadcast_to(total, x.shape).astype(x.dtype)
