"""Convolutions of patches that do not overlap, as the products they are."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend import core

from bort_jax.loops import fast_order
from bort_jax.placement import has_explicit_axes
from bort_jax.rewriting import Replacement, rewritten


def as_products(function: Callable) -> Callable:
  """The same function, with some of its convolutions as products of matrices.

  They are the 1×1 ones, half the work of a ResNet-50, and those whose kernel is
  as large as its stride, as the patches of a ViT. XLA's CPU compiler takes 1.8
  to 7 times as long for the gradient of the kernel of a 1×1 convolution, and 28
  times for that of the pictures of a ViT
  (``experiments/benchmarks/convolutions.py``). Results differ by rounding.

  Args:
    function: of positional arguments, trees of arrays, to such; channels are
      the last axis of what is convolved, as in Flax.

  Returns:
    The function, which is traced at each call: use it under :func:`jax.jit`,
    and differentiate what comes out, since what was differentiated before has
    convolutions of other forms. Where JAX runs on other devices than CPUs, the
    function as it is. What is grouped, dilated, padded or sharded
    explicitly stays a convolution, as does what is mapped over devices inside.
    Policies of :func:`jax.checkpoint` meet products where convolutions were.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from bort_jax.products import as_products
    >>> def layer(kernel, x):
    ...   order = 'NHWC', 'HWIO', 'NHWC'
    ...   return jax.lax.conv_general_dilated(
    ...     x, kernel, (1, 1), 'VALID', dimension_numbers=order
    ...   )
    >>> kernel, x = jnp.ones((1, 1, 3, 2)), jnp.ones((4, 5, 5, 3))
    >>> jax.jit(as_products(layer))(kernel, x).shape
    (4, 5, 5, 2)
  """
  if jax.default_backend() != 'cpu':
    return function
  return rewritten(function, _as_product)


def _as_product(eqn: core.JaxprEqn) -> Replacement | None:
  if not _has_disjoint_patches(eqn):
    return None
  return functools.partial(_product, options=eqn.params)


def _has_disjoint_patches(eqn: core.JaxprEqn) -> bool:
  if eqn.primitive is not lax.conv_general_dilated_p:
    return False
  options, kernel = eqn.params, eqn.invars[1]
  *window, _, _ = kernel.aval.shape  # pyright: ignore
  strides = options['window_strides']
  return (
    options['dimension_numbers'] == fast_order(len(window) + 2)
    and (set(window) == {1} or tuple(window) == tuple(strides))
    and set(options['padding']) == {(0, 0)}
    and {*options['lhs_dilation'], *options['rhs_dilation']} == {1}
    and options['feature_group_count'] == options['batch_group_count'] == 1
    and options.get('out_sharding') is None
    and not any(map(_is_sharded, eqn.invars))
  )


def _is_sharded(var: Any) -> bool:
  return has_explicit_axes(var.aval.sharding)


def _product(
  x: jax.Array, kernel: jax.Array, options: dict[str, Any]
) -> jax.Array:
  *window, inputs, outputs = kernel.shape
  patches = _patches(x, window, options['window_strides'])
  places = patches.shape[: len(window) + 1]
  size = math.prod(window) * inputs
  product = lax.dot_general(
    patches.reshape(math.prod(places), size),
    kernel.reshape(size, outputs),
    (((1,), (0,)), ((), ())),
    options['precision'],
    options['preferred_element_type'],
  )
  return product.reshape(*places, outputs)


def _patches(
  x: jax.Array, window: Sequence[int], strides: Sequence[int]
) -> jax.Array:
  """(N, places …, window …, C) of pictures (N, H, …, C)."""
  if set(window) == {1}:
    x = x[(slice(None), *(slice(None, None, s) for s in strides))]
    return x.reshape(*x.shape[:-1], *window, x.shape[-1])
  places = [n // s for n, s in zip(x.shape[1:-1], strides, strict=True)]
  whole = [p * s for p, s in zip(places, strides, strict=True)]
  x = x[(slice(None), *map(slice, whole))]
  sides = [side for pair in zip(places, strides, strict=True) for side in pair]
  x = x.reshape(x.shape[0], *sides, x.shape[-1])
  rank = len(sides)
  return x.transpose(0, *range(1, rank, 2), *range(2, rank + 1, 2), rank + 1)
