"""Pictures per second that come in, beside what a step of training takes.

The sources of ``bort-jax train``, sets in memory and sets that are streamed
from disk, with real pictures; alone, and before the step of a run on this
machine. Contestants take turns, in an order drawn for each round: the source
alone for a second, 20 steps on one batch, and 20 on what comes from the source,
as the trainer has it. More batches than a stream makes ahead are taken away
before the clock starts, so what is timed is made meanwhile. Batches are small,
for 20 steps to be short. Each number is the median of several stretches. Where
both together are as fast as the step alone, the device never waits. From the
project's root, with the sets prepared in $TFDS_DATA_DIR:

    python experiments/benchmarks/input.py
"""

import contextlib
import json
import pathlib
import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import tyro
from contestants import machine, ratio

from bort_jax.train import TrainConfig
from bort_jax.train.comparison import network_of
from bort_jax.train.optimizer import make_optimizer
from bort_jax.train.parallel import make_parallel
from bort_jax.train.source import Source, make_source
from bort_jax.train.step import StepOptions, first_state, train_step

STEPS = 20  # in a stretch
SECONDS = 1.0  # that a source alone is read for
AHEAD = 8  # batches: more than threads, or a worker, make and keep

_MNIST = {'data': 'mnist', 'model': 'simple_cnn', 'batch_size': 64}
_CIFAR = {'data': 'cifar10', 'model': 'resnet20', 'batch_size': 16}
_IMAGENET = {
  'data': 'imagenet2012',
  'train_split': 'validation',
  'test_split': 'validation',
  'model': 'resnet18',
  'batch_size': 2,
  'image_size': 224,
}
CASES: dict[str, dict[str, Any]] = {
  'MNIST, in memory': _MNIST,
  'MNIST, streamed': {**_MNIST, 'image_size': 28},
  'CIFAR-10, in memory': _CIFAR,
  'CIFAR-10, streamed': {**_CIFAR, 'image_size': 32},
  'ImageNet, streamed': _IMAGENET,
  'ImageNet, streamed by a process': {**_IMAGENET, 'num_workers': 1},
}


def main(repeats: int = 6, cases: tuple[str, ...] = tuple(CASES)) -> None:
  """Times every case.

  Args:
    repeats: stretches of each contestant.
    cases: sources; of the others the last rows are kept.
  """
  path = pathlib.Path(__file__).with_suffix('.json')
  kept = json.loads(path.read_text()) if path.exists() else {}
  for name in cases:
    kept[name] = measured(CASES[name], repeats)
    path.write_text(json.dumps(kept, indent=1) + '\n')
  found = {name: kept[name] for name in CASES if name in kept}
  path.write_text(json.dumps(found, indent=1) + '\n')
  lines = [
    '| source | network | batch | source alone, pictures/s |'
    ' step alone, pictures/s | both, pictures/s | source / step | both / step |'
    ' 95 % interval |',
    '| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    *(
      f'| {name} | {r["network"]} | {r["batch"]} | {r["source"]:,.0f} |'
      f' {r["step"]:,.1f} | {r["both"]:,.1f} | {r["source"] / r["step"]:,.1f} |'
      f' {r["share"][0]:.2f} | {r["share"][1]:.2f} … {r["share"][2]:.2f} |'
      for name, r in found.items()
    ),
    '',
    f'{STEPS} steps a stretch, after {AHEAD} batches that do not count.'
    f' {machine()}.',
  ]
  print('\n'.join(lines))
  path.with_suffix('.md').write_text('\n'.join(lines) + '\n')


def measured(
  settings: dict[str, Any], repeats: int, steps: int = STEPS
) -> dict[str, Any]:
  """All numbers of one source."""
  config = TrainConfig(
    **{'init': 'default', 'constraint': 'none', 'devices': 1, **settings}
  )
  source = make_source(config)
  trained = trainer(config, source)
  with opened(source) as batches:
    batch = next(batches)
  contestants: dict[str, Callable[[], float]] = {
    'source': partial(read, source, SECONDS),
    'step': partial(repeated, trained, batch, steps),
    'both': partial(fed, trained, source, steps),
  }
  rates: dict[str, list[float]] = {name: [] for name in contestants}
  order = random.Random(0)
  for turn in range(repeats + 1):
    for name in order.sample([*contestants], len(contestants)):
      batches_per_second = contestants[name]()
      if turn:  # the first compiles
        rates[name].append(config.batch_size * batches_per_second)
  return {
    'network': config.model,
    'batch': config.batch_size,
    'image_shape': source.image_shape,
    **{name: statistics.median(found) for name, found in rates.items()},
    'share': ratio(rates['both'], rates['step']),
    'rates': rates,
  }


@contextlib.contextmanager
def opened(source: Source) -> Iterator[Any]:
  """Batches, ended at the end; none of them has been made ahead."""
  batches: Any = source.train(0)
  with contextlib.closing(batches):
    for _ in range(AHEAD):
      next(batches)
    yield batches


def read(source: Source, seconds: float) -> float:
  """Batches per second of the source alone, in at least that time."""
  with opened(source) as batches:
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
      next(batches)
      count += 1
    return count / passed


def trainer(config: TrainConfig, source: Source) -> Callable[..., Any]:
  """A function of a batch that goes on with the training."""
  parallel = make_parallel(config)
  network = network_of(config, source, parallel)
  tx = make_optimizer(config, 1000, constrained=False)
  step = parallel.step(partial(train_step, network, tx, StepOptions()))
  weights = parallel.init(network.init)
  carry = [parallel.init(partial(first_state, tx, False), *weights)]
  key = jax.random.key(0)

  def run(batch):
    carry[0], metrics = step(carry[0], *parallel.batch(*batch), key)
    return metrics

  return run


def repeated(trained: Callable, batch: Any, steps: int) -> float:
  """Batches per second of steps on one of them."""
  jax.block_until_ready(trained(batch))
  start = time.perf_counter()
  jax.block_until_ready([trained(batch) for _ in range(steps)])
  return steps / (time.perf_counter() - start)


def fed(trained: Callable, source: Source, steps: int) -> float:
  """Batches per second of steps on what comes from the source."""
  with opened(source) as batches:
    start = time.perf_counter()
    jax.block_until_ready([trained(next(batches)) for _ in range(steps)])
    return steps / (time.perf_counter() - start)


if __name__ == '__main__':
  tyro.cli(main)
