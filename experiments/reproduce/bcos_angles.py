"""Angles between the units of B-cos layers, and to what comes in."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax import nn
from bort_jax.matrices import MatrixView
from bort_jax.placement import on_matrices
from bort_jax.selection import map_matrices


def largest_cosine(params: Any) -> float:
  """The largest |cos| of the angle between two units of a layer.

  The orthogonality error of kernels whose rows have length 1, as B-cos layers
  use them. Of all layers with no more units than inputs: of more, some angles
  cannot be right.
  """
  found = map_matrices(_largest, None, params, others=lambda _: None)
  return max(map(float, jax.tree.leaves(found)))


def _largest(view: MatrixView, w: jax.Array) -> jax.Array | None:
  if not view.is_wide:
    return None
  return on_matrices(_between_rows, view, w, per_matrix=True)


def _between_rows(view: MatrixView, w: jax.Array) -> jax.Array:
  w = w / jnp.sqrt(view.squared_norms(w, 'out'))
  gram = view.gram(w, w, 'out')
  return jnp.max(jnp.abs(gram - view.identity(gram.dtype, 'out')))


def cosines_of(model: nnx.Module, x: jax.Array) -> dict[str, jax.Array]:
  """The |cos| of the angles between each layer's units and what comes in.

  Args:
    model: a network of B-cos convolutions; it is changed.
    x: pictures.

  Returns:
    (N, height, width, units) of each layer, by its path.
  """
  cosines: dict[str, jax.Array] = {}
  for path, module in list(nnx.iter_modules(model)):
    if isinstance(module, nn.bcos.BcosConv):
      parent: Any = model
      for key in path[:-1]:
        inside = isinstance(key, int)
        parent = parent[key] if inside else getattr(parent, str(key))
      name = '/'.join(map(str, path))
      setattr(parent, str(path[-1]), _Listening(module, name, cosines))
  model(x)  # pyright: ignore[reportCallIssue]
  return cosines


class _Listening(nnx.Module):
  """A layer that tells the angles between its units and what comes in."""

  def __init__(self, layer: nn.bcos.BcosConv, name: str, cosines: dict):
    self.layer, self.name, self.tell = layer, name, cosines.__setitem__

  def __call__(self, x: jax.Array) -> jax.Array:
    linear, squared = nnx.clone(self.layer), nnx.clone(self.layer)
    linear.b, squared.b = 1.0, 2.0
    y = linear(x)
    cosine = jnp.abs(squared(x)) / jnp.where(y == 0, 1, jnp.abs(y))
    self.tell(self.name, cosine)
    return self.layer(x)
