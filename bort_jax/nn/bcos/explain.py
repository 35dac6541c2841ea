"""Explanations of B-cos networks: the exact linear map of each input."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax import loops
from bort_jax.nn.bcos.streams import TwoStreams, two_streams
from bort_jax.nn.bcos.transform import wide
from bort_jax.validation import checked_classes, nan_where_missing


class Explanation(NamedTuple):
  """What a network computes at x, as one linear map.

  The logit is ``logit_bias`` + ``constant`` + ``contribution`` +
  ``completeness_error``. Axes in brackets are there where all classes are
  explained.

  Attributes:
    weights: W, (N, [K,] H, W, C): the linear map at x.
    encoded: (N, H, W, C), what W is applied to: x, or what
      :class:`AddInverse` made of it.
    contribution_map: (N, [K,] H, W): W times ``encoded``, summed over channels.
    contribution: (N, [K]): the sum of the map.
    logit: (N, [K]).
    logit_bias: what :class:`LogitLayer` adds, a scalar; 0 where there is none.
    constant: (N, [K]): what the frozen network gives for an input of zeros,
      less ``logit_bias``: the part of position embeddings, biases of norms and
      running means. 0 in B-cos CNNs with norms that are linear.
    completeness_error: (N, [K]): what is left, rounding where everything that
      is not linear is dynamic.
  """

  weights: jax.Array
  encoded: jax.Array
  contribution_map: jax.Array
  contribution: jax.Array
  logit: jax.Array
  logit_bias: jax.Array
  constant: jax.Array
  completeness_error: jax.Array


def explain(
  apply_fn: Callable[[Any, jax.Array], Any],
  params: Any,
  x: jax.Array,
  target: ArrayLike,
  *,
  output: str = 'logits',
) -> Explanation:
  """Explains one class of each picture.

  Everything dynamic in the network (see :func:`dynamic`) is held as it is at x;
  what remains is linear, and W is its matrix's row of the class. One forward
  pass, one backward, and one of the linear map alone, of zeros, for what is
  constant. The result can be differentiated, in parameters and x,
  through the dynamic parts too: losses on explanations train as they should.

  Args:
    apply_fn: a B-cos network as a function of parameters and pictures, such as
      :func:`bort_jax.nn.functional` makes: logits (N, K), or a mapping with
      them. In evaluation mode, unless batch statistics are meant.
    params: its parameters.
    x: pictures (N, H, W, C), floats, coded by :func:`add_inverse` or not.
    target: (N,) int classes, or one for all.
    output: name of the logits where apply_fn returns a mapping.

  Returns:
    The explanation; NaN for a class that does not exist, where that is not
    known beforehand.

  Raises:
    TypeError: if x is not of floats.
    ValueError: if shapes do not fit, or target is no class for each picture.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax import nn
    >>> model = nn.create(
    ...   'bcos_resnet8',
    ...   image_shape=(8, 8, 3),
    ...   num_classes=10,
    ...   rngs=nnx.Rngs(0),
    ... )
    >>> model.eval()
    >>> apply_fn, params = nn.functional(model)
    >>> pictures = jnp.full((1, 8, 8, 3), 0.25)
    >>> out = nn.bcos.explain(apply_fn, params, pictures, jnp.array([3]))
    >>> out.weights.shape, out.contribution_map.shape
    ((1, 8, 8, 6), (1, 8, 8))
    >>> jnp.allclose(out.contribution, out.logit - out.logit_bias).item()
    True

  References:
    Böhle, Fritz, Schiele, `B-cos Networks: Alignment is All We Need for
    Interpretability <https://arxiv.org/abs/2205.10268>`_, 2022, section 3.2
  """
  _check_x(x)
  count, classes = _apply.eval_shape(apply_fn, output, params, x).shape
  target = checked_classes('target', target, count, classes, ValueError)
  return _explain(apply_fn, output, params, x, target)


def explain_all(
  apply_fn: Callable[[Any, jax.Array], Any],
  params: Any,
  x: jax.Array,
  *,
  chunk: int = 1,
  output: str = 'logits',
) -> Explanation:
  """Explains every class of each picture.

  As :func:`explain`, with one backward pass for each class; ``chunk`` of them
  at a time are in memory beside the result.

  Args:
    apply_fn: as for :func:`explain`.
    params: as for :func:`explain`.
    x: as for :func:`explain`.
    chunk: classes that are explained at the same time, ≥ 1.
    output: as for :func:`explain`.

  Returns:
    The explanations, with a second axis of classes.

  Raises:
    TypeError: as :func:`explain`.
    ValueError: as :func:`explain`, and if ``chunk`` is not an integer ≥ 1.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax import nn
    >>> conv = nn.bcos.BcosConv(6, 4, (3, 3), rngs=nnx.Rngs(0))
    >>> apply_fn, params = nn.functional(conv)
    >>> scores = lambda params, x: apply_fn(params, x).mean(axis=(1, 2))
    >>> pictures = jnp.ones((2, 5, 5, 6))
    >>> nn.bcos.explain_all(scores, params, pictures).weights.shape
    (2, 4, 5, 5, 6)
  """
  _check_x(x)
  if not isinstance(chunk, int) or chunk < 1:
    raise ValueError(f'chunk must be an integer >= 1, got {chunk!r}.')
  return _explain_all(apply_fn, output, chunk, params, x)


# Compiled once for a network, however often it is called.
@functools.partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def _explain_all(apply_fn, output, chunk, params, x) -> Explanation:
  streams, linear = _streams(apply_fn, output, params, x)
  logits, pull = jax.vjp(linear, streams.encoded)
  count, classes = logits.shape
  chunk = min(chunk, classes)

  def one(target):
    unit = jax.nn.one_hot(target, classes, dtype=logits.dtype)
    (weights,) = pull(jnp.broadcast_to(unit, logits.shape))
    return weights, _contributions(streams, weights)

  some = jax.vmap(one, out_axes=1)

  def put_some(step, found):
    # the last steps may overlap; the result is written in place
    start = jnp.minimum(step * chunk, classes - chunk)
    put = lambda whole, part: jax.lax.dynamic_update_slice_in_dim(
      whole, part, start, axis=1
    )
    return jax.tree.map(put, found, some(start + jnp.arange(chunk)))

  empty = jax.tree.map(
    lambda part: jnp.zeros((count, classes, *part.shape[2:]), part.dtype),
    jax.eval_shape(some, jnp.arange(chunk)),
  )
  weights, maps = loops.fori_loop(0, -(-classes // chunk), put_some, empty)
  constant = linear(jnp.zeros_like(streams.encoded))
  return _sums(streams, weights, maps, logits, constant)


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _apply(apply_fn, output, params, x) -> jax.Array:
  return _logits(apply_fn(params, x), output)


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _explain(apply_fn, output, params, x, target) -> Explanation:
  streams, linear = _streams(apply_fn, output, params, x)
  logits, pull = jax.vjp(linear, streams.encoded)
  (weights,) = pull(jax.nn.one_hot(target, logits.shape[1], dtype=logits.dtype))
  constants = linear(jnp.zeros_like(streams.encoded))
  defined = lambda a: nan_where_missing(a, target, logits.shape[1])
  pick = lambda a: jnp.take_along_axis(a, target[:, None], axis=1)[:, 0]
  logit, constant = defined(pick(logits)), defined(pick(constants))
  weights = defined(weights)
  maps = _contributions(streams, weights)
  return _sums(streams, weights, maps, logit, constant)


def _streams(
  apply_fn, output, params, x
) -> tuple[TwoStreams, Callable[[jax.Array], jax.Array]]:
  streams = two_streams(apply_fn, params, x)
  return streams, lambda v: _logits(streams.linear(v), output)


def _contributions(streams: TwoStreams, weights: jax.Array) -> jax.Array:
  return jnp.sum(wide(weights) * wide(streams.encoded), axis=-1)


def _sums(
  streams: TwoStreams, weights, contribution_map, logit, constant
) -> Explanation:
  space = tuple(range(logit.ndim, contribution_map.ndim))
  contribution = jnp.sum(contribution_map, axis=space)
  bias = jnp.asarray(streams.logit_bias, logit.dtype)
  constant = wide(constant) - wide(bias)
  return Explanation(
    weights=weights,
    encoded=streams.encoded,
    contribution_map=contribution_map,
    contribution=contribution,
    logit=logit,
    logit_bias=bias,
    constant=constant,
    completeness_error=wide(logit) - wide(bias) - constant - contribution,
  )


def _logits(outputs: Any, output: str) -> jax.Array:
  if isinstance(outputs, Mapping):
    if output not in outputs:
      raise ValueError(
        f'apply_fn has no output {output!r}; there are {", ".join(outputs)}.'
      )
    outputs = outputs[output]
  if getattr(outputs, 'ndim', None) != 2:
    raise ValueError(
      'apply_fn must return logits (N, K), but returns'
      f' {jax.tree.map(jnp.shape, outputs)}.'
    )
  return outputs


def _check_x(x: jax.Array) -> None:
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise TypeError(
      f'x must be of floats, got {x.dtype}: scale pictures to 0 … 1.'
    )
