"""What a group that moves pictures does to one layer, in constant memory."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax import symmetry
from bort_jax.metrics.checks import wide
from bort_jax.metrics.errors import MetricError
from bort_jax.symmetry import Group
from bort_jax.validation import is_known


class Equivariance(NamedTuple):
  """How wrong four guesses of a layer φ of moved pictures are.

  Each is E‖φ(g x) − guess‖² / E‖φ(g x)‖² over the pictures that no map was
  fitted on, a number for each element g of the group.
  """

  natural: jax.Array  # (order,) the map φ(x) moved as the picture is
  fitted: jax.Array  # (order,) moved, its channels mixed by the best matrix
  invariance: jax.Array  # (order,) φ(x) as it is
  mixed: jax.Array  # (order,) not moved, its channels mixed by the best matrix
  chance: jax.Array  # (order,) φ of another picture: what knows nothing of x


class _Guess(NamedTuple):
  """Sums of the residual r = φ(g x) − u of a guess u, for each element."""

  error: jax.Array  # (order,) Σ ‖r‖² of measured pictures
  to_fit: jax.Array  # (order, C, C) Σ r uᵀ over the places of fitted ones
  to_measure: jax.Array  # (order, C, C) the same of measured ones


class GroupTransport(NamedTuple):
  """What is kept of the pictures seen so far: nothing grows with their number.

  Best matrices are fitted on the first, third, … picture of each batch and
  judged on the others. For both the second moments are enough: order × C²
  numbers, C the channels, and order means of a layer's size. What is fitted is
  what the plain guess leaves, so an error of almost zero keeps its digits.
  """

  count: jax.Array  # () int, measured pictures
  plain: jax.Array  # (F,) Σ φ(x) of measured pictures
  moved: jax.Array  # (order, F) Σ φ(g x) of measured ones
  energy: jax.Array  # (order,) Σ ‖φ(g x)‖² of measured ones
  plain_energy: jax.Array  # () Σ ‖φ(x)‖² of measured ones
  gram_to_fit: jax.Array  # (C, C) Σ φ φᵀ over the places of fitted ones
  gram_to_measure: jax.Array  # (C, C) of measured ones
  natural: _Guess | None  # None if the group cannot act on such maps
  still: _Guess

  @classmethod
  def start(
    cls, group: Group, like: jax.ShapeDtypeStruct | jax.Array
  ) -> 'GroupTransport':
    """Before any picture.

    Args:
      group: the group.
      like: shape (N, D) or (N, h, w, C) and dtype of the layer's output.

    Returns:
      The state.

    Raises:
      MetricError: for outputs of other shapes.
    """
    if len(like.shape) not in (2, 4):
      raise MetricError(
        'Equivariance is of layers (N, D) or (N, h, w, C), got'
        f' {list(like.shape)}. Reshape the output in apply_fn: tokens to the'
        ' grid they lie on.'
      )
    dtype = wide(like.dtype)
    channels = like.shape[-1]
    size = like.size // like.shape[0]
    zeros = lambda *shape: jnp.zeros(shape, dtype)
    order = group.order
    square = zeros(channels, channels)
    guess = _Guess(
      zeros(order),
      zeros(order, channels, channels),
      zeros(order, channels, channels),
    )
    return cls(
      jnp.zeros((), int),
      zeros(size),
      zeros(order, size),
      zeros(order),
      zeros(),
      square,
      square,
      guess if _acts(group, like.shape) else None,
      guess,
    )

  def add(
    self, group: Group, element: ArrayLike, plain: jax.Array, moved: jax.Array
  ) -> 'GroupTransport':
    """After the outputs for some pictures moved by one element.

    Give every element once for each batch; with 0, the identity, what is known
    of the plain outputs is kept too.

    Args:
      group: the group.
      element: g, its number.
      plain: φ(x), as :meth:`start` was told.
      moved: φ(g x), of the same shape.

    Returns:
      The state; jits.
    """
    plain, moved = (a.astype(self.energy.dtype) for a in (plain, moved))
    measure = (jnp.arange(len(plain)) % 2).astype(plain.dtype)
    fit = 1 - measure
    natural = self.natural
    if natural is not None:
      guess = plain if plain.ndim == 2 else symmetry.act(group, element, plain)
      natural = _added(natural, guess, moved, fit, measure, element)
    is_first = jnp.asarray(element) == 0
    once = lambda total, new: total + jnp.where(is_first, new, 0)
    return GroupTransport(
      count=once(self.count, len(plain) // 2),
      plain=once(self.plain, _total(plain, measure)),
      moved=self.moved.at[element].add(_total(moved, measure)),
      energy=self.energy.at[element].add(_energy(moved, measure)),
      plain_energy=once(self.plain_energy, _energy(plain, measure)),
      gram_to_fit=once(self.gram_to_fit, _product(plain, plain, fit)),
      gram_to_measure=once(
        self.gram_to_measure, _product(plain, plain, measure)
      ),
      natural=natural,
      still=_added(self.still, plain, moved, fit, measure, element),
    )

  def result(self, *, ridge: float = 1e-6) -> Equivariance:
    """The errors over all measured pictures so far.

    Args:
      ridge: what is added to the moments that are solved with, as a share of
        their mean eigenvalue, ≥ 0; at least ten times their rounding.

    Returns:
      The errors; NaN where there is no natural action, of a layer that is
      zero, and for the chance of a single measured picture.

    Raises:
      MetricError: if there were no pictures to measure. Under jit all is NaN
        then.
    """
    if is_known(self.count) and self.count < 1:
      raise MetricError(
        'Maps are fitted on every second picture of a batch and judged on the'
        ' others: give batches of two pictures or more.'
      )
    return _errors(self, ridge)


@jax.jit
def _errors(transport: GroupTransport, ridge: jax.Array) -> Equivariance:
  natural, still = transport.natural, transport.still
  both = transport.energy + transport.plain_energy
  own = (both - still.error) / 2  # Σ φ(g x) · φ(x) of the same picture
  every = jnp.sum(transport.moved * transport.plain[None], axis=1)
  others = jnp.where(transport.count > 1, transport.count - 1, jnp.nan)
  chance = both - 2 * (every - own) / others
  undefined = jnp.full_like(transport.energy, jnp.nan)
  found = Equivariance(
    undefined if natural is None else natural.error,
    undefined if natural is None else _after_fit(transport, natural, ridge),
    still.error,
    _after_fit(transport, still, ridge),
    chance,
  )
  energy = jnp.where(transport.energy > 0, transport.energy, jnp.nan)
  return Equivariance(*(error / energy for error in found))


def _after_fit(
  transport: GroupTransport, guess: _Guess, ridge: jax.Array
) -> jax.Array:
  """(order,) Σ ‖r − Δ u‖² for the Δ that is best on the fitted half."""
  gram = transport.gram_to_fit
  channels = len(gram)
  # Less than the rounding of the moments would solve for their rounding.
  least = 10 * jnp.finfo(gram.dtype).eps
  share = jnp.maximum(ridge / channels, least)
  loaded = gram + share * jnp.trace(gram) * jnp.eye(channels, dtype=gram.dtype)
  # One decomposition for all elements: the moments of u do not depend on g.
  factor = jax.scipy.linalg.cho_factor(loaded)
  right = guess.to_fit.reshape(-1, channels).T
  change = jax.scipy.linalg.cho_solve(factor, right).T
  change = change.reshape(guess.to_fit.shape)
  cross = jnp.sum(change * guess.to_measure, axis=(1, 2))
  spread = jnp.matmul(
    change, transport.gram_to_measure, precision=jax.lax.Precision.HIGHEST
  )
  squares = jnp.sum(spread * change, axis=(1, 2))
  return jnp.maximum(guess.error - 2 * cross + squares, 0)


def _acts(group: Group, shape: Sequence[int]) -> bool:
  """Whether the group can move a layer's maps; (N, D) stays as it is."""
  try:
    return len(shape) == 2 or group.places(*shape[1:3]) is not None
  except symmetry.SymmetryError:
    return False


def _added(
  guess: _Guess,
  u: jax.Array,
  moved: jax.Array,
  fit: jax.Array,
  measure: jax.Array,
  element: ArrayLike,
) -> _Guess:
  left = moved - u
  at = lambda total, new: total.at[element].add(new)
  return _Guess(
    at(guess.error, _energy(left, measure)),
    at(guess.to_fit, _product(left, u, fit)),
    at(guess.to_measure, _product(left, u, measure)),
  )


def _product(a: jax.Array, b: jax.Array, share: jax.Array) -> jax.Array:
  """(C, C) Σ a bᵀ over places and the pictures that count."""
  return jnp.einsum(
    'n...i,n...j,n->ij', a, b, share, precision=jax.lax.Precision.HIGHEST
  )


def _energy(a: jax.Array, share: jax.Array) -> jax.Array:
  return jnp.sum(share * jnp.sum(a.reshape(len(a), -1) ** 2, axis=1))


def _total(a: jax.Array, share: jax.Array) -> jax.Array:
  return jnp.sum(share[:, None] * a.reshape(len(a), -1), axis=0)
