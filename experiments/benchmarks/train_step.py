"""Training steps of ours, of Flax's Linen and of PyTorch, side by side.

The same networks on random pictures, float32, SGD with momentum: our
``train_step`` with and without Bort; a step as Flax's ImageNet example makes
it, with a Linen network and the decay in the loss; and torchvision's network in
channels-last memory. Contestants take turns in one process, and the machine's
float32 matmul rate with them; each time is the median of several. Utilization
is three forward passes, as XLA counts their operations, over that rate. From
the project's root, with torch and torchvision beside the project:

    python experiments/benchmarks/train_step.py
"""
# The project itself never needs torch.
# pyright: reportMissingImports=false

import importlib.util
import json
import pathlib
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from contestants import SIDE, Contestant, machine, matmul, take_turns
from flax import linen, nnx

from bort_jax import bort_sgd, nn
from bort_jax.train.network import make_network
from bort_jax.train.step import StepOptions, init_state, train_step

CASES = {'resnet50': 8, 'vit_s': 8}  # network: pictures in a step
SHAPE, CLASSES, DECAY = (224, 224, 3), 1000, 1e-4


def main(repeats: int = 5, networks: tuple[str, ...] = tuple(CASES)) -> None:
  """Times every contestant.

  Args:
    repeats: steps of each.
    networks: which; of the others the last rows are kept.
  """
  path = pathlib.Path(__file__).with_suffix('.json')
  found = json.loads(path.read_text()) if path.exists() else {}
  for name in networks:
    found[name] = measured(name, CASES[name], repeats)
    path.write_text(json.dumps(found, indent=1) + '\n')
  lines = [
    '| network | contestant | pictures/s | time / ours | spread |'
    ' utilization |',
    '| --- | --- | ---: | ---: | ---: | ---: |',
    *(
      f'| {name} | {r["contestant"]} | {r["pictures_per_s"]:.2f} |'
      f' {r["ratio"]:.3f} | {r["spread"]:.0%} | {r["utilization"]:.0%} |'
      for name in CASES
      if name in found
      for r in found[name]['rows']
    ),
    '',
    *(
      f'{name}: {found[name]["batch"]} pictures of {SHAPE[0]}×{SHAPE[1]},'
      f' {found[name]["forward_gflop"]:.2f} GFLOP forward each; float32 matmul'
      f' {found[name]["gflop_per_s"]:.0f} GFLOP/s; {found[name]["machine"]}.'
      for name in CASES
      if name in found
    ),
  ]
  print('\n'.join(lines))
  path.with_suffix('.md').write_text('\n'.join(lines) + '\n')


def measured(name: str, batch: int, repeats: int) -> dict[str, Any]:
  """All numbers of one network."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (batch, *SHAPE), np.uint8)
  labels = rng.integers(0, CLASSES, batch).astype(np.int32)
  sgd = optax.chain(
    optax.add_decayed_weights(DECAY), optax.sgd(0.01, 0.9, nesterov=True)
  )
  bort = bort_sgd(0.01, 0.1, momentum=0.9, nesterov=True, weight_decay=DECAY)
  steps = {
    'ours': ours(name, sgd, images, labels),
    'ours, Bort': ours(name, bort, images, labels),
  }
  if name == 'resnet50':
    steps['Linen'] = linen_step(images, labels)
  if importlib.util.find_spec('torchvision'):
    steps['torch'] = torch_step(name, images, labels)
  contestants = {k: Contestant(step) for k, step in steps.items()}
  contestants['matmul'] = matmul()
  take_turns(contestants, repeats)
  seconds = {k: c.seconds for k, c in contestants.items()}
  medians = {k: statistics.median(s) for k, s in seconds.items()}
  rate = 2 * SIDE**3 / medians['matmul']
  forward = forward_flop(name)
  return {
    'batch': batch,
    'forward_gflop': forward / 1e9,
    'gflop_per_s': rate / 1e9,
    'machine': machine(),
    'rows': [
      {
        'contestant': k,
        'seconds': medians[k],
        'pictures_per_s': batch / medians[k],
        'ratio': medians[k] / medians['ours'],
        'spread': (max(seconds[k]) - min(seconds[k])) / medians[k],
        'utilization': 3 * forward * batch / medians[k] / rate,
      }
      for k in steps
    ],
  }


def make(name: str) -> nnx.Module:
  """The network of ours."""
  return nn.create(
    name, image_shape=SHAPE, num_classes=CLASSES, rngs=nnx.Rngs(0)
  )


def forward_flop(name: str) -> float:
  """Operations of a forward pass of one picture."""
  model = nnx.eval_shape(lambda: make(name))
  model.eval()
  apply_fn, params = nn.functional(model)
  x = jax.ShapeDtypeStruct((1, *SHAPE), 'float32')
  counted: Any = jax.jit(apply_fn).lower(params, x).cost_analysis()
  return counted['flops']


def ours(name: str, tx, images, labels) -> Callable[[], Any]:
  """The step of bort-jax train."""
  network = make_network(lambda: make(name))
  step = jax.jit(
    partial(train_step, network, tx, StepOptions()), donate_argnums=0
  )
  state, key = [init_state(network, tx)], jax.random.key(0)

  def run():
    state[0], metrics = step(state[0], images, labels, key)
    jax.block_until_ready((state[0], metrics))

  return run


class Bottleneck(linen.Module):
  """A block of ResNet-50 in Linen; stride in the 3×3 convolution."""

  width: int
  stride: int

  @linen.compact
  def __call__(self, x):
    """The block's output."""
    conv = partial(linen.Conv, use_bias=False)
    norm = partial(linen.BatchNorm, use_running_average=False, momentum=0.9)
    y = linen.relu(norm()(conv(self.width, (1, 1))(x)))
    strides = (self.stride, self.stride)
    y = linen.relu(norm()(conv(self.width, (3, 3), strides)(y)))
    y = norm(scale_init=linen.initializers.zeros)(
      conv(4 * self.width, (1, 1))(y)
    )
    if x.shape != y.shape:
      x = norm()(conv(4 * self.width, (1, 1), strides)(x))
    return linen.relu(x + y)


