"""XLA's convolutions beside PyTorch's and beside products of matrices.

Convolutions of ResNet-50, of the small ResNet-18 and of a ViT-S, float32, in
the layouts that each prefers, channels last: the convolution, the gradient of
its input and that of its kernel, each compiled alone; where patches do not
overlap also as bort_jax.products does it. Contestants take turns; each time is
the median of several. From the project's root, with torch installed beside the
project:

    python experiments/benchmarks/convolutions.py
"""
# The project itself never needs torch.
# pyright: reportMissingImports=false

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from contestants import Contestant, machine, ratio, take_turns
from results import write_results

from bort_jax.products import as_products


class Shape(NamedTuple):
  """A convolution."""

  pictures: int
  side: int
  inputs: int
  outputs: int
  kernel: int
  stride: int

  @property
  def around(self) -> int:
    """Zeros on every side."""
    return 0 if self.kernel == self.stride else (self.kernel - 1) // 2

  @property
  def has_product(self) -> bool:
    """Whether patches do not overlap."""
    return self.kernel in (1, self.stride)


SHAPES = (
  Shape(8, 224, 3, 64, 7, 2),
  Shape(8, 56, 64, 64, 1, 1),
  Shape(8, 56, 64, 256, 1, 1),
  Shape(8, 56, 256, 64, 1, 1),
  Shape(8, 56, 256, 512, 1, 2),
  Shape(8, 56, 64, 64, 3, 1),
  Shape(8, 56, 128, 128, 3, 2),
  Shape(8, 28, 512, 128, 1, 1),
  Shape(8, 14, 1024, 256, 1, 1),
  Shape(8, 14, 256, 256, 3, 1),
  Shape(8, 7, 512, 2048, 1, 1),
  Shape(8, 7, 512, 512, 3, 1),
  Shape(32, 32, 64, 64, 3, 1),
  Shape(32, 8, 256, 256, 3, 1),
  Shape(8, 224, 3, 384, 16, 16),
)
OPERATIONS = ('forward', 'input gradient', 'kernel gradient')


def main(repeats: int = 9) -> None:
  """Times every convolution.

  Args:
    repeats: calls of each contestant.
  """
  rows = [row for shape in SHAPES for row in measured(shape, repeats)]
  lines = [
    '| pictures | convolution | operation | XLA (ms) | PyTorch (ms) | PyTorch /'
    ' XLA | 95 % interval | product (ms) | product / XLA | 95 % interval |',
    '| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    *map(line, rows),
    '',
    f'{machine()}.',
  ]
  write_results(__file__, rows, lines)


def measured(shape: Shape, repeats: int) -> list[dict[str, Any]]:
  """A row for each operation."""
  rng = np.random.default_rng(0)
  x = rng.standard_normal(
    (shape.pictures, shape.side, shape.side, shape.inputs), np.float32
  )
  w = rng.standard_normal(
    (shape.kernel, shape.kernel, shape.inputs, shape.outputs), np.float32
  )
  ways = {
    'xla': jax_operations(partial(convolution, shape), x, w),
    'torch': torch_operations(shape, x, w),
  }
  if shape.has_product:
    product = as_products(partial(convolution, shape))
    ways['product'] = jax_operations(product, x, w)
  rows = []
  for operation in OPERATIONS:
    contestants = {
      name: Contestant(way[operation]) for name, way in ways.items()
    }
    take_turns(contestants, repeats)
    seconds = {name: c.seconds for name, c in contestants.items()}
    xla = seconds.pop('xla')
    rows.append(
      {
        **shape._asdict(),
        'operation': operation,
        'xla_ms': 1e3 * statistics.median(xla),
        **{f'{n}_ms': 1e3 * statistics.median(s) for n, s in seconds.items()},
        **{f'{n}_ratio': ratio(s, xla) for n, s in seconds.items()},
      }
    )
  return rows


def convolution(shape: Shape, x: jax.Array, w: jax.Array) -> jax.Array:
  """XLA's."""
  return jax.lax.conv_general_dilated(
    x,
    w,
    (shape.stride, shape.stride),
    [(shape.around, shape.around)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def jax_operations(forward, x, w) -> dict[str, Callable[[], Any]]:
  """The three, compiled by JAX."""
  x, w = jnp.asarray(x), jnp.asarray(w)
  g = jnp.ones_like(jax.jit(forward)(x, w))
  of_input = lambda x, w, g: jax.vjp(lambda x: forward(x, w), x)[1](g)
  of_kernel = lambda x, w, g: jax.vjp(lambda w: forward(x, w), w)[1](g)
  functions = (lambda x, w, g: forward(x, w), of_input, of_kernel)

  def call(function) -> Callable[[], Any]:
    program = jax.jit(function)
    return lambda: jax.block_until_ready(program(x, w, g))

  return dict(zip(OPERATIONS, map(call, functions), strict=True))


def torch_operations(shape: Shape, x, w) -> dict[str, Callable[[], Any]]:
  """The three, by PyTorch."""
  import torch

  stride, around = shape.stride, shape.around
  last = torch.channels_last
  x = torch.from_numpy(x).permute(0, 3, 1, 2)
  w = torch.from_numpy(w).permute(3, 2, 0, 1).contiguous(memory_format=last)
  forward = lambda: torch.nn.functional.conv2d(x, w, None, stride, around)
  g = torch.ones_like(forward())
  pairs = lambda n: [n, n]

  def backward(mask):
    return torch.ops.aten.convolution_backward(
      g,
      x,
      w,
      None,
      pairs(stride),
      pairs(around),
      pairs(1),
      False,
      pairs(0),
      1,
      mask,
    )

  return {
    'forward': forward,
    'input gradient': lambda: backward([True, False, False]),
    'kernel gradient': lambda: backward([False, True, False]),
  }


def line(row: dict[str, Any]) -> str:
  """A row of the table."""
  kernel, side = row['kernel'], row['side']
  cells = [
    f'{row["pictures"]} of {side}×{side}',
    f'{row["inputs"]} to {row["outputs"]}, {kernel}×{kernel}, stride'
    f' {row["stride"]}',
    row['operation'],
    f'{row["xla_ms"]:.1f}',
  ]
  for name in ('torch', 'product'):
    if f'{name}_ms' in row:
      median, low, high = row[f'{name}_ratio']
      cells += [
        f'{row[f"{name}_ms"]:.1f}',
        f'{median:.2f}',
        f'{low:.2f} … {high:.2f}',
      ]
    else:
      cells += [''] * 3
  return f'| {" | ".join(cells)} |'


if __name__ == '__main__':
  tyro.cli(main)
