"""Attribution methods beside Captum's, on one network and the same pictures.

A plain network of six convolutions with made-up weights, in JAX and in PyTorch,
float32, on the CPU. Each method is run by both in turn, in one process that
holds both; the time is the median of several calls, without the first, which
compiles. Memory is the growth of the greatest resident set over that of the
process before the first call, measured in a process of its own for each
contestant; for ours it holds what compiling takes. From the project's root,
with torch and captum installed beside the project:

    python experiments/benchmarks/attribution.py
"""
# The project itself never needs these packages.
# pyright: reportMissingImports=false

import functools
import json
import multiprocessing
import os
import pathlib
import statistics
import time
from collections.abc import Callable

import numpy as np
import tyro
from results import write_results

SIDE, CLASSES = 64, 10
WIDTHS = (32, 32, 64, 64, 128, 128)  # a maximum pools after every second
STEPS, SAMPLES, WINDOW, STRIDE = 32, 16, 8, 8
METHODS = (
  'gradient',
  'gradient_times_input',
  'smooth_grad',
  'integrated_gradients',
  'guided_backprop',
  'deconvnet',
  'grad_cam',
  'lrp',
  'occlusion',
)
GRADIENTS = {  # that a method takes
  'gradient': 1,
  'gradient_times_input': 1,
  'smooth_grad': SAMPLES,
  'integrated_gradients': STEPS,
  'guided_backprop': 1,
  'deconvnet': 1,
}


def main(
  repeats: int = 7,
  pictures: tuple[int, ...] = (1, 8, 64),
  methods: tuple[str, ...] = METHODS,
) -> None:
  """Times every method.

  Args:
    repeats: calls of each contestant.
    pictures: sizes of the batch; rows of others are kept.
    methods: which; rows of others are kept.
  """
  path = pathlib.Path(__file__).with_suffix('.json')
  kept = json.loads(path.read_text()) if path.exists() else []
  found = {(row['pictures'], row['method']): row for row in kept}
  order = lambda key: (key[0], METHODS.index(key[1]))
  for count in pictures:
    for method in methods:
      found[count, method] = measured(method, count, repeats)
      rows = [found[key] for key in sorted(found, key=order)]
      write_results(__file__, rows, table(rows))


def table(rows: list[dict]) -> list[str]:
  """All rows."""
  return [
    '| pictures | method | ours (ms) | Captum (ms) | Captum / ours |'
    ' ours / bare JAX | spread | ours (MB) | Captum (MB) |'
    ' first call of ours (s) | largest difference |',
    '| ---: | ---' + ' | ---:' * 9 + ' |',
    *(
      f'| {r["pictures"]} | {r["method"]} | {r["ours_ms"]:.1f} |'
      f' {r["captum_ms"]:.1f} | {r["ratio"]:.2f} | {to_bare(r)} |'
      f' {r["spread"]:.0%} | {r["ours_mb"]:.0f} | {r["captum_mb"]:.0f} |'
      f' {r["first_call_s"]:.1f} | {r["difference"]:.1e} |'
      for r in rows
    ),
    '',
    f'Pictures of {SIDE}×{SIDE}; {STEPS} steps, {SAMPLES} samples.'
    ' Bare JAX: the jitted gradient of a sum of logits alone, as many times as'
    ' the method takes gradients.'
    ' Spread: of ours, largest less smallest over the median. Difference:'
    ' relative to the largest value; SmoothGrad draws other noise;'
    ' deconvnet lets through what stands at zeros, of which a window of four'
    ' equal ones has its maximum in all of them here and in the first there.'
    f' {_versions()}.',
  ]


def to_bare(row: dict) -> str:
  """Time over that of so many gradients in bare JAX."""
  count = GRADIENTS.get(row['method'])
  return f'{row["ours_ms"] / count / row["bare_ms"]:.2f}' if count else ''


