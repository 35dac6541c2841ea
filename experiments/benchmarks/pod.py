"""What Bort would cost on a TPU pod slice, from laws and public numbers.

A model, not a measurement: no TPU was used. It knows the floating-point work of
a training step (three forward passes, counted by XLA) and of the correction
(4·m²·n for an m×n matrix, m the smaller side), and the bytes of the Gram
matrices that sharded parameters make the chips sum. Every other number is an
assumption, and named in the table. From the project's root:

    python experiments/benchmarks/pod.py
"""

import dataclasses
import json
import math
import pathlib
from typing import Any

import jax
import tyro
from flax import nnx

from bort_jax import nn
from bort_jax.matrices import MatrixView
from bort_jax.selection import matrix_views
from bort_jax.train.parallel import sharded_axis

NETWORKS: dict[str, tuple[str, int, dict[str, Any]]] = {
  # name: (in nn.create, pictures in a global batch, options)
  'ResNet-50': ('resnet50', 8192, {}),
  'ViT-L/16': (
    'vit_b',
    4096,
    {'width': 1024, 'depth': 24, 'num_heads': 16},
  ),
}
SHAPE, CLASSES = (224, 224, 3), 1000


@dataclasses.dataclass(frozen=True)
class Assumptions:
  """Of a TPU v5e slice; the first three are Google's published numbers."""

  chips: int = 256
  """Chips in the slice."""
  peak: float = 197e12
  """bfloat16 operations per second of a chip."""
  link: float = 200e9
  """Bytes per second in and out of a chip, all links together."""
  passes: int = 6
  """bfloat16 products that one of float32 at the highest precision takes."""
  used_by_step: float = 0.4
  """Share of the peak that a bfloat16 training step reaches."""
  used_by_products: float = 0.5
  """Share of the peak that the products of the correction reach."""
  overlap: float = 0.0
  """Share of the summing that hides behind other work."""


def main(assumed: Assumptions = Assumptions()) -> None:
  """Prints and writes the prediction.

  Args:
    assumed: what is not known.
  """
  rows = [
    row(name, shards, every, assumed)
    for name in NETWORKS
    for shards in (1, 8, assumed.chips)
    for every in (1, 4, 16)
  ]
  lines = [
    '| network | pictures on a chip | shards | every | step, ms |'
    ' products, ms | sums, ms | added |',
    '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    *map(line, rows),
    '',
    'Predicted, not measured. Assumed: '
    + ', '.join(
      f'{field.name} = {getattr(assumed, field.name):g}'
      for field in dataclasses.fields(assumed)
    )
    + '. One shard: every chip corrects all matrices. A step: three forward'
    ' passes. A sum of b bytes over n chips moves 2b(n − 1)/n through each.',
  ]
  path = pathlib.Path(__file__).with_suffix('.json')
  found = {'assumed': dataclasses.asdict(assumed), 'rows': rows}
  path.write_text(json.dumps(found, indent=1) + '\n')
  text = '\n'.join(lines) + '\n'
  print(text)
  path.with_suffix('.md').write_text(text)


def line(row: dict[str, Any]) -> str:
  """A row of the table."""
  return (
    f'| {row["network"]} | {row["pictures"]:g} | {row["shards"]} |'
    f' {row["every"]} | {row["step_ms"]:.2f} | {row["products_ms"]:.3f} |'
    f' {row["sums_ms"]:.3f} | {row["added"]:.1%} |'
  )


def row(
  name: str, shards: int, every: int, assumed: Assumptions
) -> dict[str, Any]:
  """The prediction for one network, laid out in one way."""
  _, batch, _ = NETWORKS[name]
  forward, views = work_of(name)
  pictures = batch / assumed.chips
  step = 3 * forward * pictures / (assumed.peak * assumed.used_by_step)
  flop, summed = correction(views, shards)
  rate = assumed.peak * assumed.used_by_products / assumed.passes
  products = flop / rate / every
  moved = 2 * summed * (shards - 1) / shards / every
  sums = (1 - assumed.overlap) * moved / assumed.link
  return {
    'network': name,
    'pictures': pictures,
    'shards': shards,
    'every': every,
    'forward_gflop': forward / 1e9,
    'step_ms': 1e3 * step,
    'products_ms': 1e3 * products,
    'sums_ms': 1e3 * sums,
    'added': (products + sums) / step,
  }


def correction(views: dict[str, MatrixView], shards: int) -> tuple[float, int]:
  """Operations on one chip, and bytes of the Gram matrices that are summed.

  A kernel that the shards do not divide is whole on every chip.
  """
  flop, summed = 0.0, 0
  for path, view in views.items():
    kernel = jax.ShapeDtypeStruct(view.shape, 'float32')
    is_sharded = sharded_axis(path, kernel, shards) is not None
    flop += 4 * view.products / (shards if is_sharded else 1)
    if is_sharded:
      side = min(view.num_out, view.num_in)
      summed += 4 * math.prod(view.stack) * side**2
  return flop, summed


_known: dict[str, tuple[float, dict[str, MatrixView]]] = {}


def work_of(name: str) -> tuple[float, dict[str, MatrixView]]:
  """Operations of a forward pass of one picture, and the kernels."""
  if name not in _known:
    network, _, options = NETWORKS[name]
    model = nnx.eval_shape(
      lambda: nn.create(
        network,
        image_shape=SHAPE,
        num_classes=CLASSES,
        rngs=nnx.Rngs(0),
        **options,
      )
    )
    model.eval()
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    apply_fn, state = nn.functional(model)
    x = jax.ShapeDtypeStruct((1, *SHAPE), 'float32')
    counted: Any = jax.jit(apply_fn).lower(state, x).cost_analysis()
    _known[name] = counted['flops'], matrix_views(None, params)
  return _known[name]


if __name__ == '__main__':
  tyro.cli(main)
