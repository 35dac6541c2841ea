"""Optimizers that know batch axes, for kernels that have groups."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from bort_jax.matrices import MatrixView
from bort_jax.selection import AxesLike, map_matrices, matrix_views, path_name
from bort_jax.transform import NO_PARAMS_MESSAGE


def on_split_matrices(
  muon: Callable[..., optax.GradientTransformation], axes: AxesLike
) -> optax.GradientTransformationExtraArgs:
  """Applies Muon with each group of a kernel as a matrix of its own."""

  def muon_for(views):
    numbers = {path: view.muon_numbers for path, view in views.items()}
    return muon(
      lambda tree: jax.tree_util.tree_map_with_path(
        lambda path, _: numbers.get(path_name(path)), tree
      )
    )

  def split(tree):
    return map_matrices(_split, axes, tree)

  def init_fn(params):
    return muon_for(matrix_views(axes, params)).init(split(params))

  def update_fn(updates, state, params=None, **extra_args):
    del extra_args
    if params is None:
      raise ValueError(NO_PARAMS_MESSAGE)
    new_updates, state = muon_for(matrix_views(axes, params)).update(
      split(updates), state, split(params)
    )
    merged = map_matrices(
      lambda view, _, new: view.merge(new),
      axes,
      updates,
      new_updates,
      others=lambda _, new: new,
    )
    return merged, state

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _split(view: MatrixView, x: Any) -> Any:
  if isinstance(x, jax.ShapeDtypeStruct):  # optimizers start on those too
    return jax.eval_shape(view.split, x)
  return view.split(x)