def measured(method: str, count: int, repeats: int) -> dict:
  """Times and memory of one method by both."""
  ours, captum = _ours(method, count), _captum(method, count)
  bare = _bare(count)
  start = time.perf_counter()
  found = ours()
  first = time.perf_counter() - start
  expected = captum()
  bare()
  times = {'ours': [], 'captum': [], 'bare': []}
  for _ in range(repeats):
    for name, run in (('ours', ours), ('captum', captum), ('bare', bare)):
      start = time.perf_counter()
      run()
      times[name].append(1000 * (time.perf_counter() - start))
  median = {name: statistics.median(t) for name, t in times.items()}
  return {
    'pictures': count,
    'method': method,
    'ours_ms': median['ours'],
    'captum_ms': median['captum'],
    'bare_ms': median['bare'],
    'ratio': median['captum'] / median['ours'],
    'spread': (max(times['ours']) - min(times['ours'])) / median['ours'],
    'ours_mb': _in_process(_memory, _ours, method, count),
    'captum_mb': _in_process(_memory, _captum, method, count),
    'first_call_s': first,
    'difference': float(
      np.abs(found - expected).max() / np.abs(expected).max()
    ),
  }


def _in_process(function: Callable, *args):
  with multiprocessing.get_context('spawn').Pool(1) as pool:
    return pool.apply(function, args)


def _memory(make: Callable, method: str, count: int) -> float:
  """Megabytes by which a first call raises the greatest resident set."""
  run = make(method, count)
  before = _peak()
  run()
  return _peak() - before


def _peak() -> float:
  """Megabytes; of Linux, whose getrusage counts the parent's peak too."""
  status = pathlib.Path('/proc/self/status').read_text()
  (line,) = (x for x in status.splitlines() if x.startswith('VmHWM'))
  return int(line.split()[1]) / 1024


@functools.cache
def arrays(pictures: int) -> tuple[list[np.ndarray], np.ndarray]:
  """Kernels, output first, the last dense; and the pictures (N, C, H, W)."""
  rng = np.random.default_rng(0)
  shapes: list[tuple[int, ...]] = [
    (width, before, 3, 3)
    for before, width in zip((3, *WIDTHS), WIDTHS, strict=False)
  ]
  side = SIDE // 2 ** (len(WIDTHS) // 2)
  shapes.append((CLASSES, WIDTHS[-1] * side * side))
  kernels = [
    rng.normal(size=s).astype(np.float32) * (2 / np.prod(s[1:])) ** 0.5
    for s in shapes
  ]
  return [k.astype(np.float32) for k in kernels], rng.random(
    (pictures, 3, SIDE, SIDE), dtype=np.float32
  )


