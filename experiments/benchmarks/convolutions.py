"""XLA's convolutions beside PyTorch's, forward and backward.

Convolutions of ResNet-50 and of the small ResNet-18, float32, in the layouts
that each prefers, channels last: the convolution, the gradient of its input and
that of its kernel, each compiled alone. Contestants take turns; each time is
the median of several. From the project's root, with torch installed beside the
project:

    python experiments/benchmarks/convolutions.py
"""
# The project itself never needs torch.
# pyright: reportMissingImports=false

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from contestants import Contestant, machine, ratio, take_turns
from results import write_results


class Shape(NamedTuple):
  """A convolution."""

  pictures: int
  side: int
  inputs: int
  outputs: int
  kernel: int
  stride: int


SHAPES = (
  Shape(8, 224, 3, 64, 7, 2),
  Shape(8, 56, 64, 64, 1, 1),
  Shape(8, 56, 64, 256, 1, 1),
  Shape(8, 56, 64, 64, 3, 1),
  Shape(8, 56, 128, 128, 3, 2),
  Shape(8, 14, 1024, 256, 1, 1),
  Shape(8, 14, 256, 256, 3, 1),
  Shape(8, 7, 512, 512, 3, 1),
  Shape(32, 32, 64, 64, 3, 1),
  Shape(32, 8, 256, 256, 3, 1),
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
    ' XLA | 95 % interval |',
    '| --- | --- | --- | ---: | ---: | ---: | ---: |',
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
  xla, torch = xla_operations(shape, x, w), torch_operations(shape, x, w)
  rows = []
  for operation in OPERATIONS:
    contestants = {
      'xla': Contestant(xla[operation]),
      'torch': Contestant(torch[operation]),
    }
    take_turns(contestants, repeats)
    seconds = {name: c.seconds for name, c in contestants.items()}
    rows.append(
      {
        **shape._asdict(),
        'operation': operation,
        **{f'{n}_ms': 1e3 * statistics.median(s) for n, s in seconds.items()},
        'ratio': ratio(seconds['torch'], seconds['xla']),
      }
    )
  return rows


def xla_operations(shape: Shape, x, w) -> dict[str, Callable[[], Any]]:
  """The three, compiled by JAX."""

  def convolution(x, w):
    around = (shape.kernel - 1) // 2
    return jax.lax.conv_general_dilated(
      x,
      w,
      (shape.stride, shape.stride),
      [(around, around)] * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  x, w = jnp.asarray(x), jnp.asarray(w)
  g = jnp.ones_like(convolution(x, w))
  of_input = lambda x, w, g: jax.vjp(lambda x: convolution(x, w), x)[1](g)
  of_kernel = lambda x, w, g: jax.vjp(lambda w: convolution(x, w), w)[1](g)
  functions = (lambda x, w, g: convolution(x, w), of_input, of_kernel)

  def call(function) -> Callable[[], Any]:
    program = jax.jit(function)
    return lambda: jax.block_until_ready(program(x, w, g))

  return dict(zip(OPERATIONS, map(call, functions), strict=True))


def torch_operations(shape: Shape, x, w) -> dict[str, Callable[[], Any]]:
  """The three, by PyTorch."""
  import torch

  stride, around = shape.stride, (shape.kernel - 1) // 2
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
  return (
    f'| {row["pictures"]} of {side}×{side} | {row["inputs"]} to'
    f' {row["outputs"]}, {kernel}×{kernel}, stride {row["stride"]} |'
    f' {row["operation"]} | {row["xla_ms"]:.1f} | {row["torch_ms"]:.1f} |'
    f' {row["ratio"][0]:.2f} | {row["ratio"][1]:.2f} … {row["ratio"][2]:.2f} |'
  )


if __name__ == '__main__':
  tyro.cli(main)
