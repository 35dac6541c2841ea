"""Time and memory of explanations of B-cos networks, beside a forward pass.

Time: one explanation (forward pass, linear map and its sums) of a class over
one forward pass of the same network. Contestants take turns; each time is the
median of several. Memory: what the compiled program of all classes needs beside
its arguments and its result, as XLA plans it, one class at a time and all at
once; the result itself grows with the number of classes. From the project's
root:

    python experiments/benchmarks/bcos.py
"""

import json
import os
import pathlib
import statistics
import time
from typing import Any

import jax
import tyro
from flax import nnx

from bort_jax import nn

# name: (picture, pictures at once)
_CASES = {
  'bcos_resnet20': ((32, 32, 3), (1, 16)),
  'bcos_resnet18': ((224, 224, 3), (1,)),
}
_CLASSES, _COUNT = (10, 100, 1000), 4  # of memory: bcos_resnet20


def main(repeats: int = 7) -> None:
  """Times and weighs.

  Args:
    repeats: runs of each contestant.
  """
  times = [
    timed(name, shape, count, repeats)
    for name, (shape, counts) in _CASES.items()
    for count in counts
  ]
  memory = [weighed(classes) for classes in _CLASSES]
  lines = [
    '| network | pictures | forward, ms | explanation, ms | ratio | spread |',
    '| --- | ---: | ---: | ---: | ---: | ---: |',
    *(
      f'| {r["network"]} | {r["pictures"]} | {r["forward"]:.1f} |'
      f' {r["explanation"]:.1f} | {r["ratio"]:.1f} | {r["spread"]:.0%} |'
      for r in times
    ),
    '',
    '| classes | result, MB | beside it, one at a time, MB | all at once, MB |',
    '| ---: | ---: | ---: | ---: |',
    *(
      f'| {r["classes"]} | {r["result"]:.1f} | {r["one"]:.1f} |'
      f' {r["all"]:.1f} |'
      for r in memory
    ),
    '',
    'Spread: largest less smallest time of an explanation over the median.'
    f' Memory: bcos_resnet20, {_COUNT} pictures of 32×32. jax'
    f' {jax.__version__} on {jax.devices()[0].device_kind}'
    f' ({os.cpu_count()} cores).',
  ]
  print('\n'.join(lines))
  path = pathlib.Path(__file__).with_suffix('.json')
  text = json.dumps({'times': times, 'memory': memory}, indent=1)
  path.write_text(text + '\n')
  path.with_suffix('.md').write_text('\n'.join(lines) + '\n')


def timed(name: str, shape, count: int, repeats: int) -> dict[str, Any]:
  """Milliseconds of a forward pass and of an explanation."""
  apply_fn, params = functional(name, shape, 10)
  x = jax.random.uniform(jax.random.key(0), (count, *shape))
  target = jax.numpy.zeros(count, int)
  forward = jax.jit(apply_fn)
  runs = {
    'forward': lambda: forward(params, x),
    'explanation': lambda: nn.bcos.explain(apply_fn, params, x, target),
  }
  seconds: dict[str, list[float]] = {key: [] for key in runs}
  for turn in range(repeats + 1):
    for key, run in runs.items():
      start = time.perf_counter()
      jax.block_until_ready(run())
      if turn:  # the first compiles
        seconds[key].append(time.perf_counter() - start)
  middle = {k: 1e3 * statistics.median(v) for k, v in seconds.items()}
  own = seconds['explanation']
  return {
    'network': name,
    'pictures': count,
    **middle,
    'ratio': middle['explanation'] / middle['forward'],
    'spread': (max(own) - min(own)) / statistics.median(own),
  }


def weighed(classes: int) -> dict[str, Any]:
  """Megabytes that the program of all classes needs, in two ways."""
  apply_fn, params = functional('bcos_resnet20', (32, 32, 3), classes)
  x = jax.ShapeDtypeStruct((_COUNT, 32, 32, 3), jax.numpy.float32)

  def planned(chunk: int) -> Any:
    explain = lambda params, x: nn.bcos.explain_all(
      apply_fn, params, x, chunk=chunk
    )
    return jax.jit(explain).lower(params, x).compile().memory_analysis()

  one, together = planned(1), planned(classes)
  return {
    'classes': classes,
    'result': one.output_size_in_bytes / 1e6,
    'one': one.temp_size_in_bytes / 1e6,
    'all': together.temp_size_in_bytes / 1e6,
  }


def functional(name: str, shape, classes: int):
  """An untrained network as a pure function, and its parameters."""
  model = nn.create(
    name, image_shape=shape, num_classes=classes, rngs=nnx.Rngs(0)
  )
  model.eval()
  return nn.functional(model)


if __name__ == '__main__':
  tyro.cli(main)
