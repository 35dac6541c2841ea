"""B-cos networks: published sizes, names, completeness, published weights."""

import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bcos_helpers import GOLDEN, case, golden, last, worst
from flax import nnx
from golden_networks import counterpart, make
from helpers import random_array
from network_helpers import output_shapes, parameter_count, paths
from safetensors.numpy import save_file

from bort_jax import nn
from bort_jax.nn.bcos import explain_all, from_torch, vit


def create(name, side, classes, channels=3, **options) -> Any:
  return nn.create(
    name,
    image_shape=(side, side, channels),
    num_classes=classes,
    rngs=nnx.Rngs(0),
    **options,
  )


@pytest.mark.parametrize(
  ('name', 'millions'),
  [
    ('resnet18', 11.69),
    ('resnet34', 21.80),
    ('resnet50', 25.54),
    ('resnet101', 44.50),
    ('resnet152', 60.13),
    ('vgg11', 132.86),
    ('densenet121', 7.95),
    ('convnext_t', 28.54),
    ('vit_ti', 5.80),
    ('vit_s', 22.22),
    ('vitc_ti', 5.32),
    ('vitc_s', 20.88),
  ],
)
def test_parameter_counts_are_those_published(name, millions):
  count = parameter_count(lambda: create(f'bcos_{name}', 224, 1000))
  assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize(
  ('depth', 'max_out', 'millions'),
  [(20, 1, 0.272), (20, 2, 0.543), (56, 1, 0.854), (56, 2, 1.706)],
)
def test_parameter_counts_are_those_published_for_cifar(
  depth, max_out, millions
):
  count = parameter_count(
    lambda: create(f'bcos_resnet{depth}', 32, 10, max_out=max_out)
  )
  assert round(count / 1e6, 3) == millions


def test_inception_has_the_sizes_of_the_plain_one():
  make = lambda: create('bcos_inception_v3', 299, 1000)
  shapes = output_shapes(make, (299, 299, 3))
  assert [shapes[f'mixed{i}'] for i in (1, 3, 4, 8, 9, 11)] == [
    (35, 35, 256),
    (35, 35, 288),
    (17, 17, 768),
    (17, 17, 768),
    (8, 8, 1280),
    (8, 8, 2048),
  ]
  params = paths(nnx.state(nnx.eval_shape(make), nnx.Param))
  scales = sum(p.size for path, p in params.items() if path.endswith('/scale'))
  count = sum(math.prod(p.shape) for p in params.values())
  plain = 23_834_568  # torchvision's without its auxiliary classifier
  assert count == plain - scales - 1000 + 3 * 3 * 3 * 32


SMALL: dict[str, tuple[str, dict[str, Any]]] = {
  'resnet': ('bcos_resnet8', {'max_out': 2}),
  'bottleneck': ('bcos_resnet50', {'b': 1.25}),
  'densenet': ('bcos_densenet121', {'counts': (1, 2), 'growth': 4, 'width': 8}),
  'convnext': (
    'bcos_convnext_t',
    {'counts': (1, 1), 'widths': (8, 16), 'layer_scale': 1.0},
  ),
  'vit': ('bcos_vit_ti', {'patch_size': 4, 'width': 16, 'depth': 2}),
  'vitc': ('bcos_vitc_ti', {'conv_widths': (8, 16), 'width': 16, 'depth': 1}),
}


def small(name, **options):
  network, own = SMALL[name]
  return create(network, 16, 4, **own, **options)


NAMES = {
  'resnet': ['stem', *(f'stage{i}/block1' for i in (1, 2, 3)), 'head', 'pool'],
  'densenet': ['stem', 'block1', 'down1', 'block2', 'norm', 'head', 'pool'],
  'convnext': [
    'stem',
    'stage1/block1',
    'down1',
    'stage2/block1',
    'norm',
    'head',
    'pool',
  ],
  'vit': ['embed', 'block1', 'block2', 'pool', 'norm', 'head'],
  'vitc': ['stem', 'embed', 'block1', 'pool', 'norm', 'head'],
}


