r"""Which steps are stable.

Under the correction alone a singular value σ obeys, with h = learning_rate·γ,

    σ⁺ = σ − h σ (σ² − a)

which has fixed points 0 and ±√a. It converges to √a if and only if
κ = h·a < 1 and σ² < a + 2/h; it changes sign once if σ² > a + 1/h.

With momentum μ (which the published BortS applies to the correction too) the
fixed points ±√a are stable up to κ = 1 + μ, or (1 + μ)/(1 + 2μ) with
Nesterov's form. From afar there is no closed form: a start may end in an orbit
that neither diverges nor converges, and close to the edge the starts that fail
are scattered thinly among those that converge. The edge is found by iterating
the scalar map from many starts.

Corrected at one step of k, with k·γ (``every=k``), it is k·h that all this is
about without momentum. With it, the buffer of one correction has decayed by μᵏ
at the next, and the fixed points are stable up to

    k·κ = (1 + μᵏ) / (1 + μ + … + μᵏ⁻¹)

or, with Nesterov's form, (1 + μᵏ)/(1 + μ + … + μᵏ + μᵏ): the eigenvalues of
the linear map of k steps, of determinant μᵏ and (1 − 2k·κ)μᵏ, reach −1 there.
"""

from typing import Any

import jax
import jax.numpy as jnp

from bort_jax.norms import greatest
from bort_jax.selection import AxesLike
from bort_jax.spectrum.measure import singular_values
from bort_jax.turns import check_every
from bort_jax.validation import check_momentum, check_number, is_zero

_TRIALS = 64  # values of κ tried, over the whole range and again at the edge
_STARTS = 1024  # start values tried, from the smallest to the largest
_MARGIN = 0.95  # for the starts that fail between those tried


def largest_safe_step(
  params: Any,
  gamma: jax.typing.ArrayLike,
  *,
  amplitude: jax.typing.ArrayLike = 1.0,
  momentum: jax.typing.ArrayLike = 0.0,
  nesterov: bool = False,
  axes: AxesLike = None,
  every: int | None = None,
) -> Any:
  r"""The learning rate up to which the correction of every weight converges.

  .. math::
    \eta_{max} = \frac{1}{k\gamma}
      \min\left(\frac{1}{a}, \frac{2}{\sigma_{max}^2 - a}\right)

  k being ``every`` or one, and with momentum 0.95 times the rate at which the
  first of many starts between the parameter's σ_min and σ_max does not
  converge. That is an estimate with a margin, not a law: in 64 settings with μ
  from 0.1 to 0.99, none of 20,000 random starts failed at or below it; the
  first did at 1.02 times it.

  It is for the mode ``l2-full`` without a gradient, of ``bort_sgd`` and, with
  no momentum, of the decoupled optimizers, whose momentum does not touch the
  correction.

  Args:
    params: a tree of parameters.
    gamma: γ, a number >= 0; 0 has no limit.
    amplitude: a, a number > 0.
    momentum: μ of ``bort_sgd``, in [0, 1).
    nesterov: whether it is Nesterov's.
    axes: which parameters are matrices, see :func:`bort_jax.bort`.
    every: k, likewise.

  Returns:
    A tree like ``params`` of float scalars; None for the parameters that are no
    matrices.

  Raises:
    TypeError, ValueError: for axes that do not fit, see :func:`bort_jax.bort`,
      or numbers outside their range.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import spectrum
    >>> params = {'kernel': 3.0 * jnp.eye(2)}
    >>> spectrum.largest_safe_step(params, gamma=0.5)  # 2 / (9 - 1) / 0.5
    {'kernel': Array(0.5, dtype=float32)}
  """
  check_number('gamma', gamma)
  check_number('amplitude', amplitude, positive=True)
  check_momentum(momentum)
  check_every(every)

  return jax.tree.map(
    lambda values: safe_rate(
      *value_range(values), gamma, amplitude, momentum, nesterov, every or 1
    ),
    singular_values(params, axes=axes),
  )


def value_range(values: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The smallest and the largest of some values >= 0; zero for none."""
  largest = greatest(values)
  return jnp.min(values, initial=largest), largest


def safe_rate(
  smallest: jax.Array,
  largest: jax.Array,
  gamma: jax.typing.ArrayLike,
  amplitude: jax.typing.ArrayLike,
  momentum: jax.typing.ArrayLike,
  nesterov: bool,
  every: int,
) -> jax.Array:
  """:func:`largest_safe_step` for singular values, row or column norms."""
  unit = jnp.sqrt(jnp.asarray(amplitude, largest.dtype))
  smallest, largest = smallest / unit, largest / unit
  if is_zero(momentum):
    tiny = jnp.finfo(largest.dtype).tiny
    kappa = jnp.minimum(1.0, 2 / jnp.maximum(largest**2 - 1, tiny))
  else:
    kappa = _largest_safe_kappa(smallest, largest, momentum, nesterov, every)
  return kappa / (every * gamma * unit**2)


def stable_kappa(
  momentum: jax.typing.ArrayLike, nesterov: bool, every: int
) -> jax.typing.ArrayLike:
  """The k·κ from which on the fixed points ±√a themselves are unstable."""
  left = momentum**every
  passed_on = sum(momentum**step for step in range(every))
  return (1 + left) / (passed_on + 2 * left if nesterov else passed_on)


@jax.jit(static_argnames=('nesterov', 'every'))
def _largest_safe_kappa(smallest, largest, momentum, nesterov, every):
  """In units of √a: the map is s ← s − b with b ← μb + κ(s³ − s).

  κ, here that of one correction, is zero at all steps but one in ``every``.

  Whatever fails does so at κs² < 3.
  """
  shares = jnp.arange(_STARTS, dtype=largest.dtype)[:, None] / (_STARTS - 1)
  starts = smallest + (largest - smallest) * shares
  starts = jnp.maximum(starts, largest / _STARTS)  # zero is a fixed point too
  last = jnp.minimum(stable_kappa(momentum, nesterov, every), 3 / largest**2)
  first_failing = lambda shares: _first_failing(
    (last * shares[None, :]).astype(starts.dtype),
    starts,
    momentum,
    nesterov,
    every,
  )
  last = first_failing(jnp.geomspace(0.02, 1.0, _TRIALS))
  return _MARGIN * first_failing(jnp.linspace(0.8, 1.0, _TRIALS))


def _first_failing(kappa, starts, momentum, nesterov, every):
  """The first κ from which some start does not converge, or the last tried."""

  def step(count, state):
    s, buffer = state
    pull = jnp.where(count % every == 0, kappa * (s**3 - s), 0)
    buffer = momentum * buffer + pull
    s = s - (momentum * buffer + pull if nesterov else buffer)
    return jnp.clip(s, -1e9, 1e9), buffer

  momentum = jnp.asarray(momentum, starts.dtype)
  s = jnp.broadcast_to(starts, (starts.shape[0], kappa.shape[1]))
  num_steps = jnp.minimum(500 * every + 8 / (1 - momentum), 10_000).astype(int)
  s, buffer = jax.lax.fori_loop(0, num_steps, step, (s, jnp.zeros_like(s)))
  # With momentum there are orbits that neither diverge nor converge. They keep
  # κs² of order one; a slow convergent start has left that range by now.
  near_one = (jnp.abs(s**2 - 1) < 0.1) & (buffer**2 < 0.01)
  slow = kappa * (s**2 + buffer**2) < 0.05
  safe = jnp.all(near_one | slow, axis=0)
  return jnp.min(jnp.where(safe, kappa[0, -1], kappa[0]))
