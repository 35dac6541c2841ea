"""Pictures per second of running back and of certificates, beside forward.

Networks with orthogonal kernels, to a layer and back, compiled. Contestants
take turns; each time is the median of several, and the ratio is to the forward
pass of the same network in the same run. From the project's root:

    python experiments/benchmarks/inversion.py
"""

import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import tyro
from flax import nnx

from bort_jax import inversion, nn

CASES = {  # name: (picture, layer, pictures at once, options)
  'patch_net': ((28, 28, 1), 'features', 64, {}),
  'simple_cnn': ((28, 28, 1), 'act3', 64, {}),
  'vgg16': ((64, 64, 3), 'act2_2', 8, {}),
  'resnet20': ((32, 32, 3), 'stage1/block3', 16, {}),
  'vit_ti': ((32, 32, 3), 'block12', 8, {'patch_size': 4}),
}


def main(repeats: int = 5, cases: tuple[str, ...] = tuple(CASES)) -> None:
  """Times every case.

  Args:
    repeats: runs of each contestant.
    cases: networks; numbers of others are kept, as ratios are within one.
  """
  path = pathlib.Path(__file__).with_suffix('.json')
  rows = json.loads(path.read_text()) if path.exists() else []
  for name in cases:
    shape, layer, count, options = CASES[name]
    rows = [row for row in rows if row['network'] != name]
    rows += measured(name, shape, layer, count, options, repeats)
    print(*rows[-5:], sep='\n', flush=True)
    path.write_text(json.dumps(rows, indent=1) + '\n')
  lines = [
    '| network | contestant | pictures/s | time / forward | spread | steps |',
    '| --- | --- | ---: | ---: | ---: | ---: |',
    *(
      f'| {r["network"]} to {r["layer"]} | {r["contestant"]} |'
      f' {r["pictures_per_second"]:.3g} | {r["ratio"]:.3g} |'
      f' {r["spread"]:.0%} | {r["steps"]} |'
      for r in rows
    ),
    '',
    'Spread: largest less smallest over the median. jax'
    f' {jax.__version__} on {jax.devices()[0].device_kind}'
    f' ({os.cpu_count()} cores).',
  ]
  print('\n'.join(lines))
  path.with_suffix('.md').write_text('\n'.join(lines) + '\n')


def measured(name, shape, layer, count, options, repeats) -> list[dict]:
  """A row for each contestant."""
  model = nn.create(
    name,
    image_shape=shape,
    num_classes=10,
    kernel_init=nnx.initializers.orthogonal(),
    rngs=nnx.Rngs(0),
    **options,
  )
  model.eval()
  outputs, params = nn.functional(model, 'intermediates')
  features = inversion.until(outputs, layer)
  x = jax.random.uniform(jax.random.key(0), (count, *shape))
  z = jax.jit(features)(params, x)
  contestants: dict[str, Callable] = {'forward': jax.jit(features)}
  for method in ('published', 'auto', 'least_squares'):
    contestants[f'back, {method}'] = back(features, z, method)
  contestants['certificate'] = lambda params, x: inversion.certificate(
    features, params, x, max_steps=20
  )
  return taking_turns(name, layer, contestants, params, x, repeats)


def back(features, z: jax.Array, method: inversion.Method) -> Callable:
  """Runs back, compiled; only pictures and steps, no account of segments."""

  @jax.jit
  def run(params, x):
    found = inversion.invert(features, params, z, x, x=x, method=method)
    return found.x, found.steps

  return run


def taking_turns(name, layer, contestants, params, x, repeats) -> list[dict]:
  """Times all, one after another and again."""
  steps, times = {}, {contestant: [] for contestant in contestants}
  for turn in range(repeats + 1):
    for contestant, run in contestants.items():
      start = time.perf_counter()
      out = jax.block_until_ready(run(params, x))
      if turn:  # the first compiles
        times[contestant].append(time.perf_counter() - start)
      if contestant.startswith('back'):
        steps[contestant] = int(jnp.asarray(out[1]))
  medians = {c: statistics.median(t) for c, t in times.items()}
  return [
    {
      'network': name,
      'layer': layer,
      'contestant': contestant,
      'pictures_per_second': len(x) / median,
      'ratio': median / medians['forward'],
      'spread': (max(times[contestant]) - min(times[contestant])) / median,
      'steps': steps.get(contestant, ''),
    }
    for contestant, median in medians.items()
  ]


if __name__ == '__main__':
  tyro.cli(main)
