r"""Which steps are stable.

Under the correction alone a singular value σ obeys, with h = learning_rate·γ,

    σ⁺ = σ − h σ (σ² − a)

which has fixed points 0 and ±√a. It converges to √a if and only if
κ = h·a < 1 and σ² < a + 2/h; it changes sign once if σ² > a + 1/h.

With momentum μ (which the published BortS applies to the correction too) there
is no closed form: the linear limit is κ < 1 + μ, or (1 + μ)/(1 + 2μ) with
Nesterov's form, and far starts may end in orbits that neither diverge nor
converge. The first rate at which some start does not converge is found by
iterating the scalar map over a grid.
"""

from typing import Any

import jax
import jax.numpy as jnp

from bort_jax.selection import AxesLike
from bort_jax.spectrum.measure import singular_values
from bort_jax.validation import check_momentum, check_number, is_zero

_TRIALS = 1024  # values of κ tried, 0.5 % apart
_STARTS = 64  # start values tried, up to the largest singular value
_STEPS = 1000  # what diverges has done so by then


def largest_safe_step(
  params: Any,
  gamma: jax.typing.ArrayLike,
  *,
  amplitude: jax.typing.ArrayLike = 1.0,
  momentum: jax.typing.ArrayLike = 0.0,
  nesterov: bool = False,
  axes: AxesLike = None,
) -> Any:
  r"""The learning rate up to which the correction of every weight converges.

  .. math::
    \eta_{max} = \frac{1}{\gamma}
      \min\left(\frac{1}{a}, \frac{2}{\sigma_{max}^2 - a}\right)

  and with momentum the largest rate below which every start up to σ_max
  converges, found by iterating the scalar map over a grid (to 0.5 %). It is the
  law of the mode ``l2-full`` without a gradient, for ``bort_sgd`` and, with no
  momentum, for the decoupled optimizers, whose momentum does not touch the
  correction.

  Args:
    params: a tree of parameters.
    gamma: γ, a number >= 0; 0 has no limit.
    amplitude: a, a number > 0.
    momentum: μ of ``bort_sgd``, in [0, 1).
    nesterov: whether it is Nesterov's.
    axes: which parameters are matrices, see :func:`bort_jax.bort`.

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

  return jax.tree.map(
    lambda values: safe_rate(
      jnp.max(values), gamma, amplitude, momentum, nesterov
    ),
    singular_values(params, axes=axes),
  )


def safe_rate(
  start: jax.Array,
  gamma: jax.typing.ArrayLike,
  amplitude: jax.typing.ArrayLike,
  momentum: jax.typing.ArrayLike,
  nesterov: bool,
) -> jax.Array:
  """:func:`largest_safe_step` for one singular value, row or column norm."""
  start = start / jnp.sqrt(amplitude)
  if is_zero(momentum):
    tiny = jnp.finfo(start.dtype).tiny
    kappa = jnp.minimum(1.0, 2 / jnp.maximum(start**2 - 1, tiny))
  else:
    kappa = _largest_safe_kappa(start, momentum, nesterov)
  return kappa / (gamma * jnp.asarray(amplitude, start.dtype))


@jax.jit(static_argnames='nesterov')
def _largest_safe_kappa(start, momentum, nesterov):
  """The last κ before the first that diverges from a start in (0, start].

  In units of √a the map is s ← s − b with b ← μb + κ(s³ − s). All its edges
  have κs² between 0.02 and 3.
  """
  limit = (1 + momentum) / (1 + 2 * momentum if nesterov else 1)
  scale = jnp.maximum(start, 1.0) ** 2
  kappa = jnp.geomspace(0.02, 3.0, _TRIALS)[None, :] / scale

  def step(_, state):
    s, buffer = state
    pull = kappa * (s**3 - s)
    buffer = momentum * buffer + pull
    s = s - (momentum * buffer + pull if nesterov else buffer)
    return jnp.clip(s, -1e9, 1e9), buffer

  starts = jnp.linspace(start / _STARTS, start, _STARTS)[:, None]
  s = jnp.broadcast_to(starts, (_STARTS, _TRIALS))
  s, buffer = jax.lax.fori_loop(0, _STEPS, step, (s, jnp.zeros_like(s)))
  # With momentum there are orbits that neither diverge nor converge. They keep
  # κs² of order one; a slow convergent start has left that range by now.
  near_one = (jnp.abs(s**2 - 1) < 0.1) & (buffer**2 < 0.01)
  slow = kappa * (s**2 + buffer**2) < 0.05
  safe = jnp.all(near_one | slow, axis=0) & (kappa[0] < limit)
  safe_and_all_below = jnp.cumprod(safe).astype(bool)
  return jnp.max(jnp.where(safe_and_all_below, kappa[0], 0.0))