@pytest.mark.parametrize('name', NAMES)
def test_networks_name_their_intermediates(name):
  shapes = output_shapes(lambda: small(name), (16, 16, 3))
  assert set(shapes) == {*NAMES[name], 'logits'}
  assert shapes['logits'] == (4,)


def test_vgg_names_its_intermediates():
  shapes = output_shapes(lambda: create('bcos_vgg11', 32, 5), (32, 32, 3))
  assert shapes['norm5_2'] == (2, 2, 512)
  assert {'conv1_1', 'down5', 'fc1', 'fc2', 'pool', 'logits'} <= set(shapes)
  assert shapes['head'] == (1, 1, 5)


@pytest.mark.parametrize('name', SMALL)
def test_summaries_are_complete_for_every_class(name, float64):
  model = small(name, param_dtype=np.float64)
  model.eval()
  x = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 16, 16, 3)))
  out = explain_all(*nn.functional(model, 'intermediates'), x, chunk=4)
  scale = np.abs(out.logit - out.logit_bias).max()
  assert np.abs(out.completeness_error).max() < 1e-10 * scale
  share = np.abs(out.constant).max() / scale
  assert share > 0.1 if 'vit' in name else share < 1e-10


def test_without_positions_a_transformer_has_no_constant(float64, monkeypatch):
  none = lambda rows, columns, width: np.zeros((rows * columns, width))
  monkeypatch.setattr(vit, 'positions', none)
  model = create('bcos_vit_ti', 8, 4, patch_size=4, width=16, depth=1)
  x = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 8, 8, 3)))
  out = explain_all(*nn.functional(model), x)
  assert np.abs(out.constant).max() < 1e-12 * np.abs(out.logit).max()


def test_the_norms_that_break_completeness_do(float64):
  x = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 8, 8, 3)))

  def constant(**options):
    model = create('bcos_resnet8', 8, 4, param_dtype=np.float64, **options)
    model(x)  # running statistics
    model.eval()
    apply_fn, params = nn.functional(model)
    shifted = jax.tree.map(lambda p: p + 0.1 if p.ndim == 1 else p, params)
    out = explain_all(apply_fn, shifted, x, chunk=4)
    return np.abs(out.constant).max()

  assert constant(norm='batch') < 1e-12
  assert constant(norm='batch', norm_centered=True) > 1e-3
  assert constant(norm='batch', norm_bias=True) > 1e-3


def test_pictures_may_be_coded_or_not():
  x = jnp.asarray(random_array(0, (1, 8, 8, 3), np.float32))
  model, coded = create('bcos_resnet8', 8, 4), create('bcos_resnet8', 8, 4, 6)
  model.eval()
  coded.eval()
  both = nn.bcos.add_inverse(x)
  np.testing.assert_array_equal(model(x), model(both))
  np.testing.assert_array_equal(coded(both), model(both))
  raw = create('bcos_resnet8', 8, 4, 2, encoded=False)
  assert raw.stem.conv.in_features == 4


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_halves_stay_halves(dtype):
  model = create('bcos_resnet8', 8, 4, dtype=dtype)
  out = model(jnp.full((2, 8, 8, 3), 0.3))
  assert out.dtype == dtype
  assert np.all(np.isfinite(np.asarray(out, np.float32)))


def test_settings_reach_the_network():
  model = create(
    'bcos_resnet8',
    8,
    4,
    norm=None,
    b=1.5,
    logit_scale=True,
    logit_temperature=2.0,
    logit_bias=0.0,
  )
  x = jnp.full((1, 8, 8, 3), 0.3)
  before = model(x)
  assert model.stem.conv.b == 1.5
  assert not jax.tree.leaves(nnx.state(model, nnx.BatchStat))
  model.ends.scale.log_scale[...] = np.log(3) / 30
  np.testing.assert_allclose(model(x), 3 * before, rtol=1e-5)


