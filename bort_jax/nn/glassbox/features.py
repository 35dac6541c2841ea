"""What a glass box looks at in a picture: pixels, or a fixed filter bank.

Any other hashable function of parameters and pictures serves too, such as
``inversion.until(outputs, layer)`` of a trained network.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax.nn.glassbox.errors import GlassBoxError
from bort_jax.validation import is_integer


def pixels(params: Any, x: jax.Array) -> jax.Array:
  """The picture itself.

  Args:
    params: none.
    x: (N, H, W, C).

  Returns:
    x.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.nn import glassbox
    >>> glassbox.pixels(None, jnp.ones((1, 2, 2, 1))).shape
    (1, 2, 2, 1)
  """
  del params
  return x


@dataclasses.dataclass(frozen=True)
class CosineBank:
  """Sizes of the responses to the two-dimensional cosines of a small patch.

  The size² filters are an orthonormal basis of patches (the discrete cosine
  transform), each applied to every channel; borders are padded with zeros.
  Absolute values make them blind to sign; a mean over cells follows. A turn or
  mirror of the picture moves the maps and swaps filters (u, v) and (v, u), so
  the bank as a whole is equivariant under D4 where the sides divide by
  ``cell``.

  Args:
    size: side of the patches, odd.
    cell: side of the squares over which responses are averaged, ≥ 1; what is
      left over at the far sides is dropped.

  Raises:
    GlassBoxError: if size is not odd, or either is no integer ≥ 1.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.nn import glassbox
    >>> glassbox.CosineBank(3, cell=2)(None, jnp.ones((1, 8, 8, 1))).shape
    (1, 4, 4, 9)
  """

  size: int = 3
  cell: int = 2

  def __post_init__(self):
    for name in ('size', 'cell'):
      value = getattr(self, name)
      if not is_integer(value) or value < 1:
        raise GlassBoxError(f'{name} must be an integer ≥ 1, got {value!r}.')
    if self.size % 2 == 0:
      raise GlassBoxError(
        f'size must be odd, so that filters have a middle, got {self.size}.'
      )

  def __call__(self, params: Any, x: jax.Array) -> jax.Array:
    """(N, H, W, C) to (N, H // cell, W // cell, C·size²)."""
    del params
    n, height, width, channels = x.shape
    if min(height, width) < self.cell:
      raise GlassBoxError(
        f'Pictures of {height}×{width} have no cell of {self.cell}×{self.cell}:'
        ' choose a smaller one.'
      )
    kernel = jnp.asarray(_cosines(self.size), x.dtype)
    maps = jax.lax.conv_general_dilated(
      x,
      jnp.tile(kernel, channels),
      (1, 1),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=channels,
      precision=jax.lax.Precision.HIGHEST,
    )
    rows, columns = height // self.cell, width // self.cell
    maps = jnp.abs(maps)[:, : rows * self.cell, : columns * self.cell]
    cells = maps.reshape(n, rows, self.cell, columns, self.cell, -1)
    return jnp.mean(cells, axis=(2, 4))


@functools.cache
def _cosines(size: int) -> np.ndarray:
  """(size, size, 1, size²), an orthonormal basis."""
  place, frequency = np.arange(size), np.arange(size)[:, None]
  basis = np.cos(np.pi * frequency * (place + 0.5) / size)
  basis *= np.where(frequency == 0, 1.0, np.sqrt(2)) / np.sqrt(size)
  bank = np.einsum('ui,vj->ijuv', basis, basis)
  return bank.reshape(size, size, 1, size * size)
