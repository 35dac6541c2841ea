r"""The two laws of METHOD.md, drawn beside what the library does.

Left, singular values under the correction alone: the law, and what the optax
transformation makes of a matrix that has them. Right, what a convolution with a
random orthogonal kernel loses, by the number of its outputs: the law, and what
transposition and least squares recover of white noise. Writes ``method.png``
and ``numbers.json`` into ``method/``. From the project's root:

    python experiments/reproduce/method.py
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bort_jax import bort, inversion
from bort_jax.plots.colors import OKABE_ITO

STARTS = (0.1, 0.5, 1.5, 2.2)
KAPPAS = (0.1, 0.5)
STEPS = 40
OUTPUTS = (8, 16, 24, 32, 48, 64)
CHANNELS = 8  # and kernels of 2×2: 32 inputs to each output


def main() -> None:
  """Measures and draws."""
  folder = pathlib.Path(__file__).parent / 'method'
  folder.mkdir(exist_ok=True)
  figure = Figure(figsize=(9, 3.4), layout='constrained')
  left, right = figure.subplots(1, 2)
  numbers = {'singular values': draw_dynamics(left), 'loss': draw_loss(right)}
  figure.savefig(folder / 'method.png', dpi=110)
  text = json.dumps(numbers, indent=2) + '\n'
  (folder / 'numbers.json').write_text(text, 'utf-8')
  print(text)


def draw_dynamics(panel: Axes) -> dict[str, float]:
  """Lines are the law, marks the optimizer; returns how far they differ."""
  worst = {}
  for kappa, style in zip(KAPPAS, ('-', '--'), strict=True):
    law, found = by_law(kappa), by_optimizer(kappa)
    worst[f'kappa {kappa}'] = float(np.abs(law - found).max())
    for i, color in zip(range(len(STARTS)), OKABE_ITO, strict=False):
      label = f'κ = {kappa}' if i == 0 else None
      panel.plot(law[:, i], style, color=color, lw=1.2, label=label)
      panel.plot(found[:, i], 'o', color=color, ms=2.5)
  panel.set(
    title='Singular values go to √a',
    xlabel='steps of the correction alone',
    ylabel='σ (a = 1)',
    ylim=(-2.3, 2.4),
  )
  panel.legend(frameon=False)
  return worst


def by_law(kappa: float) -> np.ndarray:
  """(STEPS + 1, starts) of s ← s(1 + κ − κs²)."""
  rows = [np.array(STARTS)]
  for _ in range(STEPS):
    s = rows[-1]
    rows.append(s * (1 + kappa - kappa * s**2))
  return np.stack(rows)


def by_optimizer(kappa: float) -> np.ndarray:
  """The same of a matrix without any other gradient."""
  u, _, vt = np.linalg.svd(np.random.default_rng(0).normal(size=(4, 9)), False)
  params: Any = {'kernel': jnp.asarray(vt.T * np.array(STARTS) @ u.T)}
  optimizer = optax.chain(bort(kappa), optax.sgd(1.0))
  state, rows = optimizer.init(params), []
  for _ in range(STEPS + 1):
    kernel = np.asarray(params['kernel'])
    rows.append(np.diag(vt @ kernel @ u))  # signed
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, state = optimizer.update(zeros, state, params)
    params = optax.apply_updates(params, updates)
  return np.stack(rows)


def draw_loss(panel: Axes) -> dict[str, dict[str, float]]:
  """Relative error of what comes back, by the number of outputs."""
  found: dict[str, dict[str, float]] = {}
  layers: dict[str, tuple[int, inversion.Method]] = {
    'stride 2 (no overlap), transpose': (2, 'transpose'),
    'stride 1 (overlap), transpose': (1, 'transpose'),
    'stride 1 (overlap), least squares': (1, 'least_squares'),
  }
  for (name, (stride, method)), color in zip(
    layers.items(), OKABE_ITO, strict=False
  ):
    errors = [error_of(outputs, stride, method) for outputs in OUTPUTS]
    found[name] = dict(zip(map(str, OUTPUTS), errors, strict=True))
    panel.semilogy(OUTPUTS, errors, 'o', color=color, ms=5, label=name)
  inputs = 4 * CHANNELS
  m = np.linspace(OUTPUTS[0], inputs - 0.01, 200)
  law = np.sqrt(1 - m / inputs)
  panel.semilogy(m, law, color=OKABE_ITO[0], lw=1.2, label='√(1 − m/n)')
  panel.set(
    title='Tall kernels lose nothing',
    xlabel=f'outputs m of a 2×2 convolution, n = {inputs}',
    ylabel='relative error of the picture',
    ylim=(1e-8, 3),
  )
  panel.legend(frameon=False, fontsize=7)
  return found


def error_of(outputs: int, stride: int, method: inversion.Method) -> float:
  """‖x′ − x‖ / ‖x‖ of white noise through one convolution and back."""
  orthogonal = jax.nn.initializers.orthogonal()
  kernel = orthogonal(jax.random.key(outputs), (2, 2, CHANNELS, outputs))
  x = jax.random.normal(jax.random.key(0), (4, 16, 16, CHANNELS))
  back = inversion.reconstruct(convolution(stride), kernel, x, method=method).x
  return float(jnp.linalg.norm(back - x) / jnp.linalg.norm(x))


def convolution(stride: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """A layer without bias."""
  return lambda kernel, x: jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    'VALID',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


if __name__ == '__main__':
  main()