@pytest.mark.parametrize(
  ('name', 'side', 'options', 'said'),
  [
    ('bcos_resnet18', 4, {}, '8×8 pixels or more'),
    ('bcos_vgg11', 16, {}, '32×32'),
    ('bcos_inception_v3', 64, {}, '75×75'),
    ('bcos_densenet121', 4, {}, '8×8'),
    ('bcos_convnext_t', 16, {}, '32×32'),
    ('bcos_vit_s', 24, {}, 'multiples of 16'),
    ('bcos_vit_s', 32, {'width': 30}, 'multiple of 4'),
    ('bcos_resnet8', 32, {'encoded': True}, 'an even number'),
  ],
)
def test_what_does_not_fit_is_refused(name, side, options, said):
  with pytest.raises(ValueError, match=said):
    nnx.eval_shape(lambda: create(name, side, 10, **options))


@pytest.mark.parametrize(
  ('network', 'depth'),
  [(nn.bcos.BcosResNet, 20), (nn.bcos.BcosCifarResNet, 18)],
)
def test_unknown_depths_are_refused(network, depth):
  with pytest.raises(ValueError, match=f'depth .* got {depth}'):
    network((32, 32, 3), 10, depth=depth, rngs=nnx.Rngs(0))


# Names and shapes of small networks of the published code's families.
CONVNEXT = {
  'features.0.linear.weight': (8, 6, 4, 4),
  'features.1.weight': (8,),
  'features.2.0.layer_scale': (8, 1, 1),
  'features.2.0.block.0.linear.weight': (8, 1, 7, 7),
  'features.2.0.block.1.weight': (8,),
  'features.2.0.block.2.linear.weight': (32, 8, 1, 1),
  'features.2.0.block.3.linear.weight': (8, 32, 1, 1),
  'features.3.0.weight': (8,),
  'features.3.1.linear.weight': (16, 8, 2, 2),
  'features.4.0.layer_scale': (16, 1, 1),
  'features.4.0.block.0.linear.weight': (16, 1, 7, 7),
  'features.4.0.block.1.weight': (16,),
  'features.4.0.block.2.linear.weight': (64, 16, 1, 1),
  'features.4.0.block.3.linear.weight': (16, 64, 1, 1),
  'classifier.0.weight': (16,),
  'classifier.1.linear.weight': (4, 16, 1, 1),
}


def norm(name, width):
  return {
    f'{name}.weight': (width,),
    f'{name}.running_mean': (width,),
    f'{name}.running_var': (width,),
    f'{name}.num_batches_tracked': (),
  }