class LinenResNet(linen.Module):
  """ResNet-50 in Linen."""

  @linen.compact
  def __call__(self, x):
    """Logits."""
    x = linen.Conv(64, (7, 7), (2, 2), padding=3, use_bias=False)(x)
    x = linen.BatchNorm(use_running_average=False, momentum=0.9)(x)
    padding: Any = ((1, 1), (1, 1))  # which Flax takes, untyped
    x = linen.max_pool(linen.relu(x), (3, 3), (2, 2), padding)
    for stage, blocks in enumerate((3, 4, 6, 3)):
      for block in range(blocks):
        stride = 2 if stage and block == 0 else 1
        x = Bottleneck(64 * 2**stage, stride)(x)
    return linen.Dense(CLASSES)(jnp.mean(x, (1, 2)))


def linen_step(images, labels) -> Callable[[], Any]:
  """A step as in Flax's ImageNet example: decay in the loss, state carried."""
  network = LinenResNet()
  variables = jax.jit(network.init)(
    jax.random.key(0), jnp.zeros((1, *SHAPE), jnp.float32)
  )
  tx = optax.sgd(0.01, 0.9, nesterov=True)

  @partial(jax.jit, donate_argnums=0)
  def step(state, images, labels):
    params, stats, opt_state = state

    def loss_of(params):
      x = images.astype(jnp.float32) / 255
      logits, new = network.apply(
        {'params': params, 'batch_stats': stats}, x, mutable=['batch_stats']
      )
      targets = jax.nn.one_hot(labels, CLASSES)
      loss = jnp.mean(optax.softmax_cross_entropy(logits, targets))
      kernels = [w for w in jax.tree.leaves(params) if w.ndim > 1]
      decay = sum(jnp.sum(w**2) for w in kernels)
      return loss + DECAY / 2 * decay, (new['batch_stats'], logits)

    (loss, (new_stats, logits)), grads = jax.value_and_grad(
      loss_of, has_aux=True
    )(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    right = jnp.mean(jnp.argmax(logits, -1) == labels)
    new_params = optax.apply_updates(params, updates)
    return (new_params, new_stats, opt_state), (loss, right)

  params, stats = variables['params'], variables['batch_stats']
  state = [(params, stats, tx.init(params))]

  def run():
    state[0], metrics = step(state[0], images, labels)
    jax.block_until_ready((state[0], metrics))

  return run


def torch_step(name: str, images, labels) -> Callable[[], Any]:
  """A step of torchvision's network, channels last."""
  import torch
  import torchvision

  if name == 'resnet50':
    network = torchvision.models.resnet50()
  else:
    network = torchvision.models.VisionTransformer(
      image_size=SHAPE[0],
      patch_size=16,
      num_layers=12,
      num_heads=6,
      hidden_dim=384,
      mlp_dim=1536,
    )
  network = network.to(memory_format=torch.channels_last).train()
  tx = torch.optim.SGD(
    network.parameters(), 0.01, 0.9, weight_decay=DECAY, nesterov=True
  )
  x = torch.from_numpy(images).permute(0, 3, 1, 2)
  y = torch.from_numpy(labels).long()

  def run():
    tx.zero_grad()
    loss = torch.nn.functional.cross_entropy(network(x.float() / 255), y)
    loss.backward()
    tx.step()
    return loss.item()

  return run


if __name__ == '__main__':
  tyro.cli(main)
