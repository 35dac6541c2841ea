"""What is dynamic in a network, and the network with that held.

A B-cos network is linear in its input but for some numbers computed from the
input: the scales of B-cos layers, the variances of norms, the queries and keys
of attention. The layers name these numbers with :func:`dynamic`, which changes
no value and no derivative. :func:`two_streams` is a transformation of
functions, as ``jax.grad`` is one: it reads the operations of a network, runs
them once on x, and gives the affine function that runs them again on another
input, with every number that is named as it was at x. So a network is written
once; there is no mode to switch, nothing to detach and nothing to restore; and
since what is held are ordinary values of x and the parameters, everything can
be differentiated, through the dynamic numbers too. (With ``stop_gradient`` in
their place, the gradient of an explanation with respect to parameters would
miss that part and be wrong.)

What chooses among inputs is held without a name: comparisons and other results
that are not floats, such as the unit that MaxOut picks; and maxima, minima and
ReLUs, which are taken as the linear functions that they are around x. So
networks that are linear by pieces have an exact affine form too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from bort_jax.nn.bcos.tape import Tape


class TwoStreams(NamedTuple):
  """A function at one input, and as an affine function of another.

  Attributes:
    output: what the function returns.
    encoded: the input of the affine function at x: the array that
      :class:`AddInverse` made in the function, or x where there is none.
    logit_bias: what :class:`LogitLayer` adds to the logits, or 0.0.
    linear: from an array like ``encoded`` to what the function would return if
      everything dynamic stayed as it is; ``linear(encoded)`` is ``output``.
  """

  output: Any
  encoded: jax.Array
  logit_bias: jax.Array | float
  linear: Callable[[jax.Array], Any]


def two_streams(
  apply_fn: Callable[[Any, jax.Array], Any], params: Any, x: jax.Array
) -> TwoStreams:
  """Separates what is dynamic in a function from what is linear.

  Args:
    apply_fn: function of parameters and input, made of the layers of
      :mod:`bort_jax.nn.bcos` or with :func:`dynamic` in it. Jitted functions,
      loops by ``jax.lax.scan`` and rematerialized parts may be inside it.
    params: its parameters.
    x: its input.

  Returns:
    The function's output and its affine form.

  Raises:
    ValueError: if several inputs are encoded in it, or something is named
      inside a control flow other than a scan.

  Examples:
    The affine form is exact, and may be differentiated like any function:

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax import nn
    >>> layer = nn.bcos.BcosDense(3, 2, rngs=nnx.Rngs(0))
    >>> x = jnp.array([[1.0, -2.0, 3.0]])
    >>> streams = nn.bcos.two_streams(*nn.functional(layer), x)
    >>> bool((streams.linear(x) == layer(x)).all())
    True
    >>> jnp.allclose(streams.linear(2 * x), 2 * layer(x)).item()
    True
  """
  closed, shape = jax.make_jaxpr(apply_fn, return_shape=True)(params, x)
  tape = Tape()
  args = [tape.node(leaf) for leaf in (*jax.tree.leaves(params), x)]
  outs = tape.run(closed.jaxpr, closed.consts, args)
  if len(tape.encoded) > 1:
    raise ValueError(
      f'{len(tape.encoded)} inputs are encoded in apply_fn, so it is not a'
      ' function of one: encode once, before everything else.'
    )
  (start,) = tape.encoded or args[-1:]
  steps = tape.needed(outs)
  structure = jax.tree.structure(shape)

  def linear(v: jax.Array) -> Any:
    return jax.tree.unflatten(structure, tape.replay(steps, start, v, outs))

  return TwoStreams(
    output=jax.tree.unflatten(structure, [tape.values[n] for n in outs]),
    encoded=tape.values[start],
    logit_bias=sum(tape.logit_biases),
    linear=linear,
  )