def jax_network(params, x):
  """The network on pictures (N, H, W, C); its outputs by name."""
  import jax
  import jax.numpy as jnp

  outputs = {}
  for i, kernel in enumerate(params[:-1]):
    x = jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'OIHW', 'NHWC')
    )
    x = outputs[f'act{i}'] = jax.nn.relu(x + 0.01)
    if i % 2:
      n, h, w, c = x.shape
      x = jnp.max(x.reshape(n, h // 2, 2, w // 2, 2, c), (2, 4))
  x = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
  return {**outputs, 'logits': x @ params[-1].T}


def torch_network():
  """The same in PyTorch."""
  import torch
  from torch import nn

  layers = []
  for i, width in enumerate(WIDTHS):
    conv = nn.Conv2d((3, *WIDTHS)[i], width, 3, padding=1)
    nn.init.constant_(conv.bias, 0.01)
    layers += [conv, nn.ReLU(), *([nn.MaxPool2d(2)] if i % 2 else [])]

  class Net(nn.Module):  # Captum's LRP knows no layer that flattens
    def __init__(self):
      super().__init__()
      self.layers = nn.Sequential(*layers)
      self.head = nn.Linear(kernels[-1].shape[1], CLASSES, bias=False)

    def forward(self, x):
      return self.head(self.layers(x).flatten(1))

  kernels, _ = arrays(1)
  network = Net()
  modules = [*network.layers, network.head]
  weights = [m for m in modules if hasattr(m, 'weight')]
  for module, kernel in zip(weights, kernels, strict=True):
    module.weight.data = torch.from_numpy(kernel)
  return network.eval()


def _ours(method: str, count: int) -> Callable[[], np.ndarray]:
  import jax

  from bort_jax import attribution, inversion

  params, x, target = _jax_arrays(count)
  apply_fn = inversion.until(jax_network, 'logits')
  options = {
    'smooth_grad': {'key': jax.random.key(0), 'samples': SAMPLES},
    'integrated_gradients': {'steps': STEPS},
    'grad_cam': {'layer': f'act{len(WIDTHS) - 1}'},
    'occlusion': {'window': WINDOW, 'stride': STRIDE},
  }.get(method, {})
  if method == 'grad_cam':
    apply_fn = jax_network
  function = getattr(attribution, method)
  run = lambda: np.asarray(function(apply_fn, params, x, target, **options))
  return lambda: np.moveaxis(run(), -1, 1)


def _bare(count: int) -> Callable[[], np.ndarray]:
  import jax
  import jax.numpy as jnp

  params, x, target = _jax_arrays(count)

  @jax.jit
  @functools.partial(jax.grad, argnums=1)
  def gradient(params, x):
    logits = jax_network(params, x)['logits']
    return jnp.take_along_axis(logits, target[:, None], axis=1).sum()

  return lambda: np.asarray(gradient(params, x))


def _jax_arrays(count: int) -> tuple:
  import jax.numpy as jnp

  kernels, pictures = arrays(count)
  x = jnp.asarray(np.moveaxis(pictures, 1, -1))
  target = jnp.arange(count) % CLASSES
  return [jnp.asarray(kernel) for kernel in kernels], x, target


def _captum(method: str, count: int) -> Callable[[], np.ndarray]:
  import torch
  from captum import attr

  network = torch_network()
  x = torch.from_numpy(arrays(count)[1])
  target = torch.arange(count) % CLASSES
  last = network.layers[-2]  # the last activation
  cam = attr.LayerGradCam(network, last)
  tunnel = attr.NoiseTunnel(attr.Saliency(network))
  integrated = attr.IntegratedGradients(network)
  run = {
    'gradient': lambda: attr.Saliency(network).attribute(x, target, abs=False),
    'gradient_times_input': lambda: attr.InputXGradient(network).attribute(
      x, target
    ),
    'smooth_grad': lambda: tunnel.attribute(
      x,
      nt_samples=SAMPLES,
      nt_samples_batch_size=1,
      stdevs=0.15,
      target=target,
      abs=False,
    ),
    'integrated_gradients': lambda: integrated.attribute(
      x,
      target=target,
      n_steps=STEPS,
      method='riemann_middle',
      internal_batch_size=count,
    ),
    'guided_backprop': lambda: attr.GuidedBackprop(network).attribute(
      x, target
    ),
    'deconvnet': lambda: attr.Deconvolution(network).attribute(x, target),
    'grad_cam': lambda: attr.LayerAttribution.interpolate(
      cam.attribute(x, target, relu_attributions=True), (SIDE, SIDE), 'bilinear'
    ),
    'lrp': lambda: attr.LRP(torch_network()).attribute(x, target),
    'occlusion': lambda: attr.Occlusion(network).attribute(
      x, (3, WINDOW, WINDOW), (3, STRIDE, STRIDE), target=target
    ),
  }[method]
  return lambda: run().detach().numpy()


def _versions() -> str:
  import captum
  import jax
  import torch

  return (
    f'jax {jax.__version__}, torch {torch.__version__}, captum'
    f' {captum.__version__}, {os.cpu_count()} cores'
  )


if __name__ == '__main__':
  tyro.cli(main)
