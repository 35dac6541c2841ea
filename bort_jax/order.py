"""In which order matrices are worked on: few at once, so that memory is."""

from collections.abc import Callable, Iterable

import jax

from bort_jax.matrices import MatrixView


class FewAtOnce:
  """Lets begin together what needs no more than the largest matrix alone.

  Without an order a compiler may begin with every Gram matrix, and XLA's for
  CPUs does: a copy of the whole tree is alive at once. Small matrices still
  begin together, so that cores, and the sums over devices, are not idle.

  On CPUs it takes effect from jax 0.12 on: before, XLA dropped barriers before
  it decided the order.

  Args:
    views: all the matrices.
  """

  def __init__(self, views: Iterable[MatrixView]):
    self._room = max((view.entries_at_work for view in views), default=0)
    self._used = 0
    self._before: list[jax.Array] = []
    self._now: list[jax.Array] = []

  def __call__(
    self,
    work: Callable[[jax.Array], jax.Array],
    view: MatrixView,
    w: jax.Array,
  ) -> jax.Array:
    """``work(w)``, begun when what was begun before it is done."""
    self._used += view.entries_at_work
    if self._used > self._room:
      self._used = view.entries_at_work
      self._before, self._now = self._now, []
    if self._before:
      w, _ = jax.lax.optimization_barrier((w, self._before))
    self._now.append(work(w))
    return self._now[-1]
