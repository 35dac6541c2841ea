"""A Flax module as a pure function of its parameters."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx


def functional(
  model: nnx.Module, method: str | None = None
) -> tuple[Callable[[Any, jax.Array], Any], nnx.State]:
  """Splits a module into ``apply_fn(params, x)`` and its parameters.

  Args:
    model: the module; it is not changed, and later changes to it do not show.
    method: the method to call; by default ``__call__``.

  Returns:
    The pure function and its parameters: everything the module holds (also
    running statistics) but its random state.

  Raises:
    AttributeError: if the module has no such method.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax import nn
    >>> apply_fn, params = nn.functional(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    >>> jax.jit(apply_fn)(params, jnp.ones((5, 3))).shape
    (5, 2)
  """
  name = method or '__call__'
  if not hasattr(model, name):
    raise AttributeError(f'{type(model).__name__} has no method {name!r}.')
  graphdef, randomness, params = nnx.split(model, nnx.RngState, ...)

  def apply_fn(params, x):
    # copy: in training mode the module changes what it holds
    module = nnx.merge(graphdef, randomness, params, copy=True)
    return getattr(module, name)(x)

  return apply_fn, params
