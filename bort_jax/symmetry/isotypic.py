"""Pictures taken apart into their symmetry components."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.symmetry.actions import orbit
from bort_jax.symmetry.errors import SymmetryError
from bort_jax.symmetry.groups import Group


def split(group: Group, x: ArrayLike) -> jax.Array:
  """The isotypic components of pictures: one for each irreducible character.

  P_k x = d_k/|G| Σ_g χ_k(g) g x. The parts are orthogonal to each other, move
  with the picture (P_k g x = g P_k x), and add up to it: :func:`join` undoes
  the split exactly. The first part is the average over the group.

  Args:
    group: the group.
    x: floats (..., H, W, C).

  Returns:
    (components, ..., H, W, C) of the same dtype, computed in float32 or wider.

  Raises:
    SymmetryError: if the group cannot act on such pictures, or they are no
      floats.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import symmetry
    >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]])[..., None]
    >>> symmetry.split(symmetry.C4, x)[..., 0].tolist()[0]
    [[2.5, 2.5], [2.5, 2.5]]

  References:
    Serre, *Linear Representations of Finite Groups*, 1977, section 2.6
  """
  x = jnp.asarray(x)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise SymmetryError(
      f'x must be floats, got {x.dtype}: convert pictures to 0 … 1 first.'
    )
  wide = jnp.promote_types(x.dtype, jnp.float32)
  parts = mix(group, orbit(group, x.astype(wide)))
  return parts.astype(x.dtype)


def join(parts: ArrayLike) -> jax.Array:
  """Pictures of their symmetry components: what :func:`split` took apart.

  Args:
    parts: (components, ..., H, W, C), or some of the components alone.

  Returns:
    (..., H, W, C), their sum.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import symmetry
    >>> x = jnp.arange(18.0).reshape(1, 3, 3, 2)
    >>> bool(jnp.allclose(symmetry.join(symmetry.split(symmetry.D4, x)), x))
    True
  """
  return jnp.sum(jnp.asarray(parts), axis=0)


def mix(group: Group, stack: jax.Array) -> jax.Array:
  """The components (components, ...) of values on a group (order, ...)."""
  weights = jnp.asarray(group.weights, stack.dtype)
  return jnp.tensordot(
    weights, stack, axes=1, precision=jax.lax.Precision.HIGHEST
  )
