"""The Swin transformer: published sizes, windows and their shifts."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bort_jax import nn, spectrum
from bort_jax.nn.swin import (
  PatchMerging,
  Swin,
  WindowAttention,
  relative_position_index,
)
from bort_jax.selection import default_rule, matrix_views

SMALL: dict[str, Any] = {
  'patch_size': 2,
  'width': 8,
  'depths': (2, 1),
  'num_heads': (2, 4),
  'window_size': 4,
}
forward = nnx.jit(lambda model, x: model(x))
intermediates = nnx.jit(lambda model, x: model.intermediates(x))


def make(image_shape=(32, 16, 3), **options) -> Any:
  rngs = nnx.Rngs(0, dropout=1)
  return Swin(image_shape, 5, rngs=rngs, **(SMALL | options))


@pytest.fixture(scope='module')
def model():
  """A network that no test changes."""
  return make()


def normal(*shape):
  return jax.random.normal(jax.random.key(1), shape)


def pictures(count=2):
  return normal(count, 32, 16, 3)


@pytest.mark.parametrize(
  ('depths', 'published'),
  [((2, 2, 6, 2), 28_288_354), ((2, 2, 18, 2), 49_606_258)],
)
def test_has_the_published_parameters_and_shifts(depths, published):
  model: Any = nnx.eval_shape(
    lambda: Swin((224, 224, 3), 1000, depths=depths, rngs=nnx.Rngs(0))
  )
  leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
  assert sum(math.prod(leaf.shape) for leaf in leaves) == published
  for stage, blocks in enumerate(model.stages):
    shifts = [block.attention.shift for block in blocks]
    # The last map, 7×7, is one window.
    shifted = (0, 0) if stage == 3 else (3, 3)
    assert shifts == [(0, 0), shifted] * (depths[stage] // 2)
    assert {block.attention.window for block in blocks} == {(7, 7)}


def test_names_its_intermediates(model):
  out = intermediates(model, pictures())
  shapes = {name: value.shape for name, value in out.items()}
  assert shapes == {
    'embed': (2, 16, 8, 8),
    'stage1/block1': (2, 16, 8, 8),
    'stage1/block2': (2, 16, 8, 8),
    'stage2/merge': (2, 8, 4, 16),
    'stage2/block1': (2, 8, 4, 16),
    'norm': (2, 8, 4, 16),
    'pool': (2, 16),
    'logits': (2, 5),
  }
  np.testing.assert_allclose(
    out['pool'], out['norm'].mean(axis=(1, 2)), atol=1e-6
  )


@pytest.mark.parametrize('window', [(3, 3), (2, 4)])
def test_the_relative_position_index_numbers_the_offsets(window):
  height, width = window
  index = relative_position_index(window)
  number = {}  # offsets, counted row by row
  for row in range(1 - height, height):
    for column in range(1 - width, width):
      number[row, column] = len(number)
  places = list(np.ndindex(height, width))
  for i, query in enumerate(places):
    for j, key in enumerate(places):
      offset = query[0] - key[0], query[1] - key[1]
      assert index[i, j] == number[offset]
  assert len(np.unique(index)) == len(number)


def attend_everywhere(layer, x):
  """Attention of all places to all, masked to cells that nothing rolled.

  Cells begin at the shift and a whole number of windows after it; what comes
  before the first is a cell of its own.
  """
  _, height, width, features = x.shape
  heads = layer.num_heads
  size = features // heads
  places = np.array(list(np.ndindex(height, width)))
  cells = (places - np.array(layer.shift)) // np.array(layer.window)
  same = (cells[:, None] == cells[None]).all(axis=-1)
  offsets = places[:, None] - places[None] + np.array(layer.window) - 1
  rows = offsets[..., 0] * (2 * layer.window[1] - 1) + offsets[..., 1]
  table = np.asarray(layer.relative_position_bias_table[...])
  flat = np.asarray(x).reshape(len(x), -1, features)
  linear = lambda part, x: (
    x @ np.asarray(part.kernel[...]) + np.asarray(part.bias[...])
  )
  out = np.zeros_like(flat)
  for n, head in np.ndindex(len(x), heads):
    of_head = slice(size * head, size * head + size)
    query, key, value = (
      linear(part, flat[n])[:, of_head]
      for part in (layer.query, layer.key, layer.value)
    )
    bias = table[np.where(same, rows, 0), head]
    weight = np.where(same, np.exp(query @ key.T / size**0.5 + bias), 0.0)
    weight /= weight.sum(axis=1, keepdims=True)
    out[n, :, of_head] = weight @ value
  return linear(layer.out, out).reshape(x.shape)


@pytest.mark.parametrize(
  ('size', 'window', 'shift'),
  [
    ((8, 8), (4, 4), (0, 0)),
    ((8, 8), (4, 4), (2, 2)),
    ((9, 6), (3, 3), (1, 1)),
    ((8, 4), (4, 4), (2, 0)),
    ((6, 8), (3, 2), (1, 1)),
  ],
)
def test_window_attention_equals_masked_attention_over_the_picture(
  size, window, shift
):
  rng, rngs = np.random.default_rng(0), nnx.Rngs(0)
  init = lambda key, shape, dtype: jnp.asarray(rng.normal(0, 0.5, shape), dtype)
  dense = lambda rows, columns: nnx.Linear(
    rows, columns, kernel_init=init, bias_init=init, rngs=rngs
  )
  table = lambda *shape: nnx.Param(init(None, shape, jnp.float32))
  layer = WindowAttention(6, 2, window, shift, dense, table)
  x = jnp.asarray(rng.normal(size=(2, *size, 6)), jnp.float32)
  np.testing.assert_allclose(
    forward(layer, x), attend_everywhere(layer, x), rtol=1e-4, atol=1e-5
  )


def test_along_an_axis_that_a_window_covers_nothing_is_shifted():
  # Its maps are 16×8 and 8×4.
  model = nnx.eval_shape(lambda: make(window_size=8))
  first, second = model.stages[0]
  assert first.attention.window == second.attention.window == (8, 8)
  assert (first.attention.shift, second.attention.shift) == ((0, 0), (4, 0))
  (last,) = model.stages[1]
  assert last.attention.window == (8, 4)
  assert last.attention.relative_position_bias_table.shape == (15 * 7, 4)


def test_merging_stacks_the_four_tokens_in_the_published_order():
  identity = lambda x: x
  merge = PatchMerging(3, lambda width: identity, lambda *_, **__: identity)
  x = normal(2, 4, 6, 3)
  corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2]]
  expected = np.concatenate([*corners, x[:, 1::2, 1::2]], axis=-1)
  np.testing.assert_array_equal(merge(x), expected)


def test_stochastic_depth_rises_linearly_and_is_random_in_training_alone(model):
  dropping, x = make(drop_path=0.4), pictures()
  blocks = [block for stage in dropping.stages for block in stage]
  rates = [block.drop_path.rate for block in blocks]
  np.testing.assert_allclose(rates, [0.0, 0.2, 0.4])
  assert len({forward(dropping, x).tobytes() for _ in range(8)}) > 1
  dropped = np.asarray(blocks[2].drop_path(jnp.ones((64, 2, 2, 3))))
  np.testing.assert_array_equal(
    dropped, np.broadcast_to(dropped[:, :1, :1, :1], dropped.shape)
  )
  np.testing.assert_allclose(np.unique(dropped), [0.0, 1 / 0.6], rtol=1e-6)
  dropping.eval()
  np.testing.assert_array_equal(forward(dropping, x), forward(model, x))


def test_computes_in_the_dtype_and_keeps_parameters_in_theirs(model):
  half, x = make(dtype=jnp.bfloat16), pictures()
  out = intermediates(half, x)
  assert {value.dtype for value in out.values()} == {jnp.dtype('bfloat16')}
  leaves = jax.tree.leaves(nnx.state(half, nnx.Param))
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype('float32')}
  exact = intermediates(model, x)['norm']
  np.testing.assert_allclose(np.float32(out['norm']), exact, atol=0.1)


def test_every_kernel_can_start_orthogonal():
  _, params = nn.functional(make(kernel_init=nnx.initializers.orthogonal()))
  errors = jax.tree.leaves(spectrum.orthogonality_error(params))
  assert len(errors) == 6 * 3 + 3
  assert max(map(float, errors)) < 1e-5


def test_kernels_and_nothing_else_are_matrices():
  _, params = nn.functional(make(logit_scale=True))
  block = [f'attention/{name}' for name in ('query', 'key', 'value', 'out')]
  block += ['mlp/fc1', 'mlp/fc2']
  places = ('0/0', '0/1', '1/0')
  layers = [f'stages/{place}/{layer}' for place in places for layer in block]
  layers += ['patch_embed', 'merges/0/reduction', 'head']
  assert set(matrix_views(default_rule, params)) == {
    f'{layer}/kernel' for layer in layers
  }


def test_functional_equals_the_module_and_has_a_gradient_everywhere(model):
  # A logit scale starts at one: no logit changes, but it has a gradient.
  apply_fn, params = nn.functional(make(logit_scale=True))
  x = pictures()

  def loss(params):
    logits = apply_fn(params, x)
    return jnp.sum(logits[:, 0] ** 2), logits

  grads, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
  np.testing.assert_allclose(logits, forward(model, x), rtol=1e-5, atol=1e-6)
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    # The softmax does not see a number that is the same for all keys.
    assert 'attention/key/bias' in name or np.any(leaf)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'image_shape': (34, 16, 3)}, 'multiples of 4, got 34×16. Resize or pad'),
    ({'window_size': 3}, '16×8, 8×4 .* got 3; it may be 1, 2, 4, 8, 16'),
    ({'window_size': 0}, 'it may be'),
    ({'num_heads': (2, 3)}, 'multiple of num_heads, got 16 and 3'),
    ({'num_heads': (2,)}, r'each stage, got \(2, 1\) and \(2,\)'),
    ({'drop_path': 1.0}, r'must be in \[0, 1\), got 1.0'),
  ],
)
def test_refuses(options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)
