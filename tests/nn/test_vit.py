"""The vision transformer: published sizes, attention, dropping, remat."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bort_jax import nn, spectrum
from bort_jax.nn.transformer import MLP, Attention, stochastic_depth
from bort_jax.nn.vit import ViT
from bort_jax.selection import default_rule, matrix_views

SMALL: dict[str, Any] = {
  'patch_size': 4,
  'width': 24,
  'depth': 3,
  'num_heads': 3,
}
forward = nnx.jit(lambda model, x: model(x))
intermediates = nnx.jit(lambda model, x: model.intermediates(x))


def make(**options):
  rngs = nnx.Rngs(0, dropout=1)
  return ViT((16, 8, 3), 5, rngs=rngs, **(SMALL | options))


@pytest.fixture(scope='module')
def model():
  """A network that no test changes."""
  return make()


def pictures(count=2, shape=(16, 8, 3)):
  return jax.random.normal(jax.random.key(1), (count, *shape))


def dense_layers():
  """Makes dense layers, each of other numbers, also in the bias."""
  rngs, init = nnx.Rngs(0), nnx.initializers.normal(0.5)
  return lambda rows, columns: nnx.Linear(
    rows, columns, kernel_init=init, bias_init=init, rngs=rngs
  )


@pytest.mark.parametrize(
  ('width', 'num_heads', 'published'),
  [(192, 3, 5_717_416), (384, 6, 22_050_664), (768, 12, 86_567_656)],
)
def test_has_as_many_parameters_as_published(width, num_heads, published):
  model = nnx.eval_shape(
    lambda: ViT(
      (224, 224, 3), 1000, width=width, num_heads=num_heads, rngs=nnx.Rngs(0)
    )
  )
  leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
  assert sum(math.prod(leaf.shape) for leaf in leaves) == published


@pytest.mark.parametrize(('pooling', 'tokens'), [('token', 9), ('mean', 8)])
def test_names_its_intermediates(pooling, tokens):
  out = intermediates(make(pooling=pooling), pictures())
  names = ['embed', 'block1', 'block2', 'block3', 'norm', 'pool', 'logits']
  assert set(out) == set(names)
  assert {out[name].shape for name in names[:5]} == {(2, tokens, 24)}
  assert out['pool'].shape == (2, 24)
  assert out['logits'].shape == (2, 5)
  pool = {'token': out['norm'][:, 0], 'mean': out['norm'].mean(axis=1)}
  np.testing.assert_allclose(out['pool'], pool[pooling], atol=1e-6)


def test_embeds_patches_row_by_row_behind_the_class_token(model):
  x = np.asarray(pictures())
  kernel = np.asarray(model.patch_embed.kernel[...]).reshape(-1, 24)
  position = np.asarray(model.position_embedding[...])[0]
  tokens = model.embed(jnp.asarray(x))
  token = np.asarray(model.class_token[...])[0, 0]
  np.testing.assert_allclose(tokens[1, 0], token + position[0], atol=1e-6)
  for row in range(4):
    for column in range(2):
      patch = x[1, 4 * row :, 4 * column :][:4, :4].reshape(-1)
      place = 1 + 2 * row + column
      np.testing.assert_allclose(
        tokens[1, place], patch @ kernel + position[place], atol=1e-5
      )


def test_attention_equals_a_loop_over_heads_and_tokens():
  layer: Any = Attention(12, 3, dense_layers())
  x = np.asarray(pictures(2, (5, 12)))
  bias = np.asarray(pictures(1, (3, 5, 5)))
  mask = np.tril(np.ones((5, 5), bool))
  linear = lambda part, x: (
    x @ np.asarray(part.kernel[...]) + np.asarray(part.bias[...])
  )
  query, key, value = (
    linear(part, x) for part in (layer.query, layer.key, layer.value)
  )
  mixed = np.zeros_like(x)
  for n, t, head in np.ndindex(2, 5, 3):
    of_head = slice(4 * head, 4 * head + 4)
    seen = np.flatnonzero(mask[t])
    logits = key[n, seen, of_head] @ query[n, t, of_head] / math.sqrt(4)
    weight = np.exp(logits + bias[0, head, t, seen])
    weight /= weight.sum()
    mixed[n, t, of_head] = weight @ value[n, seen, of_head]
  np.testing.assert_allclose(
    layer(x, bias, mask[None, None]),
    linear(layer.out, mixed),
    rtol=1e-4,
    atol=1e-4,
  )


def test_the_mlp_has_the_exact_gelu():
  mlp: Any = MLP(3, 4, dense_layers())
  x = np.linspace(-2.0, 2.0, 6, dtype=np.float32).reshape(2, 3)
  hidden = np.asarray(mlp.fc1(x), np.float64)
  erf = np.vectorize(math.erf)(hidden / math.sqrt(2))
  expected = mlp.fc2(np.float32(hidden * (1 + erf) / 2))
  np.testing.assert_allclose(mlp(x), expected, rtol=1e-5, atol=1e-5)


def test_mean_pooling_without_positions_ignores_the_order_of_patches():
  model, x = make(pooling='mean', patch_size=8), pictures()
  swapped = jnp.roll(x, 8, axis=1)  # two patches, one above the other
  assert np.abs(forward(model, x) - forward(model, swapped)).max() > 1e-5
  model.position_embedding[...] = jnp.zeros_like(model.position_embedding[...])
  np.testing.assert_allclose(
    forward(model, x), forward(model, swapped), rtol=1e-5, atol=1e-6
  )


def test_a_residual_branch_is_dropped_whole_and_keeps_its_mean():
  drop = stochastic_depth(0.3, 3, nnx.Rngs(dropout=0))
  out = np.asarray(drop(jnp.ones((20_000, 2, 3))))
  np.testing.assert_array_equal(out, np.broadcast_to(out[:, :1, :1], out.shape))
  np.testing.assert_allclose(np.unique(out), [0.0, 1 / 0.7], rtol=1e-6)
  np.testing.assert_allclose(out.mean(), 1.0, atol=0.02)  # 4 deviations


def test_stochastic_depth_rises_linearly_and_is_random_in_training_alone(model):
  dropping, x = make(drop_path=0.4), pictures()
  rates = [block.drop_path.rate for block in dropping.blocks]
  np.testing.assert_allclose(rates, [0.0, 0.2, 0.4])
  assert len({forward(dropping, x).tobytes() for _ in range(8)}) > 1
  dropping.eval()
  np.testing.assert_array_equal(forward(dropping, x), forward(model, x))
  dropping.train()
  assert len({forward(dropping, x).tobytes() for _ in range(8)}) > 1


def test_training_without_stochastic_depth_needs_no_random_numbers():
  model = ViT((16, 8, 3), 5, rngs=nnx.Rngs(params=0), **SMALL)
  assert not jax.tree.leaves(nnx.state(model, nnx.RngState))
  assert not model.blocks[2].drop_path.deterministic
  assert forward(model, pictures()).shape == (2, 5)


def test_remat_keeps_less_and_changes_no_value_gradient_or_random_number():
  x = pictures(8)

  def run(remat):
    model = make(remat=remat, drop_path=0.4)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, rest):
      merged = nnx.merge(graphdef, params, rest, copy=True)
      value = jnp.sum(merged(x) ** 2)
      return value, nnx.state(merged, nnx.RngCount)

    backward = lambda p: jax.vjp(loss, p, rest, has_aux=True)[1]
    kept = jax.tree.leaves(jax.eval_shape(backward, params))
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return step(params, rest), sum(math.prod(leaf.shape) for leaf in kept)

  plain, plain_kept = run(False)
  remat, remat_kept = run(True)
  assert remat_kept < plain_kept / 4
  (value, counts), grads = plain
  assert value > 0
  assert sum(map(int, jax.tree.leaves(counts))) > 0
  assert any(map(np.any, jax.tree.leaves(grads)))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    plain,
    remat,
  )


def test_computes_in_the_dtype_and_keeps_parameters_in_theirs(model):
  half, x = make(dtype=jnp.bfloat16), pictures()
  out = intermediates(half, x)
  assert {value.dtype for value in out.values()} == {jnp.dtype('bfloat16')}
  leaves = jax.tree.leaves(nnx.state(half, nnx.Param))
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype('float32')}
  exact = intermediates(model, x)['norm']
  np.testing.assert_allclose(np.float32(out['norm']), exact, atol=0.1)


def test_starts_from_truncated_normal_numbers_and_biases_of_zero():
  model: Any = make(width=96)
  kernels = [
    model.patch_embed.kernel[...],
    model.blocks[0].attention.query.kernel[...],
    model.blocks[2].mlp.fc2.kernel[...],
    model.head.kernel[...],
    model.position_embedding[...],
    model.class_token[...],
  ]
  values = np.concatenate([np.ravel(kernel) for kernel in kernels])
  np.testing.assert_allclose(values.std(), 0.02, rtol=0.02)
  assert np.abs(values).max() <= 2 * 0.02 / 0.8796
  for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
    if path[-1] == 'bias':
      assert not np.any(leaf[...])


def test_every_kernel_can_start_orthogonal():
  _, params = nn.functional(make(kernel_init=nnx.initializers.orthogonal()))
  errors = jax.tree.leaves(spectrum.orthogonality_error(params))
  assert len(errors) == 6 * 3 + 2
  assert max(map(float, errors)) < 1e-5


@pytest.mark.parametrize('pooling', ['token', 'mean'])
def test_kernels_and_nothing_else_are_matrices(pooling):
  _, params = nn.functional(make(pooling=pooling, logit_scale=True))
  views = matrix_views(default_rule, params)
  block = [f'attention/{name}' for name in ('query', 'key', 'value', 'out')]
  block += ['mlp/fc1', 'mlp/fc2']
  layers = [f'blocks/{n}/{layer}' for n in range(3) for layer in block]
  expected = {f'{name}/kernel' for name in (*layers, 'patch_embed', 'head')}
  assert set(views) == expected
  assert views['patch_embed/kernel'].axes.in_axes == (0, 1, 2)


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
    ({'patch_size': 3}, 'got 3; the divisors are 1, 2, 4, 8'),
    ({'patch_size': 0}, 'the divisors are'),
    ({'num_heads': 5}, 'multiple of num_heads, got 24 and 5'),
    ({'pooling': 'max'}, "must be 'token' or 'mean', got 'max'"),
    ({'drop_path': 1.0}, r'must be in \[0, 1\), got 1.0'),
    ({'drop_path': -0.1}, r'must be in \[0, 1\)'),
  ],
)
def test_refuses(options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)
