"""Pictures moved by one element of a group, or by all."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bort_jax.symmetry.errors import SymmetryError
from bort_jax.symmetry.groups import Group
from bort_jax.validation import is_integer, is_known


def act(group: Group, element: ArrayLike, x: ArrayLike) -> jax.Array:
  """Pictures moved by an element of a group; every number stays what it is.

  Args:
    group: the group.
    element: its number, 0 … order − 1, for all pictures; it may be traced.
    x: pictures or feature maps (..., H, W, C), of any dtype.

  Returns:
    The moved ones, of the same shape and dtype. Under jit an element that does
    not exist gives the nearest one that does.

  Raises:
    SymmetryError: if there is no such element, or the group cannot act on such
      pictures.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import symmetry
    >>> x = jnp.array([[1, 2], [3, 4]])[..., None]
    >>> symmetry.act(symmetry.C4, 1, x)[..., 0].tolist()
    [[2, 4], [1, 3]]
  """
  x = _checked(x)
  if is_known(element):
    _check_element(group, element)
  places = jnp.asarray(group.places(*x.shape[-3:-1]))
  chosen = places[jnp.clip(jnp.asarray(element), 0, group.order - 1)]
  return jnp.take(_flat(x), chosen, axis=-2).reshape(x.shape)


def orbit(group: Group, x: ArrayLike) -> jax.Array:
  """Pictures moved by every element of a group.

  Args:
    group: the group.
    x: pictures or feature maps (..., H, W, C), of any dtype.

  Returns:
    (order, ..., H, W, C).

  Raises:
    SymmetryError: if the group cannot act on such pictures.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import symmetry
    >>> symmetry.orbit(symmetry.Shifts(1, 3), jnp.ones((2, 4, 6, 1))).shape
    (3, 2, 4, 6, 1)
  """
  x = _checked(x)
  places = group.places(*x.shape[-3:-1])
  moved = jnp.take(_flat(x), places, axis=-2)  # (..., order, H·W, C)
  moved = jnp.moveaxis(moved, -3, 0)
  return moved.reshape(group.order, *x.shape)


def _checked(x: ArrayLike) -> jax.Array:
  x = jnp.asarray(x)
  if x.ndim < 3:
    raise SymmetryError(
      f'x must be pictures (..., H, W, C), got shape {x.shape}: add an axis for'
      ' the channels.'
    )
  return x


def _flat(x: jax.Array) -> jax.Array:
  """(..., H·W, C)."""
  height, width, channels = x.shape[-3:]
  return x.reshape(*x.shape[:-3], height * width, channels)


def _check_element(group: Group, element: ArrayLike) -> None:
  is_one = is_integer(element) and jnp.ndim(element) == 0
  is_whole = is_one and jnp.issubdtype(jnp.result_type(element), jnp.integer)
  if is_whole and 0 <= int(element) < group.order:  # pyright: ignore[reportArgumentType]
    return
  raise SymmetryError(
    f'element must be an integer 0 … {group.order - 1}, one of'
    f' {", ".join(group.elements[:8])}{" …" if group.order > 8 else ""}, got'
    f' {element!r}. For several, use jax.vmap, or symmetry.orbit for all.'
  )
