"""How costs grow: time with width and depth, bytes with devices, memory.

Time: what Bort adds to a step of SGD on square kernels; contestants take turns,
medians; the exponent is fitted to the logarithms. Devices: the collectives in
the compiled update of ResNet-50's kernels, sharded as ``--fsdp`` shards them,
beside four bytes for each entry of the smaller Gram matrices. Memory: of
attribution, what the compiled program needs beside arguments and result; of a
pass over a data set, the greatest resident set of a process of its own. From
the project's root:

    python experiments/benchmarks/growth.py
"""

import json
import math
import multiprocessing
import pathlib
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
import update
from contestants import machine, take_turns
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bort_jax import attribution, bort, bort_sgd, nn
from bort_jax.matrices import MatrixAxes, MatrixView
from bort_jax.metrics import neurons
from bort_jax.train.parallel import sharded_axis

WIDTHS = (256, 512, 1024, 2048)  # one kernel
DEPTHS = (2, 4, 8, 16)  # kernels of width 512
DEVICES = (2, 4, 8)
SETS = (100, 400, 1600)  # pictures of a pass, 100 in a batch
STEPS = (8, 32, 128)  # of integrated gradients on 8 pictures
PICTURES = (8, 32, 128)  # explained, 8 in a chunk
SHAPE = (32, 32, 3)


def main(repeats: int = 9) -> None:
  """Measures all.

  Args:
    repeats: steps of each contestant.
  """
  widths = {w: added_seconds(w, 1, repeats) for w in WIDTHS}
  depths = {d: added_seconds(512, d, repeats) for d in DEPTHS}
  devices = in_process(all_moved_bytes)
  sets = {n: in_process(peak_of_survey, n) for n in SETS}
  steps = {s: planned_bytes(8, s) for s in STEPS}
  pictures = {n: planned_bytes(n, 8) for n in PICTURES}
  found = {
    'width': {str(k): v for k, v in widths.items()},
    'width_exponent': exponent(widths),
    'depth': {str(k): v for k, v in depths.items()},
    'depth_exponent': exponent(depths),
    'devices': {str(k): v for k, v in devices.items()},
    'survey_bytes': {str(k): v for k, v in sets.items()},
    'steps_bytes': {str(k): v for k, v in steps.items()},
    'pictures_bytes': {str(k): v for k, v in pictures.items()},
    'machine': machine(),
  }
  path = pathlib.Path(__file__).with_suffix('.json')
  path.write_text(json.dumps(found, indent=1) + '\n')
  text = '\n'.join(table(found)) + '\n'
  print(text)
  path.with_suffix('.md').write_text(text)


def table(found: dict[str, Any]) -> list[str]:
  """What was found, and the laws."""
  join = lambda values, form: ' · '.join(format(v, form) for v in values)
  milliseconds = lambda key: join((1e3 * t for t in found[key].values()), '.2f')
  megabytes = lambda key: join((b / 1e6 for b in found[key].values()), '.1f')
  keys = lambda key: ' · '.join(found[key])
  devices = found['devices'].values()
  moved, law = (
    join((d[k] / 1e6 for d in devices), '.2f') for k in ('moved', 'law')
  )
  return [
    '| what grows | values | measured | law |',
    '| --- | --- | --- | --- |',
    f'| width of a square kernel | {keys("width")} |'
    f' {milliseconds("width")} ms added, exponent'
    f' {found["width_exponent"]:.2f} | 3 |',
    f'| kernels of width 512 | {keys("depth")} | {milliseconds("depth")} ms'
    f' added, exponent {found["depth_exponent"]:.2f} | 1 |',
    f'| devices that share ResNet-50 | {keys("devices")} | {moved} MB summed,'
    f' nothing else | {law} MB: 4m² of each sharded kernel |',
    f'| pictures of neurons.survey | {keys("survey_bytes")} |'
    f' {megabytes("survey_bytes")} MB at most, in the process | flat |',
    f'| steps of integrated gradients | {keys("steps_bytes")} |'
    f' {megabytes("steps_bytes")} MB planned | flat |',
    f'| pictures explained, chunk=8 | {keys("pictures_bytes")} |'
    f' {megabytes("pictures_bytes")} MB planned | flat |',
    '',
    f'{found["machine"]}; ResNet-20 on {SHAPE[0]}×{SHAPE[1]} is what is'
    ' explained and surveyed.',
  ]