DENSENET = {
  'features.conv0.linear.weight': (8, 6, 3, 3),
  **norm('features.norm0', 8),
  **norm('features.denseblock1.denselayer1.norm1', 8),
  'features.denseblock1.denselayer1.conv1.linear.weight': (16, 8, 1, 1),
  **norm('features.denseblock1.denselayer1.norm2', 16),
  'features.denseblock1.denselayer1.conv2.linear.weight': (4, 16, 3, 3),
  **norm('features.transition1.norm', 12),
  'features.transition1.conv.linear.weight': (6, 12, 1, 1),
  **norm('features.denseblock2.denselayer1.norm1', 6),
  'features.denseblock2.denselayer1.conv1.linear.weight': (16, 6, 1, 1),
  **norm('features.denseblock2.denselayer1.norm2', 16),
  'features.denseblock2.denselayer1.conv2.linear.weight': (4, 16, 3, 3),
  **norm('features.denseblock2.denselayer2.norm1', 10),
  'features.denseblock2.denselayer2.conv1.linear.weight': (16, 10, 1, 1),
  **norm('features.denseblock2.denselayer2.norm2', 16),
  'features.denseblock2.denselayer2.conv2.linear.weight': (4, 16, 3, 3),
  **norm('features.norm5', 14),
  'classifier.linear.weight': (4, 14, 1, 1),
}
BOTTLENECKS = {
  'conv1.linear.weight': (4, 6, 3, 3),
  'bn1.weight': (4,),
  'layer1.0.conv1.linear.weight': (4, 4, 1, 1),
  'layer1.0.bn1.weight': (4,),
  'layer1.0.conv2.linear.weight': (4, 4, 3, 3),
  'layer1.0.bn2.weight': (4,),
  'layer1.0.conv3.linear.weight': (16, 4, 1, 1),
  'layer1.0.bn3.weight': (16,),
  'layer1.0.downsample.0.linear.weight': (16, 4, 1, 1),
  'layer1.0.downsample.1.weight': (16,),
  **{
    f'layer{i}.0.{name}': shape
    for i, n in ((2, 8), (3, 16))
    for name, shape in {
      'conv1.linear.weight': (n, 2 * n, 1, 1),
      'bn1.weight': (n,),
      'conv2.linear.weight': (n, n, 3, 3),
      'bn2.weight': (n,),
      'conv3.linear.weight': (4 * n, n, 1, 1),
      'bn3.weight': (4 * n,),
      'downsample.0.linear.weight': (4 * n, 2 * n, 1, 1),
      'downsample.1.weight': (4 * n,),
    }.items()
  },
  'fc.linear.weight': (10, 64, 1, 1),
}
CONV_STEM = {
  'to_patch_embedding.conv_stem.0.linear.weight': (8, 6, 3, 3),
  'to_patch_embedding.conv_stem.1.weight': (8,),
  'to_patch_embedding.conv_stem.3.linear.weight': (16, 8, 3, 3),
  'to_patch_embedding.conv_stem.4.weight': (16,),
  'to_patch_embedding.linear.linear.weight': (32, 16),
  **{
    f'transformer.encoder_{i}.{name}': shape
    for i in range(2)
    for name, shape in {
      'attn.norm.weight': (32,),
      'attn.to_qkv.weight': (96, 32),
      'attn.to_out.linear.weight': (32, 32),
      'ff.net.norm.weight': (32,),
      'ff.net.linear1.linear.weight': (64, 32),
      'ff.net.linear2.linear.weight': (32, 64),
    }.items()
  },
  'linear_head.norm.weight': (32,),
  'linear_head.linear.linear.weight': (10, 32),
}
PUBLISHED = {
  'convnext': (CONVNEXT, lambda: small('convnext')),
  'densenet': (DENSENET, lambda: small('densenet')),
  'bottlenecks': (BOTTLENECKS, lambda: counterpart('netD', np.float32)),
  'conv stem': (CONV_STEM, lambda: counterpart('netF', np.float32)),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_every_published_name_has_its_place(name):
  shapes, make = PUBLISHED[name]
  weights, count = {}, 0
  for key, shape in shapes.items():
    size = math.prod(shape)
    weights[f'0.{key}'] = np.float32(count + np.arange(size)).reshape(shape)
    count += size
  new = from_torch(weights, make())
  given = sum(
    array.size
    for key, array in weights.items()
    if 'running_mean' not in key and 'num_batches' not in key
  )
  leaves = paths(nnx.state(new))
  assert given == sum(leaf.size for leaf in leaves.values())
  everything = np.concatenate([np.ravel(leaf) for leaf in leaves.values()])
  assert len(np.unique(everything)) == given  # each number is used once
  if name == 'convnext':
    kernel = new.stages[1][0].conv.kernel[...]
    expected = weights['0.features.4.0.block.0.linear.weight']
    np.testing.assert_array_equal(kernel, expected.transpose(2, 3, 1, 0))


def test_vgg_has_published_names():
  from bort_jax.nn.bcos.from_torch import _rules

  model = nnx.eval_shape(lambda: create('bcos_vgg11', 32, 10))
  there = set(paths(nnx.state(model)))
  rules = {r.torch: r.ours for r in _rules(model) if r.ours in there}
  assert set(rules.values()) == there
  assert rules['features.0.linear.weight'] == 'convs/0/kernel'
  assert rules['features.9.running_var'] == 'norms/3/var'
  assert rules['features.18.linear.weight'] == 'convs/7/kernel'
  assert rules['classifier.2.linear.weight'] == 'head/kernel'


def test_inception_has_torchvisions_names():
  from bort_jax.nn.bcos.from_torch import _rules

  path = GOLDEN.with_name('inception_v3.json')
  given = {'fc.linear.weight': (1000, 2048, 1, 1)}
  for name, (outputs, *inside) in json.loads(path.read_text()).items():
    inside[0] *= 1 + (name == 'Conv2d_1a_3x3')  # pictures and their inverses
    given[f'{name}.conv.linear.weight'] = outputs, *inside
    given |= {f'{name}.bn.{a}': (outputs,) for a in ('weight', 'running_var')}
  model = nnx.eval_shape(lambda: create('bcos_inception_v3', 299, 1000))
  leaves = paths(nnx.state(model))
  rules = {r.torch: r for r in _rules(model) if r.ours in leaves}
  assert set(rules) == set(given)
  assert {rule.ours for rule in rules.values()} == set(leaves)
  for name, shape in given.items():
    new = rules[name].transform(np.empty(shape, np.float32))
    assert new.shape == leaves[rules[name].ours].shape, name
  for name, ours in {
    'Mixed_5b.branch3x3dbl_3.conv.linear.weight': '0/chains/2/steps/2/conv',
    'Mixed_6d.branch7x7_2.conv.linear.weight': '6/chains/1/steps/1/conv',
    'Mixed_7c.branch3x3dbl_3b.conv.linear.weight': '10/chains/2/forks/1/conv',
  }.items():
    assert rules[name].ours == f'mixed/{ours}/kernel'
  with pytest.raises(ValueError, match='Unknown: conv9.weight') as error:
    from_torch(dict.fromkeys(('conv9.weight', 'AuxLogits.fc'), 0), model)
  assert 'Aux' not in str(error.value)


def test_weights_are_read_from_safetensors(tmp_path):
  weights = {
    key.removeprefix('param/'): value
    for key, value in case('netC').items()
    if key.startswith('param/')
  }
  save_file(weights, tmp_path / 'net.safetensors')
  model = from_torch(
    tmp_path / 'net.safetensors', counterpart('netC', np.float32)
  )
  model.eval()
  x = jnp.asarray(last(case('netC')['x']), np.float32)
  assert worst(model(x), golden()['netC/logits_f32']) < 1e-5


def test_weights_that_do_not_fit_are_refused():
  model = counterpart('netC', np.float32)
  with pytest.raises(ValueError, match='Unknown: bn1.bias'):
    from_torch({'bn1.bias': np.zeros(8)}, model)
  with pytest.raises(TypeError, match='got a ResNet'):
    from_torch({}, nnx.eval_shape(lambda: create('resnet18', 32, 10)))


def test_transformers_equal_the_published_one_at_its_rounded_positions(
  float64, monkeypatch
):
  # Positions are rounded to float32 there; 64 numbers are fitted to 3,092.
  arrays = case('netE')
  apply_fn, params = nn.functional(make('netE'))
  x, pred = jnp.asarray(last(arrays['x'])), jnp.asarray(arrays['pred'])
  row, column = np.divmod(np.arange(16), 4)
  exact = jnp.asarray(vit.positions(1, 4, 32)[:, :16])

  @jax.jit
  def residual(table):
    place = lambda *_: jnp.concatenate([table[column], table[row]], axis=1)
    monkeypatch.setattr(vit, 'positions', place)
    streams = nn.bcos.two_streams(apply_fn, params, x)
    logits, pull = jax.vjp(streams.linear, streams.encoded)
    weights = pull(jax.nn.one_hot(pred, 10, dtype=x.dtype))[0]
    pairs = (logits, arrays['logits']), (weights, last(arrays['W_pred']))
    return jnp.concatenate([(got - want).ravel() for got, want in pairs])

  slope = np.asarray(jax.jit(jax.jacfwd(residual))(exact)).reshape(3092, 64)
  change = np.linalg.lstsq(slope, np.asarray(residual(exact)), rcond=1e-12)[0]
  assert np.abs(change).max() < 6e-8
  fitted = exact - change.reshape(exact.shape)
  assert np.abs(residual(fitted)).max() < 1e-14
