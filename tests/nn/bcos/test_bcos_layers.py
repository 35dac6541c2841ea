"""B-cos layers against loops, their laws, and the inputs that break others."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bcos_helpers import gradients
from flax import nnx
from helpers import random_array

from bort_jax import nn
from bort_jax.nn.bcos import AddInverse, BcosConv, BcosDense, LogitLayer, Norm
from bort_jax.nn.bcos.transform import max_out
from bort_jax.selection import matrix_views

BORDERS = {'CIRCULAR': 'wrap', 'REFLECT': 'reflect'}


def by_loops(layer: BcosConv, x, pads, g, mode: Any = 'constant'):
  """The output and the pulled-back g with everything dynamic held."""
  around = [(0, 0), *pads, (0, 0)]
  padded: Any = np.pad(x, around, mode)
  w = np.asarray(layer.kernel[...])
  axes = tuple(range(w.ndim - 1))
  if layer.normalize:
    w = w / np.sqrt(np.sum(w**2, axis=axes, keepdims=True))
  reach = [
    (k - 1) * d + 1
    for k, d in zip(layer.kernel_size, layer.kernel_dilation, strict=True)
  ]
  sizes = [
    (n - r) // s + 1
    for n, r, s in zip(padded.shape[1:-1], reach, layer.strides, strict=True)
  ]
  groups, units = layer.feature_group_count, layer.max_out
  outputs = w.shape[-1] // units
  y = np.zeros((len(x), *sizes, outputs))
  back = np.zeros_like(padded)
  for n, out, place in itertools.product(
    range(len(x)), range(outputs), np.ndindex(*sizes)
  ):
    window = tuple(
      slice(p * s, p * s + r, d)
      for p, s, r, d in zip(
        place, layer.strides, reach, layer.kernel_dilation, strict=True
      )
    )
    size = x.shape[-1] // groups
    group = out // (outputs // groups)
    at = (n, *window, slice(group * size, (group + 1) * size))
    patch = padded[at]
    rows = [w[..., out * units + m] for m in range(units)]
    row = max(rows, key=lambda row: np.sum(row * patch))
    linear = np.sum(row * patch)
    cosine = abs(linear) / np.sqrt(np.sum(patch**2) + 1e-6)
    powers: Any = {1: 1.0, 2: cosine}
    scale = powers.get(layer.b, (cosine + 1e-6) ** (layer.b - 1))
    y[(n, *place, out)] = scale * linear
    back[at] += g[(n, *place, out)] * scale * row
  inside = tuple(
    slice(a, n - b) for n, (a, b) in zip(padded.shape, around, strict=True)
  )
  return y, back[inside]


CONVS = {
  'MaxOut': ((5, 6), 3, 4, (3, 3), {'padding': 1, 'max_out': 2}),
  'groups': (
    (6, 7),
    4,
    6,
    (3, 3),
    {'padding': 1, 'strides': 2, 'feature_group_count': 2, 'max_out': 2},
  ),
  'depthwise': (
    (6, 6),
    3,
    3,
    (5, 5),
    {'padding': 2, 'feature_group_count': 3, 'b': 1.5},
  ),
  'sound': (
    (17,),
    2,
    3,
    (3,),
    {'padding': (2,), 'kernel_dilation': 3, 'max_out': 3, 'b': 3.0},
  ),
  'volume': (
    (4, 3, 5),
    2,
    2,
    (2, 3, 2),
    {'padding': ((1, 0), (1, 1), (0, 1)), 'strides': (2, 1, 1)},
  ),
  'free': ((4, 4), 2, 3, (2, 2), {'padding': 0, 'normalize': False}),
}


@pytest.mark.parametrize('name', CONVS)
def test_convolutions_equal_loops_in_one_two_and_three_dimensions(
  name, float64
):
  space, inputs, outputs, kernel, options = CONVS[name]
  layer = BcosConv(
    inputs, outputs, kernel, param_dtype=float, rngs=nnx.Rngs(0), **options
  )
  x = random_array(0, (2, *space, inputs))
  g = random_array(1, jax.eval_shape(layer, x).shape)
  padding = options['padding']
  ends = (padding,) * len(space) if isinstance(padding, int) else padding
  pads = [(n, n) if isinstance(n, int) else n for n in ends]
  y, back = by_loops(layer, x, pads, g)
  got = gradients(layer, jnp.asarray(x), g)
  np.testing.assert_allclose(got[0], y, rtol=1e-10, atol=1e-12)
  np.testing.assert_allclose(got[1], back, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
  ('padding', 'stride', 'pads'),
  [
    ('SAME', 1, ((1, 1), (1, 1))),
    ('SAME', 2, ((0, 1), (0, 1))),
    ('VALID', 1, ((0, 0), (0, 0))),
    ('CIRCULAR', 1, ((1, 1), (1, 1))),
    ('REFLECT', 1, ((1, 1), (1, 1))),
  ],
)
def test_norms_see_the_padding_that_the_convolution_sees(
  padding, stride, pads, float64
):
  layer = BcosConv(
    2, 3, (3, 3), stride, padding=padding, param_dtype=float, rngs=nnx.Rngs(0)
  )
  x = random_array(0, (1, 6, 4, 2))
  y = layer(jnp.asarray(x))
  expected = by_loops(
    layer, x, pads, np.zeros(y.shape), BORDERS.get(padding, 'constant')
  )[0]
  np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)


def test_batch_axes_are_optional_and_may_be_many():
  layer = BcosConv(2, 3, (3, 3), rngs=nnx.Rngs(0))
  x = jnp.asarray(random_array(0, (2, 3, 5, 4, 2), np.float32))
  y = layer(x)
  assert y.shape == (2, 3, 5, 4, 3)
  np.testing.assert_allclose(layer(x[1, 2]), y[1, 2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('b', [1, 1.25, 2, 4])
def test_outputs_are_bounded_and_ignore_the_length_of_weights(b, float64):
  layer = BcosDense(6, 5, b=b, param_dtype=float, rngs=nnx.Rngs(0))
  x = jnp.asarray(random_array(0, (40, 6)))
  y = layer(x)
  norm = jnp.linalg.norm(x, axis=1, keepdims=True)
  assert jnp.all(jnp.abs(y) <= (1 + 1e-5) * jnp.broadcast_to(norm, y.shape))
  layer.kernel[...] = layer.kernel[...] * 7.0
  np.testing.assert_allclose(layer(x), y, rtol=1e-12)


def test_an_aligned_input_reaches_the_bound(float64):
  layer = BcosDense(6, 5, b=3, param_dtype=float, rngs=nnx.Rngs(0))
  row = layer.kernel[...][:, 2]
  np.testing.assert_allclose(layer(row)[2], jnp.linalg.norm(row), rtol=1e-5)


def test_the_general_formula_is_continuous_at_2(float64):
  x = jnp.asarray(random_array(0, (9, 6)))
  at = lambda b: BcosDense(6, 5, b=b, param_dtype=float, rngs=nnx.Rngs(0))(x)
  np.testing.assert_allclose(at(2 + 1e-7), at(2), atol=1e-5)


class Pair(nnx.Module):
  """A convolution and a dense layer, each with a unit of zeros."""

  def __init__(self, **options):
    self.conv = BcosConv(2, 3, (3, 3), rngs=nnx.Rngs(0), **options)
    self.dense = BcosDense(3, 3, rngs=nnx.Rngs(0), **options)
    for layer in (self.conv, self.dense):
      layer.kernel[...] = layer.kernel[...].at[..., 1].set(0)

  def __call__(self, x):
    return self.dense(self.conv(x))


@pytest.mark.parametrize('dtype', [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize(
  ('b', 'max_out'), [(1, 2), (1.25, 1), (2, 2), (2.5, 1)]
)
def test_zeros_give_finite_values_and_gradients(b, max_out, dtype):
  apply_fn, params = nn.functional(
    Pair(b=b, max_out=max_out, param_dtype=dtype)
  )
  x = jnp.zeros((2, 6, 6, 2), dtype).at[1, 0, 0].set(1)

  def explained(params, x):
    streams = nn.bcos.two_streams(apply_fn, params, x)
    y, pull = jax.vjp(streams.linear, x)
    return jnp.sum(y**2) + jnp.sum(pull(y)[0] ** 2), y

  found = jax.jit(jax.value_and_grad(explained, (0, 1), has_aux=True))
  (value, y), gradient = found(params, x)
  assert y.dtype == dtype
  for leaf in jax.tree.leaves((value, y, gradient)):
    assert np.all(np.isfinite(np.asarray(leaf, np.float32)))


def test_norms_of_halves_are_summed_in_float32():
  layer = BcosDense(4096, 3, param_dtype=jnp.float16, rngs=nnx.Rngs(0))
  x = 30 * random_array(0, (2, 4096), np.float16)  # Σx² overflows float16
  exact = BcosDense(4096, 3, rngs=nnx.Rngs(0))
  exact.kernel[...] = layer.kernel[...].astype(jnp.float32)
  got, expected = layer(jnp.asarray(x)), exact(jnp.asarray(x, jnp.float32))
  np.testing.assert_allclose(got, expected, rtol=0.03, atol=0.5)


def test_the_first_of_equal_units_is_picked_and_has_the_gradient(float64):
  x = jnp.array([1.0, 1.0, 0.0, 2.0])
  out, pull = jax.vjp(lambda y: max_out(y, 2), x)
  np.testing.assert_array_equal(out, [1.0, 2.0])
  np.testing.assert_array_equal(pull(jnp.ones(2))[0], [1.0, 0.0, 0.0, 1.0])


def test_the_largest_of_units_that_are_not_numbers_is_none():
  x = jnp.array([jnp.nan, 1.0, 2.0, jnp.nan])
  assert jnp.all(jnp.isnan(max_out(x, 2)))


def test_the_default_rule_finds_the_kernels():
  model = nn.create(
    'bcos_resnet8', image_shape=(8, 8, 3), num_classes=10, rngs=nnx.Rngs(0)
  )
  views = matrix_views(None, nnx.state(model, nnx.Param))
  assert {path.split('/')[-1] for path in views} == {'kernel'}
  assert len(views) == 10  # stem, six in blocks, two shortcuts, head


@pytest.mark.parametrize('kind', ['batch', 'all'])
@pytest.mark.parametrize('centered', [False, True])
def test_statistics_over_devices_are_those_of_the_whole_batch(
  kind, centered, float64
):
  x = jnp.asarray(random_array(0, (6, 3, 3, 4)))

  def run(x, axis_name=None):
    norm = Norm(
      4,
      kind,
      centered=centered,
      axis_name=axis_name,
      param_dtype=float,
      rngs=nnx.Rngs(0),
    )
    y = norm(x)
    return y, nnx.state(norm, nnx.BatchStat)

  y, stats = run(x)
  parts, each = jax.vmap(lambda x: run(x, 'i'), axis_name='i')(
    x.reshape(2, 3, 3, 3, 4)
  )
  np.testing.assert_allclose(parts.reshape(y.shape), y, rtol=1e-12, atol=1e-12)
  for one, many in zip(
    jax.tree.leaves(stats), jax.tree.leaves(each), strict=True
  ):
    np.testing.assert_allclose(many[1], one, rtol=1e-12)


def test_logits_add_a_bias_of_zero_if_told_so():
  x = jnp.array([1.0, -2.0])
  np.testing.assert_array_equal(LogitLayer(2, bias=0.0)(x), x)
  np.testing.assert_array_equal(LogitLayer(1)(x[:1]), x[:1])
  got = LogitLayer(11, temperature=2.0)(x)
  np.testing.assert_allclose(got, x / 2 - np.log(10), rtol=1e-6)


def test_clipping_in_one_dimension_wants_its_axis():
  import optax

  p, g = jnp.ones((3, 2, 4)), jnp.full((3, 2, 4), 10.0)
  clip = optax.adaptive_grad_clip(0.01, axis=(0, 1))
  clipped: Any = clip.update(g, clip.init(p), p)[0]
  norms = jnp.sqrt(jnp.sum(clipped**2, axis=(0, 1)))
  np.testing.assert_allclose(norms, 0.01 * np.sqrt(6), rtol=1e-5)


@pytest.mark.parametrize(
  ('make', 'said'),
  [
    (lambda r: BcosConv(2, 3, (3,), b=0.5, rngs=r), 'b must be .* got 0.5'),
    (lambda r: BcosDense(2, 3, max_out=0, rngs=r), 'max_out .* got 0'),
    (lambda r: BcosDense(2, 3, scale=0.0, rngs=r), 'scale .* got 0.0'),
    (
      lambda r: BcosConv(3, 4, (3,), feature_group_count=2, rngs=r),
      'must divide 3 inputs and 4 outputs, got 2',
    ),
    (lambda r: BcosConv(3, 4, (3, 3), (1, 1, 1), rngs=r), 'each of 2 axes'),
    (
      lambda r: BcosConv(1, 1, (3,), padding='same', rngs=r)(jnp.ones((3, 1))),
      "'SAME'.* got 'same'",
    ),
    (lambda r: BcosConv(6, 4, (3, 3), rngs=r)(jnp.ones((8, 8, 3))), 'space, 6'),
    (lambda r: BcosDense(6, 4, rngs=r)(jnp.ones((8, 3))), r'\(..., 6\)'),
    (lambda r: Norm(4, 'mean', rngs=r), "got 'mean'"),  # type: ignore
    (lambda r: Norm(5, 'group', rngs=r), 'must divide 5 channels, got 2'),
    (lambda r: LogitLayer(3, temperature=0.0), 'temperature .* got 0.0'),
    (lambda r: AddInverse(3)(jnp.ones((8, 8, 4))), '3 channels, or of 6'),
    (
      lambda r: nn.bcos.uniform_off_bce(jnp.ones((2, 3)), jnp.ones(3)),
      r'\(2, 3\) and',
    ),
    (
      lambda r: nn.bcos.uniform_off_bce(jnp.ones((2, 3)), jnp.ones(2), 1.5),
      'got 1.5',
    ),
    (
      lambda r: nn.bcos.BcosAttention(8, 3, BcosDense, BcosDense),
      'got 8 and 3',
    ),
  ],
)
def test_what_means_nothing_is_refused(make, said):
  with pytest.raises(ValueError, match=said):
    make(nnx.Rngs(0))
