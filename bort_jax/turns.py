"""Whose turn it is: each matrix corrected at one step of several."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bort_jax.selection import AxesLike, matrix_views, path_name
from bort_jax.validation import check_steps, is_known


def check_every(every: Any) -> None:
  """Refuses what is neither None nor a known integer of at least 1."""
  if every is None:
    return
  if not is_known(every):
    raise ValueError(
      'every must be a number known before anything is traced: under'
      ' optax.inject_hyperparams name it in static_args.'
    )
  check_steps('every', every)


def take_turns(
  axes: AxesLike,
  tree: Any,
  every: int | None,
  count: Any,
) -> Any:
  """Which matrices are corrected at a step.

  They are dealt out by what their correction costs, the largest first, each to
  the step of the period with the least to do: no step costs more than a mean
  step and the most expensive matrix.

  Args:
    axes: which parameters are matrices, see :func:`bort_jax.bort`.
    tree: parameters, or anything of their structure and shapes.
    every: steps in a period; None corrects all at every step.
    count: the step, from 0.

  Returns:
    A tree like ``tree`` of booleans; False where a parameter is no matrix.

  Raises:
    TypeError, ValueError: for axes that do not fit.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.turns import take_turns
    >>> params = {name: {'kernel': jnp.eye(2)} for name in 'abc'}
    >>> [take_turns(None, params, 2, step)['b']['kernel'] for step in (0, 1, 2)]
    [False, True, False]
  """
  views = matrix_views(axes, tree, required=False)
  work = np.zeros(every or 1)
  turns = {}
  for path in sorted(views, key=lambda path: -views[path].products):
    turns[path] = int(work.argmin())
    work[turns[path]] += views[path].products

  def is_turn(path, leaf):
    del leaf
    turn = turns.get(path_name(path))
    return turn is not None and (every is None or count % every == turn)

  return jax.tree_util.tree_map_with_path(is_turn, tree)


def in_turn(
  is_turn: jax.typing.ArrayLike,
  correct: Callable[..., jax.Array],
  leave: Callable[..., jax.Array],
  *args: Any,
) -> jax.Array:
  """``correct(*args)`` at a matrix's turn, else ``leave(*args)``.

  The device decides, and computes only what is asked for, except under ``vmap``
  with another step for each network.
  """
  if is_turn is True:
    return correct(*args)
  return jax.lax.cond(is_turn, correct, leave, *args)
