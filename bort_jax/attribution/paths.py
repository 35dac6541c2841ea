"""Gradients along paths from a baseline to the picture."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax import loops
from bort_jax.attribution.batches import at_once, in_blocks, run, summed
from bort_jax.attribution.checks import (
  ApplyFn,
  check_count,
  check_finite,
  checked,
  checked_like_x,
)
from bort_jax.attribution.completeness import difference_from
from bort_jax.attribution.errors import AttributionError
from bort_jax.attribution.gradients import class_gradient, gradients_at
from bort_jax.attribution.homogeneity import all_unchanged, constants_to_be_zero
from bort_jax.inversion.program import trace
from bort_jax.validation import is_known


class IntegratedGradients(NamedTuple):
  """Integrated gradients, and what is known of them."""

  attribution: jax.Array  # (N, H, W, C)
  delta: jax.Array  # (N,) their sum less logit(x) − logit(baseline)
  is_homogeneous: jax.Array  # () whether gradient × input was the exact answer


def integrated_gradients(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  *,
  steps: int = 64,
  baseline: ArrayLike = 0.0,
  chunk: int | None = None,
) -> jax.Array:
  """The gradient averaged on the line from a baseline, times the difference.

  The integral is taken by the midpoint rule: the gradient at
  b + (i + ½)/steps · (x − b), i = 0 … steps − 1 (in Captum,
  ``riemann_middle``), as a scan: memory does not grow with the steps.

  A network that is positively homogeneous, f(t x) = t f(x), as those of linear
  operations, (leaky) ReLU and pooling without biases are, has the same gradient
  all along the line from zero. It is recognized by its operations and by biases
  that are zero; then gradient × input, which is exact, is returned and no step
  is taken. See :func:`integrated_gradients_report` for what was found.

  Args:
    apply_fn: ``apply_fn(params, x)`` returns logits (N, K), each of a picture
      alone (no batch statistics).
    params: its parameters.
    x: pictures (N, H, W, C), floats of any range.
    target: (N,) int, 0 … K − 1, or one for all.
    steps: how many points of the line, ≥ 1, known at compilation.
    baseline: where the line starts: a number or an array that broadcasts to x.
      Zero is black only if black pixels are zero.
    chunk: how many pictures go through the network at once; by default N.

  Returns:
    (N, H, W, C), in the type of x; sums to logit(x) − logit(baseline) up to the
    error of the rule, see :func:`completeness_delta`.

  Raises:
    AttributionError: for what does not fit, and where memory does not suffice.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import attribution
    >>> apply_fn = lambda params, x: params * jnp.square(x).sum((1, 2))
    >>> x = jnp.array([1.0, 3.0]).reshape(1, 1, 2, 1)
    >>> attribution.integrated_gradients(
    ...   apply_fn, 1.0, x, jnp.array([0]), steps=8
    ... ).ravel()
    Array([1., 9.], dtype=float32)

  References:
    Sundararajan et al., `Axiomatic Attribution for Deep Networks
    <https://arxiv.org/abs/1703.01365>`_, 2017, equation 1
  """
  setting, given = _checked_line(
    apply_fn, params, x, target, steps, baseline, chunk
  )
  return run(_integrated, apply_fn, setting, *given)[0]


def integrated_gradients_report(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  *,
  steps: int = 64,
  baseline: ArrayLike = 0.0,
  chunk: int | None = None,
) -> IntegratedGradients:
  """Integrated gradients with their completeness, and how they were found.

  Args:
    apply_fn: see :func:`integrated_gradients`, like all that follows.
    params: see there.
    x: see there.
    target: see there.
    steps: see there.
    baseline: see there.
    chunk: see there.

  Returns:
    The attribution, how far its sum is from logit(x) − logit(baseline), and
    whether the network was found positively homogeneous and the baseline zero.

  Raises:
    AttributionError: as there.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from bort_jax import attribution
    >>> apply_fn = lambda p, x: jax.nn.relu(x.sum((1, 2)) @ p['w'] + p['b'])
    >>> params = {'w': jnp.ones((1, 1)), 'b': jnp.zeros((1, 1))}
    >>> x = jnp.ones((1, 2, 2, 1))
    >>> report = lambda params: attribution.integrated_gradients_report(
    ...   apply_fn, params, x, jnp.array([0])
    ... )
    >>> bool(report(params).is_homogeneous)
    True
    >>> bool(report({**params, 'b': jnp.ones((1, 1))}).is_homogeneous)
    False
  """
  setting, given = _checked_line(
    apply_fn, params, x, target, steps, baseline, chunk
  )
  attribution, found = run(_integrated, apply_fn, setting, *given)
  change = run(difference_from, apply_fn, chunk, *given)
  total = jnp.sum(attribution, (1, 2, 3), dtype=change.dtype)
  return IntegratedGradients(attribution, total - change, found)


def expected_gradients(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  *,
  key: jax.Array,
  background: ArrayLike,
  samples: int = 64,
  chunk: int | None = None,
) -> jax.Array:
  """Integrated gradients, averaged over pictures as baselines.

  The mean over samples of (x − b) · ∂ logit(b + α (x − b)) / ∂ x, each with a
  picture b drawn from the background and α uniform in [0, 1).

  Args:
    apply_fn: see :func:`integrated_gradients`.
    params: its parameters.
    x: pictures (N, H, W, C).
    target: (N,) int classes.
    key: a random key. Each picture has its own samples, which depend on its
      place in the batch but not on ``chunk``.
    background: pictures (B, H, W, C) to compare with, such as some of the
      training set.
    samples: how many for each picture, ≥ 1, known at compilation.
    chunk: how many pictures go through the network at once; by default N.

  Returns:
    (N, H, W, C); sums, up to the error of sampling, to the logit of x less the
    mean logit of the background.

  Raises:
    AttributionError: as :func:`integrated_gradients`.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from bort_jax import attribution
    >>> apply_fn = lambda params, x: params * x.sum((1, 2))
    >>> attribution.expected_gradients(
    ...   apply_fn,
    ...   2.0,
    ...   jnp.array([1.0, 3.0]).reshape(1, 1, 2, 1),
    ...   jnp.array([0]),
    ...   key=jax.random.key(0),
    ...   background=jnp.ones((5, 1, 2, 1)),
    ... ).ravel()
    Array([0., 4.], dtype=float32)

  References:
    Erion et al., `Improving performance of deep learning models with axiomatic
    attribution priors and expected gradients
    <https://arxiv.org/abs/1906.10670>`_, 2019
  """
  x, target = checked(apply_fn, params, x, target, chunk)
  check_count('samples', samples)
  background = jnp.asarray(background, x.dtype)
  if (
    background.ndim != 4
    or background.shape[1:] != x.shape[1:]
    or not len(background)
  ):
    raise AttributionError(
      f'background must be pictures (B, {", ".join(map(str, x.shape[1:]))}),'
      f' B ≥ 1, got shape {background.shape}.'
    )
  check_finite({'background': background})
  setting = samples, chunk
  return run(_expected, apply_fn, setting, params, x, target, key, background)


def _checked_line(apply_fn, params, x, target, steps, baseline, chunk):
  x, target = checked(apply_fn, params, x, target, chunk)
  check_count('steps', steps)
  wide = checked_like_x('baseline', baseline, x)
  known = is_known(baseline)
  with jax.ensure_compile_time_eval():
    from_zero = not known or not jnp.any(jnp.asarray(baseline))
  return (steps, chunk, bool(from_zero)), (params, x, target, wide)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _integrated(apply_fn, setting, params, x, target, baseline):
  steps, chunk, from_zero = setting
  found = jnp.array(False)
  if from_zero:
    found = _is_homogeneous(apply_fn, params, x, baseline)

  def of_block(x, target, baseline):
    def loop():
      def term(index):
        share = ((index + 0.5) / steps).astype(x.dtype).reshape(-1, 1, 1, 1, 1)
        points = baseline[None] + share * (x - baseline)[None]
        return gradients_at(apply_fn, params, points, target)

      total = summed(term, steps, at_once(chunk, len(x), steps))
      return (x - baseline) * (total / steps).astype(x.dtype)

    direct = lambda: x * class_gradient(apply_fn, params, x, target)
    return loops.cond(found, direct, loop) if from_zero else loop()

  return in_blocks(of_block, chunk, x, target, baseline), found


def _is_homogeneous(apply_fn, params, x, baseline) -> jax.Array:
  program = trace(apply_fn, params, jax.ShapeDtypeStruct(x.shape, x.dtype))
  needed = constants_to_be_zero(program)
  if needed is None:
    return jnp.array(False)
  constants = program.constants(params)
  return all_unchanged(needed, constants) & jnp.all(baseline == 0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _expected(apply_fn, setting, params, x, target, key, background):
  samples, chunk = setting

  def draw(key, i):
    which, where = jax.random.split(jax.random.fold_in(key, i))
    place = jax.random.randint(which, (), 0, len(background))
    return background[place], jax.random.uniform(where, (), x.dtype)

  def of_block(x, target, keys):
    def term(index):
      one = lambda i: jax.vmap(lambda key: draw(key, i))(keys)
      baseline, share = jax.vmap(one)(index)
      way = x[None] - baseline
      points = baseline + share[..., None, None, None] * way
      return way * gradients_at(apply_fn, params, points, target)

    total = summed(term, samples, at_once(chunk, len(x), samples))
    return (total / samples).astype(x.dtype)

  return in_blocks(of_block, chunk, x, target, jax.random.split(key, len(x)))
