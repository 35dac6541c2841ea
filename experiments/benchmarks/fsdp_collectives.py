"""What Bort adds to the communication of a step with sharded parameters.

Compiles the same training step with and without the constraint over a mesh of
eight devices, all of them fsdp, and lists the collectives of the two programs:
how many, and the bytes of their results. The constraint should add all-reduces
of the smaller Gram matrices and gather no weight. Nothing is run. From the
project's root, on any machine:

    python experiments/benchmarks/fsdp_collectives.py --model resnet18
"""

import math
import os
import re
from collections import Counter
from functools import partial

os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=8')

import jax
import tyro

from bort_jax.selection import matrix_views
from bort_jax.train import TrainConfig
from bort_jax.train.network import make_model, make_network
from bort_jax.train.optimizer import make_optimizer
from bort_jax.train.parallel import make_parallel
from bort_jax.train.step import StepOptions, init_state, train_step

_KINDS = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)
_RESULT = re.compile(rf'= (.*?) ({"|".join(_KINDS)})(?:-start)?\(')
_SHAPE = re.compile(r'(?:f|s|u|bf|pred)(\d+)?\[([\d,]*)\]')


def main(
  model: str = 'resnet18', image_size: int = 32, batch_size: int = 64
) -> None:
  """Lists the collectives of a step with and without Bort.

  Args:
    model: network, by its name in bort_jax.nn.create.
    image_size: side of the pictures.
    batch_size: pictures in a batch.
  """
  config = TrainConfig(
    model=model,
    init='default',
    optimizer='sgd',
    gamma=0.1,
    batch_size=batch_size,
    fsdp=8,
    devices=8,
  )
  plain, bort = (
    collectives(config, image_size, constrained)
    for constrained in (False, True)
  )
  print(f'{"collective":20} {"plain":>18} {"with Bort":>18} {"added MB":>9}')
  for kind in _KINDS:
    (n, bytes_), (m, more) = plain[kind], bort[kind]
    print(
      f'{kind:20} {n:6} {bytes_ / 1e6:8.2f} MB {m:6} {more / 1e6:8.2f} MB'
      f' {(more - bytes_) / 1e6:9.2f}'
    )
  network = make_network(
    partial(make_model, config, (image_size, image_size, 3), 10)
  )
  params, _ = jax.eval_shape(network.init)
  views = matrix_views(None, params).values()
  grams = sum(math.prod(v.stack) * min(v.num_out, v.num_in) ** 2 for v in views)
  weights = sum(math.prod(v.shape) for v in views)
  print(
    f'smaller Gram matrices: {4 * grams / 1e6:.2f} MB;'
    f' weights: {4 * weights / 1e6:.2f} MB'
  )


def collectives(
  config: TrainConfig, image_size: int, constrained: bool
) -> dict[str, tuple[int, int]]:
  """Number and bytes of each kind of collective in the compiled step."""
  parallel = make_parallel(config)
  shape = (image_size, image_size, 3)
  network = make_network(partial(make_model, config, shape, 10))
  tx = make_optimizer(config, 100, constrained)
  step = parallel.step(partial(train_step, network, tx, StepOptions()))
  state = parallel.abstract(partial(init_state, network, tx))
  rows = getattr(parallel, 'rows')  # noqa: B009
  images = jax.ShapeDtypeStruct(
    (config.batch_size, *shape), 'uint8', sharding=rows
  )
  labels = jax.ShapeDtypeStruct((config.batch_size,), 'int32', sharding=rows)
  key = jax.random.key(0)
  program = getattr(step, 'lower')(state, images, labels, key)  # noqa: B009
  return count(program.compile().as_text())


def count(text: str) -> dict[str, tuple[int, int]]:
  """Number and bytes of each kind of collective in a program's text."""
  numbers, sizes = Counter(), Counter()
  for shapes, kind in _RESULT.findall(text):
    numbers[kind] += 1
    for bits, dims in _SHAPE.findall(shapes):
      entries = math.prod(int(d) for d in dims.split(',') if d)
      sizes[kind] += entries * int(bits or 8) // 8
  return {kind: (numbers[kind], sizes[kind]) for kind in _KINDS}


if __name__ == '__main__':
  tyro.cli(main)
