"""Whether the layers of a network move as its pictures do."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax import loops, symmetry
from bort_jax.inversion import Layer
from bort_jax.metrics.checks import check_hashable, checked_pictures
from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.group_transport import (
  Equivariance,
  GroupTransport,
)
from bort_jax.metrics.layer_outputs import checked_layers, outputs_of
from bort_jax.symmetry import Group
from bort_jax.validation import check_number


def equivariance(
  apply_fn: Callable[[Any, jax.Array], Any],
  params: Any,
  batches: Iterable[ArrayLike],
  *,
  group: Group,
  layers: Sequence[Layer],
  ridge: float = 1e-6,
) -> dict[Layer, Equivariance]:
  """How well each layer of moved pictures is foretold from that of plain ones.

  Four guesses of φ(g x), see :class:`Equivariance`: φ(x) moved like the
  picture, which is exact where the layer is equivariant on the grid; the same
  with its channels mixed by the best C × C matrix, exact also where the group
  permutes filters; φ(x) itself, exact where the layer is invariant; and that
  with its channels mixed. Of a layer (N, D), which has no places, the best
  matrix is any D × D. Matrices are fitted on every second picture of a batch
  and judged on the others, so a layer with more channels than pictures gains
  nothing by chance: give several times as many. Maps whose sides the group
  cannot act on have no natural action: NaN.

  One pass over a stream; what is kept does not grow with the number of
  pictures, see :class:`GroupTransport`. Everything runs once for every element
  of the group. How the paper measured the equivariance of AlexNet is not
  public; this is our reading, after Lenc and Vedaldi.

  Args:
    apply_fn: a function of parameters and pictures, see
      :func:`bort_jax.inversion.until`.
    params: its parameters.
    batches: pictures (N, H, W, C), floats, two or more of them.
    group: the group, as :data:`bort_jax.symmetry.D4`.
    layers: names of outputs (N, D) or (N, h, w, C), or numbers of segments.
    ridge: what is added to the moments that are solved with, as a share of
      their mean eigenvalue, ≥ 0.

  Returns:
    The errors by layer, in order.

  Raises:
    MetricError: if there are fewer than two pictures, layers are named twice or
      have another shape.
    InversionError: if there is no such layer.
    SymmetryError: if the group cannot act on the pictures.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from bort_jax import metrics, symmetry
    >>> outputs = lambda params, x: {'even': x**2, 'mean': x.mean((1, 2))}
    >>> x = jax.random.normal(jax.random.key(0), (6, 4, 4, 2))
    >>> found = metrics.equivariance(
    ...   outputs, None, [x], group=symmetry.C4, layers=['even', 'mean']
    ... )
    >>> bool(found['even'].natural.max() < 1e-6)
    True
    >>> bool(found['mean'].invariance.max() < 1e-6)
    True

  References:
    Lenc, Vedaldi, `Understanding image representations by measuring their
    equivariance and equivalence <https://arxiv.org/abs/1411.5908>`_, 2015

    Manaswini, Bhatt, `Towards glass-box CNNs
    <https://arxiv.org/abs/2101.10443>`_, 2022
  """
  check_hashable('apply_fn', apply_fn)
  check_number('ridge', ridge)
  layers = checked_layers(layers)
  transports: tuple[GroupTransport, ...] = ()
  for given in batches:
    x = checked_pictures(given)
    plain = _outputs(apply_fn, layers, params, x)
    if not transports:
      transports = tuple(GroupTransport.start(group, out) for out in plain)
    transports = _added(apply_fn, layers, group, params, x, plain, transports)
  if not transports:
    raise MetricError('batches has nothing in it: give at least one.')
  found = (transport.result(ridge=ridge) for transport in transports)
  return dict(zip(layers, found, strict=True))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _outputs(apply_fn, layers, params, x):
  return outputs_of(apply_fn, layers, params, x)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _added(apply_fn, layers, group, params, x, plain, transports):
  """After a batch, moved by one element after another."""

  def add(transports, element):
    x_moved = symmetry.act(group, element, x)
    moved = outputs_of(apply_fn, layers, params, x_moved)
    return tuple(
      transport.add(group, element, one, other)
      for transport, one, other in zip(transports, plain, moved, strict=True)
    ), None

  return loops.scan(add, transports, jnp.arange(group.order))[0]
