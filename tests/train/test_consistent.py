"""Training on adversarial pictures with the consistent loss."""

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from run_helpers import Interrupt, Interrupting, last_state

from bort_jax import cli
from bort_jax.nn.transformer import stochastic_depth
from bort_jax.train import TrainConfig, train
from bort_jax.train.adversarial import Adversarial
from bort_jax.train.consistent import check_layers, paired, run_paired
from bort_jax.train.errors import RunError
from bort_jax.train.network import make_network
from bort_jax.train.parallel import make_parallel
from bort_jax.train.run_dir import read_config
from bort_jax.train.step import StepOptions, init_state, train_step

KEY = jax.random.key(0)


class Normed(nnx.Module):
  def __init__(self, axis_name=None):
    rngs = nnx.Rngs(0)
    self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
    self.norm = nnx.BatchNorm(4, axis_name=axis_name, rngs=rngs)
    self.head = nnx.Linear(4, 3, rngs=rngs)

  def __call__(self, x):
    return self.intermediates(x)['logits']

  def intermediates(self, x):
    code = jnp.tanh(self.norm(self.conv(x)))
    mean = jnp.mean(code, axis=(1, 2))
    return {'code': code, 'mean': mean, 'logits': self.head(mean)}


NETWORK = make_network(Normed)
FGSM = Adversarial('fgsm', epsilon=0.2, beta=0.3)
PGD = Adversarial('pgd', epsilon=0.2, attack_steps=3)


@pytest.fixture(scope='module')
def weights():
  return NETWORK.init()


def batch(count=8):
  key, other = jax.random.split(jax.random.key(1))
  images = jax.random.uniform(key, (count, 5, 5, 1))
  labels = jax.random.randint(other, (count,), 0, 3)
  return images, jax.nn.one_hot(labels, 3)


make = jax.jit(paired, static_argnums=(0, 1))
run = jax.jit(run_paired, static_argnums=(0, 1))


def losses(weights, images, targets):
  logits = NETWORK.apply(*weights, images)
  return np.asarray(optax.softmax_cross_entropy(logits, targets))


@pytest.mark.parametrize('options', [FGSM, PGD], ids=lambda o: o.attack)
def test_pairs_are_a_picture_and_a_worse_one_near_it(weights, options):
  images, targets = batch()
  x, y = make(options, NETWORK, weights, KEY, 0, images, targets)
  np.testing.assert_array_equal(x[0::2], images)
  np.testing.assert_array_equal(y[0::2], targets)
  np.testing.assert_array_equal(y[1::2], targets)
  change = np.abs(np.asarray(x[1::2] - x[0::2])).reshape(8, -1).max(1)
  assert change.max() <= 0.2
  assert change.min() > 0
  assert len(np.unique(change.round(4))) == 8  # each picture draws its own
  assert x.min() >= 0
  assert x.max() <= 1
  worse = losses(weights, x[1::2], targets) - losses(weights, images, targets)
  assert np.all(worse > 0)


@pytest.mark.parametrize('options', [FGSM, PGD], ids=lambda o: o.attack)
def test_pairs_do_not_depend_on_how_a_batch_is_split(weights, options):
  images, targets = batch()
  whole, _ = make(options, NETWORK, weights, KEY, 0, images, targets)
  parts = [
    make(options, NETWORK, weights, KEY, i, images[i : i + 4], targets[:4])[0]
    for i in (0, 4)
  ]
  expected = whole.reshape(8, 2, 5, 5, 1)[:4]
  np.testing.assert_allclose(
    parts[0].reshape(4, 2, 5, 5, 1), expected, atol=1e-6
  )
  other, _ = make(options, NETWORK, weights, jax.random.key(1), 0, *batch())
  assert np.abs(other - whole).max() > 1e-3


