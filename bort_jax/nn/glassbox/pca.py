"""Fewer dimensions, those in which rows differ most."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bort_jax.nn.glassbox.errors import GlassBoxError
from bort_jax.nn.glassbox.products import product
from bort_jax.validation import is_integer

_MORE = 10  # directions drawn beside those that are kept
_ROUNDS = 4  # multiplications by the covariance


class PCA(NamedTuple):
  """The directions of largest variance, in order."""

  mean: jax.Array  # (D,)
  directions: jax.Array  # (D, k) orthonormal columns
  variances: jax.Array  # (k,) along them, of N − 1 as the count
  shares: jax.Array  # (k,) of the whole variance


def fit_pca(
  rows: jax.Array, components: int, *, key: jax.Array | None = None
) -> PCA:
  """The principal components of rows.

  Exactly by default: one eigendecomposition of the smaller of covariance (D, D)
  and Gram matrix (N, N). With a key, where both are large, by a randomized
  range finder with four rounds of power iteration: exact to rounding where the
  variances fall off, an approximation of the last components where they do not.

  Args:
    rows: (N, D) floats, N ≥ 2.
    components: k, 1 … min(N − 1, D): N rows differ in N − 1 directions.
    key: a random key, for the randomized form.

  Returns:
    The components, in float32 or wider; each direction's largest number is
    positive. A share is NaN where all rows are equal.

  Raises:
    GlassBoxError: if rows have another shape or components is out of range.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.nn import glassbox
    >>> rows = jnp.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    >>> pca = glassbox.fit_pca(rows, 1)
    >>> pca.directions[:, 0].tolist(), float(pca.variances[0])
    ([1.0, 0.0], 4.0)

  References:
    Halko, Martinsson, Tropp, `Finding structure with randomness
    <https://arxiv.org/abs/0909.4061>`_, 2011, algorithm 4.4
  """
  if rows.ndim != 2 or not jnp.issubdtype(rows.dtype, jnp.floating):
    raise GlassBoxError(
      f'rows must be floats (N, D), got {rows.dtype}{list(rows.shape)}.'
    )
  most = min(rows.shape[0] - 1, rows.shape[1])
  if not is_integer(components) or not 1 <= components <= most:
    raise GlassBoxError(
      f'components must be an integer 1 … {most}, got {components!r}:'
      f' {rows.shape[0]} rows of {rows.shape[1]} numbers have no more. Ask for'
      ' fewer components, or give more pictures.'
    )
  if key is None:
    return _exact(rows, components)
  return _randomized(rows, components, key)


def reduce(pca: PCA, rows: jax.Array) -> jax.Array:
  """Rows in the principal components.

  Args:
    pca: the components.
    rows: (N, D).

  Returns:
    (N, k).

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.nn import glassbox
    >>> rows = jnp.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    >>> glassbox.reduce(glassbox.fit_pca(rows, 1), rows)[:, 0].tolist()
    [-2.0, 0.0, 2.0]
  """
  return product(rows - pca.mean[None], pca.directions)


@jax.jit
def _centred(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
  rows = rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
  mean = jnp.mean(rows, axis=0)
  return mean, rows - mean[None]


@functools.partial(jax.jit, static_argnums=1)
def _exact(rows: jax.Array, components: int) -> PCA:
  mean, rows = _centred(rows)
  if rows.shape[1] <= rows.shape[0]:
    energies, directions = _largest(product(rows.T, rows), components)
  else:
    energies, sides = _largest(product(rows, rows.T), components)
    # not divided by lengths: of rows that are no more than repeated, some are 0
    directions = _orthonormal(product(rows.T, sides))
  return _made(mean, rows, energies, directions)


@functools.partial(jax.jit, static_argnums=1)
def _randomized(rows: jax.Array, components: int, key: jax.Array) -> PCA:
  mean, rows = _centred(rows)
  count = min(components + _MORE, *rows.shape)
  drawn = jax.random.normal(key, (rows.shape[1], count), rows.dtype)

  def round_(_, directions):
    sides = _orthonormal(product(rows, directions))
    return _orthonormal(product(rows.T, sides))

  directions = jax.lax.fori_loop(0, _ROUNDS, round_, _orthonormal(drawn))
  small = product(rows, directions)
  energies, turned = _largest(product(small.T, small), components)
  return _made(mean, rows, energies, product(directions, turned))


def _largest(gram: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
  energies, vectors = jnp.linalg.eigh(gram)
  return energies[::-1][:count], vectors[:, ::-1][:, :count]


def _orthonormal(columns: jax.Array) -> jax.Array:
  return jnp.linalg.qr(columns)[0]


def _made(mean, rows, energies, directions) -> PCA:
  largest = jnp.argmax(jnp.abs(directions), axis=0)
  signs = jnp.sign(jnp.take_along_axis(directions, largest[None], axis=0))
  variances = jnp.maximum(energies, 0) / (len(rows) - 1)
  total = jnp.sum(rows**2) / (len(rows) - 1)
  shares = variances / jnp.where(total > 0, total, jnp.nan)
  return PCA(mean, directions * signs, variances, shares)
