"""What a group makes of the features of a picture."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from bort_jax import symmetry
from bort_jax.nn.glassbox.errors import GlassBoxError
from bort_jax.symmetry import Group
from bort_jax.symmetry.isotypic import mix

Part: TypeAlias = Literal['plain', 'average', 'maximum', 'orbit', 'isotypic']
Features: TypeAlias = Callable[[Any, jax.Array], jax.Array]


def represent(
  features: Features, params: Any, x: jax.Array, *, group: Group, part: Part
) -> jax.Array:
  """The features φ of a picture and of all its moved copies, as one of these.

  - ``'average'``: (1/|G|) Σ_g φ(g x), the Reynolds operator: invariant.
  - ``'maximum'``: max_g φ(g x), number by number: invariant.
  - ``'orbit'``: all φ(g x), as channels: moving the picture by h permutes them,
    the copy of g becomes that of g h.
  - ``'isotypic'``: d_k/|G| Σ_g χ_k(g) φ(g x) for each component k, as channels.
    They add up to φ(x), and the first is the average. Of pixels, and wherever
    φ(g x) = g φ(x), they are orthogonal and move with the picture.
  - ``'plain'``: φ(x), without the group: the control.

  All hold for any function φ, exactly but for the rounding of sums. Of pixels,
  orbit and isotypic parts keep all distances (times √|G|, and as they are): no
  classifier of distances gains by them.

  The paper's abstract names group-invariant class information and
  group-equivariant transformations; which groups and which maps it takes is not
  public. This is our reading.

  Args:
    features: φ, ``features(params, x)`` returns (N, ..., C), each row of its
      picture alone; see :func:`pixels` and :class:`CosineBank`.
    params: its parameters.
    x: pictures (N, H, W, channels), floats.
    group: the group.
    part: which of the above.

  Returns:
    (N, ..., C), for ``'orbit'`` (N, ..., order·C) and for ``'isotypic'`` (N,
    ..., components·C), elements and components before channels.

  Raises:
    GlassBoxError: for another part, or features that are no rows of floats.
    SymmetryError: if the group cannot act on the pictures.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax import symmetry
    >>> from bort_jax.nn import glassbox
    >>> x = jnp.array([[1.0, 2.0], [3.0, 6.0]]).reshape(1, 2, 2, 1)
    >>> options = {'group': symmetry.C4, 'part': 'average'}
    >>> code = glassbox.represent(glassbox.pixels, None, x, **options)
    >>> code[0, :, :, 0].tolist()
    [[3.0, 3.0], [3.0, 3.0]]

  References:
    Manaswini, Bhatt, `Towards glass-box CNNs
    <https://arxiv.org/abs/2101.10443>`_, 2022
  """
  if part not in get_args(Part):
    raise GlassBoxError(
      f'part must be one of {", ".join(get_args(Part))}, got {part!r}.'
    )
  if part == 'plain':
    return _checked(features(params, x), len(x))
  moved = symmetry.orbit(group, x)
  flat = moved.reshape(-1, *x.shape[1:])
  code = _checked(features(params, flat), len(flat))
  stack = code.reshape(group.order, len(x), *code.shape[1:])
  if part == 'maximum':
    return jnp.max(stack, axis=0)
  wide = stack.astype(jnp.promote_types(stack.dtype, jnp.float32))
  if part == 'average':
    return jnp.mean(wide, axis=0).astype(stack.dtype)
  if part == 'isotypic':
    stack = mix(group, wide).astype(stack.dtype)
  channels = jnp.moveaxis(stack, 0, -2)  # (N, ..., order, C)
  return channels.reshape(*channels.shape[:-2], -1)


def _checked(code: jax.Array, n: int) -> jax.Array:
  is_float = jnp.issubdtype(code.dtype, jnp.floating)
  if code.ndim < 2 or len(code) != n or not is_float:
    raise GlassBoxError(
      f'features(params, x) must return floats (N, ..., C) with N = {n}, got'
      f' {code.dtype}{list(code.shape)}.'
    )
  return code