@pytest.mark.parametrize('layers', [(), ('mean',), ('code', 'logits')])
def test_the_loss_is_what_it_says(layers):
  options = Adversarial('fgsm', 0.2, beta=0.3, consistent_layers=layers)
  tx = optax.sgd(0.0)
  state = init_state(NETWORK, tx)
  images, targets = batch()
  levels = jnp.round(255 * images).astype(jnp.uint8)
  labels = jnp.argmax(targets, 1)
  step = functools.partial(
    train_step, NETWORK, tx, StepOptions(adversarial=options)
  )
  new, metrics = jax.jit(step)(state, levels, labels, KEY)
  key, _ = jax.random.split(jax.random.fold_in(KEY, 0))
  x, _ = make(
    options,
    NETWORK,
    (state.params, state.stats),
    key,
    0,
    levels.astype(jnp.float32) / 255,
    targets,
  )
  # Normalized together, the real pictures and the adversarial ones.
  model = NETWORK.merge(state.params, state.stats)
  model.train()
  named = getattr(model, 'intermediates')(x)  # noqa: B009
  out = {name: np.asarray(z, np.float64) for name, z in named.items()}
  logits = jnp.asarray(out['logits'])
  entropy = optax.softmax_cross_entropy(logits, jnp.repeat(targets, 2, axis=0))
  names = layers or ('code', 'mean')
  drift = [np.sum((out[n][0::2] - out[n][1::2]) ** 2) / 8 for n in names]
  expected = np.mean(entropy[0::2]) + np.mean(entropy[1::2])
  expected += 0.3 * np.mean(drift)
  np.testing.assert_allclose(metrics.loss, expected, rtol=1e-5)
  right = np.mean(np.argmax(logits[0::2], -1) == labels)
  np.testing.assert_allclose(metrics.accuracy, right)
  # and the running statistics are those of both
  together = jax.tree.leaves(nnx.state(model, nnx.BatchStat))
  new_stats = jax.tree.leaves(new.stats)
  assert len(together) == len(new_stats) == 2
  for one, other in zip(together, new_stats, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_consistent_loss_alone_pulls_representations_together(weights):
  images, targets = batch()
  options = Adversarial('fgsm', 0.2, beta=1.0)
  x, _ = make(options, NETWORK, weights, KEY, 0, images, targets)
  loss = lambda params: run(options, NETWORK, params, weights[1], x, KEY)[2]
  slope = jax.grad(loss)(weights[0])
  less = jax.tree.map(lambda p, g: p - 0.05 * g, weights[0], slope)
  assert float(loss(less)) < float(loss(weights[0]))


class Dropped(nnx.Module):
  def __init__(self):
    rngs = nnx.Rngs(0)
    self.inside = nnx.Dropout(0.5, rngs=rngs)
    self.whole = stochastic_depth(0.5, 4, rngs)
    self.norm = nnx.BatchNorm(1, rngs=rngs)
    self.head = nnx.Linear(1, 3, rngs=rngs)

  def __call__(self, x):
    return self.intermediates(x)['logits']

  def intermediates(self, x):
    dropped = self.whole(self.inside(self.norm(x)))
    return {'dropped': dropped, 'logits': self.head(dropped.mean((1, 2)))}


def test_equal_pictures_of_a_pair_drop_alike_and_others_do_not():
  network = make_network(Dropped)
  weights = network.init()
  images, _ = batch(16)
  x = jnp.repeat(images, 2, axis=0)
  logits, _, loss = run(FGSM, network, *weights, x, KEY)
  assert float(loss) == 0
  np.testing.assert_array_equal(logits[0::2], logits[1::2])
  same = jnp.repeat(jnp.broadcast_to(images[:1], images.shape), 2, axis=0)
  outputs, _ = network.train_pairs(*weights, same, KEY)
  dropped = np.asarray(outputs['dropped'])[0::2].reshape(16, -1)
  assert len(np.unique(dropped != 0, axis=0)) > 3  # pairs draw their own
  assert 0 < np.mean(np.all(dropped == 0, axis=1)) < 1  # whole ones
  _, _, loss = run(FGSM, network, *weights, x.at[::2].add(0.1), KEY)
  assert float(loss) > 0
  # a network that evaluates takes any number, and drops nothing
  outputs = getattr(network.merge(*weights), 'intermediates')(x[:3])  # noqa: B009
  assert np.all(outputs['dropped'] != 0)


class Unnamed(nnx.Module):
  def __init__(self):
    self.head = nnx.Linear(25, 3, rngs=nnx.Rngs(0))

  def __call__(self, x):
    return self.head(x.reshape(len(x), -1))


class Headed(Unnamed):
  def intermediates(self, x):
    return {'logits': self(x)}


@pytest.mark.parametrize('made', [Unnamed, Headed])
def test_without_the_consistent_loss_no_layers_are_needed(made):
  network = make_network(made)
  with pytest.raises(RunError, match='names none but its logits.* --beta 0'):
    check_layers(FGSM, network, (5, 5, 1))
  control = Adversarial('fgsm', 0.2, beta=0.0)
  check_layers(control, network, (5, 5, 1))
  images, targets = batch()
  weights = network.init()
  x, _ = make(control, network, weights, KEY, 0, images, targets)
  logits, _, loss = run(control, network, *weights, x, KEY)
  assert float(loss) == 0
  np.testing.assert_allclose(logits, network.apply(*weights, x), rtol=1e-6)


@pytest.mark.parametrize('layout', [{'devices': 4}, {'parallel': 'pmap'}])
@pytest.mark.parametrize('options', [FGSM, PGD], ids=lambda o: o.attack)
def test_many_devices_give_the_result_of_one(options, layout):
  found = []
  for where in ({'devices': 1}, layout):
    config: Any = {'batch_size': 16, **where}
    parallel = make_parallel(TrainConfig(**config))
    network = make_network(functools.partial(Normed, parallel.axis_name))
    tx = optax.sgd(0.1)
    given = StepOptions(axis_name=parallel.axis_name, adversarial=options)
    step = parallel.step(functools.partial(train_step, network, tx, given))
    state = parallel.init(functools.partial(init_state, network, tx))
    images, targets = batch(16)
    levels = np.asarray(255 * images).astype(np.uint8)
    rows = parallel.batch(levels, np.asarray(jnp.argmax(targets, 1)))
    state, first = step(state, *rows, KEY)
    state, second = step(state, *rows, KEY)
    found.append((state.params, state.stats, first.loss, second.loss))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found
  )


