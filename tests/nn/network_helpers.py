"""What the tests of several networks ask alike."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax.selection import matrix_views, path_name


def parameter_count(make):
  """The number of parameters of a network that is never allocated."""
  params = nnx.state(nnx.eval_shape(make), nnx.Param)
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def output_shapes(make, image_shape):
  """The shape of every named intermediate, without the batch axis."""
  outputs = lambda x: make().intermediates(x)
  found = nnx.eval_shape(outputs, jnp.zeros((2, *image_shape)))
  return {name: out.shape[1:] for name, out in found.items()}


def kernels_initialized(make):
  """The shapes that ``make(init)`` asks of its initializer, and all matrices'.

  The two are equal where the initializer is that of every matrix and of no
  other parameter.
  """
  asked = []

  def init(key, shape, dtype, **options):
    asked.append(tuple(shape))
    return jnp.zeros(shape, dtype)

  params = nnx.state(nnx.eval_shape(lambda: make(init)), nnx.Param)
  views = matrix_views(None, params)
  leaves = paths(params)
  return sorted(asked), sorted(leaves[path].shape for path in views)


@jax.jit
def intermediates(model, x):
  """The named intermediates; what the call changes in the model is dropped."""
  return model.intermediates(x)


def random_pictures(*shape):
  """Standard normal pictures."""
  return jax.random.normal(jax.random.key(1), shape)


def paths(tree):
  """The leaves of a tree by path."""
  return {
    path_name(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }
