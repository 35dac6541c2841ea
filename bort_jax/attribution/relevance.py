"""Layer-wise relevance propagation through a traced function."""

import functools
from typing import Any, Literal, TypeAlias, get_args

import jax
from jax.typing import ArrayLike

from bort_jax.attribution.batches import in_blocks, run
from bort_jax.attribution.checks import ApplyFn, checked
from bort_jax.attribution.errors import AttributionError
from bort_jax.attribution.relevance_rules import relevance_rules, share
from bort_jax.attribution.rules import ruled
from bort_jax.validation import check_number, nan_where_missing

RelevanceRule: TypeAlias = Literal['epsilon', 'z_plus']


def lrp(
  apply_fn: ApplyFn,
  params: Any,
  x: ArrayLike,
  target: ArrayLike,
  *,
  rule: RelevanceRule = 'epsilon',
  epsilon: ArrayLike = 1e-9,
  chunk: int | None = None,
) -> jax.Array:
  """Relevance: a class's logit, handed back from each number to its makers.

  It is followed through the operations that the function traces to, and added
  up at every value: layers that are used twice and skips need nothing special.

  ``'epsilon'``: a number z = Σ aᵢ wᵢ + b hands on aᵢ wᵢ / (z + ε sign z) of its
  relevance, with sign 0 = 1 as in Captum. Biases keep their share, so the sum
  is the logit less those. Linear operations that follow each other, such as a
  convolution, its bias and a normalization in evaluation, are one layer, with ε
  once at its end. On a ReLU network without biases and ε → 0 it is gradient ×
  input.

  ``'z_plus'``: of convolutions and dense layers, only those aᵢ wᵢ count that
  are positive (of positive inputs by positive weights, and of negative by
  negative); relevance goes to them by their share, and where there are none,
  to the negative ones. Of plain sums and means, the terms that have the sign of
  the sum count. Biases and scales by constants, such as those of a
  normalization in evaluation, get none and pass all on.

  In both:

  - a function of one number (ReLU, leaky ReLU, GELU, SiLU, tanh, …) hands on
    all relevance;
  - a maximum gives it to the winner;
  - additions of two values split it by their share;
  - factors that are taken as constants get none: attention weights after their
    softmax, gates by a sigmoid, what a normalization divides by (LayerNorm);
  - other products of two values that depend on x give half to each.

  Args:
    apply_fn: ``apply_fn(params, x)`` returns logits (N, K), not probabilities,
      each of a picture alone (no batch statistics).
    params: its parameters.
    x: pictures (N, H, W, C), floats of any range.
    target: (N,) int, 0 … K − 1, or one for all.
    rule: which.
    epsilon: ε ≥ 0. Captum's default.
    chunk: how many pictures go through the network at once; by default N.

  Returns:
    (N, H, W, C), in the type of x.

  Raises:
    AttributionError: for what does not fit, for an operation that has no rule,
      which it names with its place in the source, and where memory does not
      suffice.
    ValueError: for an epsilon that is negative or not finite.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import attribution
    >>> apply_fn = lambda params, x: x.reshape(len(x), -1) @ params
    >>> params = jnp.array([[1.0, -2.0], [3.0, 4.0]])
    >>> x = jnp.array([2.0, 0.5]).reshape(1, 1, 2, 1)
    >>> target = jnp.array([0])
    >>> attribution.lrp(apply_fn, params, x, target).ravel()
    Array([2. , 1.5], dtype=float32)

  References:
    Bach et al., `On Pixel-Wise Explanations
    <https://doi.org/10.1371/journal.pone.0130140>`_, 2015, equation 58; z⁺:
    Montavon et al., `Deep Taylor Decomposition
    <https://arxiv.org/abs/1512.02479>`_, 2015; attention and normalization:
    Ali et al., `XAI for Transformers <https://arxiv.org/abs/2202.07304>`_, 2022
  """
  x, target = checked(apply_fn, params, x, target, chunk)
  if rule not in get_args(RelevanceRule):
    raise AttributionError(
      f'rule must be one of {", ".join(get_args(RelevanceRule))}, got {rule!r}.'
    )
  check_number('epsilon', epsilon)
  setting = rule == 'z_plus', chunk
  return run(_relevance, apply_fn, setting, params, x, target, epsilon)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _relevance(apply_fn, setting, params, x, target, epsilon):
  positive, chunk = setting
  plan = functools.partial(relevance_rules, positive=positive, epsilon=epsilon)

  def of_block(x, target):
    logits, back = jax.vjp(ruled(apply_fn, params, x, plan), x)
    chosen = jax.nn.one_hot(target, logits.shape[1], dtype=logits.dtype)
    (per_unit,) = back(chosen * share(logits, logits, epsilon))
    return nan_where_missing(x * per_unit, target, logits.shape[1])

  return in_blocks(of_block, chunk, x, target)