SMALL = {
  'epochs': 1,
  'batch_size': 128,
  'model_options': ('widths=(4,6,8,10,12)',),
  'compare': False,
  'devices': 1,
  'checkpoint_steps': 4,
  'adversarial': FGSM,
}


def test_a_resumed_run_ends_like_one_that_was_not_stopped(tmp_path):
  paths = [tmp_path / name for name in ('whole', 'stopped')]
  train(TrainConfig(run_dir=paths[0], **SMALL))
  with pytest.raises(Interrupt):
    train(TrainConfig(run_dir=paths[1], **SMALL), Interrupting('bort', 6))
  cli.main(['train', '--resume', '--run-dir', str(paths[1])])
  assert read_config(paths[1]).adversarial == FGSM
  whole, stopped = (jax.tree.leaves(last_state(path, 'bort')) for path in paths)
  assert len(whole) > 20
  jax.tree.map(np.testing.assert_array_equal, whole, stopped)
  texts = [(path / 'metrics.jsonl').read_text() for path in paths]
  assert texts[0] == texts[1]
  _without_the_setting(paths[0])
  assert read_config(paths[0]).adversarial == Adversarial()


def _without_the_setting(path):
  """As a run of before there were adversarial pictures."""
  fields = json.loads((path / 'config.json').read_text())
  del fields['adversarial']
  (path / 'config.json').write_text(json.dumps(fields))


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'epsilon': 8}, 'epsilon must be above 0 and at most 1, got 8.* 0.0314'),
    ({'epsilon': 0.0}, 'epsilon must be above 0'),
    ({'epsilon': float('nan')}, 'epsilon must be'),
    ({'attack': 'cw'}, 'attack must be one of none, fgsm, pgd'),
    ({'attack_steps': 0}, 'attack_steps must be at least 1'),
    ({'beta': -1.0}, 'beta must be'),
    ({'attack': 'none', 'consistent_layers': ('act1',)}, 'choose an --attack'),
  ],
)
def test_settings_out_of_range_are_refused(options, match):
  with pytest.raises(RunError, match=match):
    Adversarial(**{'attack': 'fgsm', **options})


def test_a_layer_that_does_not_exist_is_refused_before_anything(tmp_path):
  path = tmp_path / 'run'
  options = ['--attack', 'fgsm', '--consistent-layers', 'act1', 'act33']
  with pytest.raises(
    SystemExit, match="no layer 'act33'.* Did you mean 'act3'"
  ):
    cli.main(['train', '--run-dir', str(path), *options])
  assert not path.exists()
