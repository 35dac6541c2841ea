"""The running average, of batch statistics too, is what is evaluated."""

from functools import partial

import jax
import numpy as np
import pytest

from bort_jax.train import TrainConfig, train
from bort_jax.train.comparison import network_of
from bort_jax.train.optimizer import make_optimizer
from bort_jax.train.parallel import make_parallel
from bort_jax.train.source import make_source
from bort_jax.train.step import StepOptions, init_state, train_step

DECAY = 0.4  # from the sixth step on; before it (1 + step) / (10 + step)
NUM_STEPS = 8


def weights_of_all_steps(config):
  """Parameters and statistics at the start and after every step."""
  source = make_source(config)
  network = network_of(config, source, make_parallel(config))
  tx = make_optimizer(config, NUM_STEPS, True)
  step = jax.jit(partial(train_step, network, tx, StepOptions()))
  state, batches = init_state(network, tx), source.train(0)
  history = [(state.params, state.stats)]
  for _ in range(NUM_STEPS):
    state, _ = step(state, *next(batches), jax.random.key(config.seed))
    history.append((state.params, state.stats))
  return source, network, history


def average_of(history):
  average = history[0]
  for step, new in enumerate(history[1:]):
    decay = min(DECAY, (1 + step) / (10 + step))
    blend = lambda old, x, decay=decay: decay * old + (1 - decay) * x
    average = jax.tree.map(blend, average, new)
  return average


@pytest.mark.slow
def test_averaged_statistics_are_evaluated(tmp_path):
  config = TrainConfig(
    run_dir=tmp_path / 'run',
    model='resnet8',
    epochs=1,
    batch_size=176,
    optimizer='sgd',
    learning_rate=0.3,
    warmup=0.0,
    schedule='constant',
    gamma=0.1,
    devices=1,
    compare=False,
    ema=DECAY,
  )
  fit = train(config).fits['bort']
  source, network, history = weights_of_all_steps(config)
  params, stats = average_of(history)
  for got, expected in zip(
    jax.tree.leaves((fit.params, fit.stats)),
    jax.tree.leaves((params, stats)),
    strict=True,
  ):
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)

  images = np.concatenate([x[mask] for x, _, mask in source.test()])
  labels = np.concatenate([y[mask] for _, y, mask in source.test()])

  apply = jax.jit(network.apply)

  def loss(params, stats):
    logits = apply(params, stats, images / np.float32(255))
    chosen = jax.nn.log_softmax(logits)[np.arange(len(labels)), labels]
    return float(-chosen.mean())

  evaluated = fit.epochs[-1].test_loss
  np.testing.assert_allclose(evaluated, loss(params, stats), rtol=1e-5)
  last_params, last_stats = history[-1]
  for other in (
    (params, last_stats),
    (last_params, stats),
    (last_params, last_stats),
  ):
    assert abs(loss(*other) / evaluated - 1) > 5e-4
