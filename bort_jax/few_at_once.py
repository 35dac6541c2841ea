"""In which order matrices are worked on: few at once, for little memory."""

from collections.abc import Callable, Mapping

import jax
from jax.core import Tracer

from bort_jax.matrices import MatrixView


class FewAtOnce:
  """Lets begin together what needs no more than the largest matrix alone.

  Left to itself a compiler may begin with all Gram matrices, and finish when
  all products are there: XLA's for CPUs does, and a copy of the whole tree is
  alive then. Small matrices still go together, so that cores are not idle. On
  other devices and outside of compiled functions nothing waits: schedulers
  there mind the memory, and sums over devices, which an order would keep apart,
  are joined. Where XLA drops barriers before it decides the order, as for CPUs
  before jax 0.12, all this changes nothing.

  Args:
    views: all the matrices that will be worked on, by path.

  Examples:
    >>> import jax.numpy as jnp
    >>> import bort_jax
    >>> from bort_jax.matrices import MatrixView
    >>> from bort_jax.few_at_once import FewAtOnce
    >>> view = MatrixView((2, 2), bort_jax.MatrixAxes(0, 1))
    >>> few_at_once = FewAtOnce({'first': view, 'second': view})
    >>> for w in (jnp.eye(2), 2 * jnp.eye(2)):
    ...   print(few_at_once(jnp.trace, view, w))
    2.0
    4.0
  """

  def __init__(self, views: Mapping[str, MatrixView]):
    needs = (view.entries_at_work for view in views.values())
    self._on_cpu = jax.default_backend() == 'cpu'
    self._room = max(needs, default=0)
    self._used = 0
    self._before: list[jax.Array] = []
    self._now: list[jax.Array] = []

  def __call__(
    self,
    work: Callable[[jax.Array], jax.Array],
    view: MatrixView,
    w: jax.Array,
  ) -> jax.Array:
    """``work(w)``, begun when what there was no room beside is done."""
    self._used += view.entries_at_work
    if self._used > self._room:
      self._used = view.entries_at_work
      self._before, self._now = self._now, []
    if self._before and self._on_cpu and isinstance(w, Tracer):
      w, _ = jax.lax.optimization_barrier((w, self._before))
    self._now.append(work(w))
    return self._now[-1]
