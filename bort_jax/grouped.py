"""Optimizers that know batch axes, for kernels that have groups."""

import functools
from collections.abc import Callable

import jax
import optax

from bort_jax.placement import let_compiler_place
from bort_jax.selection import AxesLike, map_matrices, matrix_views, path_name
from bort_jax.settings import check_params


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

  # Muon takes parameters without matrices too: all of them then do Adam steps.
  views_of = functools.partial(matrix_views, axes, required=False)
  split = lambda tree: map_matrices(_split, axes, tree)

  def init_fn(params):
    zeros = optax.tree.zeros_like(params)  # params may be abstract
    return muon_for(views_of(params)).init(split(zeros))

  def update_fn(updates, state, params=None, **extra_args):
    del extra_args
    check_params(params)
    tx = muon_for(views_of(params))
    updates_in = split(updates)
    # Muon reshapes and multiplies, which explicit shardings do not allow.
    new_updates, state = let_compiler_place(
      tx.update, (updates_in, state), updates_in, state, split(params)
    )
    merged = map_matrices(
      _merge, axes, updates, new_updates, others=lambda _, new: new
    )
    return merged, state

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _split(view, x):
  return let_compiler_place(view.split, view.split_sharding(x), x)


def _merge(view, x, new):
  return let_compiler_place(view.merge, x, new)