def exponent(seconds: dict[int, float]) -> float:
  """Slope of the logarithm of the time over that of the size."""
  sizes, times = np.log(list(seconds)), np.log(list(seconds.values()))
  return float(np.polyfit(sizes, times, 1)[0])


def added_seconds(width: int, depth: int, repeats: int) -> float:
  """What Bort adds to a step on so many square kernels."""
  view = MatrixView((width, width), MatrixAxes(0, 1))
  views = {f'{i}/kernel': view for i in range(depth)}
  contestants = {
    'sgd': update.ours(optax.sgd(0.1, 0.9), None, views),
    'bort': update.ours(bort_sgd(0.1, 0.1, momentum=0.9), 'sgd', views),
  }
  take_turns(contestants, repeats)
  plain, ours = (statistics.median(c.seconds) for c in contestants.values())
  return ours - plain


def all_moved_bytes() -> dict[int, dict[str, int]]:
  """For each number of devices, in a process that has so many virtual ones."""
  import fsdp_collectives  # which sees to it, if jax has not started

  return {n: moved_bytes(n, fsdp_collectives.count) for n in DEVICES}


def moved_bytes(devices: int, count) -> dict[str, int]:
  """What the collectives of an update of ResNet-50 hold, and the law."""
  mesh = jax.make_mesh(
    (devices,),
    ('x',),
    devices=jax.devices()[:devices],
    axis_types=(AxisType.Auto,),
  )
  law, kernels = 0, {}
  for path, view in update.kernels('resnet50').items():
    kernel = jax.ShapeDtypeStruct(view.shape, 'float32')
    axis = sharded_axis(path, kernel, devices)
    spec: list[str | None] = [None] * len(view.shape)
    if axis is not None:
      spec[axis] = 'x'
      law += 4 * min(view.num_out, view.num_in) ** 2
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    kernels[path] = jax.ShapeDtypeStruct(
      view.shape, 'float32', sharding=sharding
    )
  params = update.tree_of(kernels)
  tx = bort(1.0)
  program = jax.jit(
    lambda grads, params: tx.update(grads, tx.init(params), params)[0]
  )
  text = program.lower(params, params).compile().as_text()
  found = count(text or '')
  summed = found.pop('all-reduce')[1]
  others = sum(size for _, size in found.values())
  if others:
    raise RuntimeError(f'The update moves more than Gram matrices: {found}.')
  return {'moved': summed, 'law': law}


def network(method: str | None = None):
  """An untrained ResNet-20 as a function, and its parameters."""
  model = nn.create(
    'resnet20', image_shape=SHAPE, num_classes=10, rngs=nnx.Rngs(0)
  )
  model.eval()
  return nn.functional(model, method)


def planned_bytes(pictures: int, steps: int) -> int:
  """What integrated gradients need beside arguments and result."""
  apply_fn, params = network()
  explain = lambda params, x, target: attribution.integrated_gradients(
    apply_fn, params, x, target, steps=steps, chunk=8
  )
  x = jax.ShapeDtypeStruct((pictures, *SHAPE), 'float32')
  target = jax.ShapeDtypeStruct((pictures,), 'int32')
  program = jax.jit(explain).lower(params, x, target).compile()
  analysis: Any = program.memory_analysis()
  return analysis.temp_size_in_bytes


def in_process(function, *args) -> Any:
  """The result of a function in a process of its own."""
  with multiprocessing.get_context('spawn').Pool(1) as pool:
    return pool.apply(function, args)


def peak_of_survey(pictures: int) -> int:
  """Greatest resident set of a process that surveys so many pictures."""
  outputs, params = network('intermediates')
  rng = np.random.default_rng(0)
  batches = (
    (jnp.asarray(rng.random((100, *SHAPE), np.float32)), jnp.arange(100) % 10)
    for _ in range(math.ceil(pictures / 100))
  )
  neurons.survey(outputs, params, batches, num_classes=10)
  status = pathlib.Path('/proc/self/status').read_text()
  (line,) = (x for x in status.splitlines() if x.startswith('VmHWM'))
  return 1024 * int(line.split()[1])


if __name__ == '__main__':
  tyro.cli(main)
