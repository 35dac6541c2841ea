"""PyTorch's optimizers and the published ones, as contestants of update.py."""
# The project itself never needs torch.
# pyright: reportMissingImports=false

import importlib.util
import math
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from contestants import Contestant

from bort_jax.matrices import MatrixView

RATE, GAMMA, MOMENTUM = 1e-4, 1.0, 0.9
TORCH = {  # name: (class, options, the same without constraint)
  'torch SGD': ('SGD', {'momentum': MOMENTUM}, None),
  'torch AdamW': ('AdamW', {}, None),
  'published BortS': (
    'BortS',
    {'momentum': MOMENTUM, 'gamma': GAMMA},
    'torch SGD',
  ),
  'published BortA': ('BortA', {'gamma': GAMMA}, 'torch AdamW'),
}


def torch_contestants(
  takes_part: Callable[[str], bool],
  views: dict[str, MatrixView],
  reference: pathlib.Path | None,
) -> dict[str, Contestant]:
  """PyTorch's optimizers, and the published ones, where they are at hand."""
  if importlib.util.find_spec('torch') is None:
    return {}
  import torch

  classes = vars(torch.optim) | (published(reference) if reference else {})
  grads = [_to_torch(torch, view, seed=1) for view in views.values()]

  def contestant(name, options, plain):
    params = [_to_torch(torch, view, seed=0) for view in views.values()]
    for param, grad in zip(params, grads, strict=True):
      param.grad = grad
    return Contestant(classes[name](params, lr=RATE, **options).step, plain)

  return {
    name: contestant(*made)
    for name, made in TORCH.items()
    if made[0] in classes and takes_part(name)
  }


def _to_torch(torch, view: MatrixView, seed: int):
  """A random kernel, outputs first and the rest flat, as a matrix."""
  generator = torch.Generator().manual_seed(seed)
  size = (math.prod(view.stack) * view.num_out, view.num_in)
  return torch.randn(*size, generator=generator) / view.num_in**0.5


def published(reference: pathlib.Path) -> dict[str, Any]:
  """BortS and BortA, with the private function that torch has dropped."""
  import torch

  optimizer = sys.modules['torch.optim.optimizer']
  if not hasattr(optimizer, '_dispatch_sqrt'):
    sqrt = lambda x: x.sqrt() if isinstance(x, torch.Tensor) else math.sqrt(x)
    setattr(optimizer, '_dispatch_sqrt', sqrt)  # noqa: B010
  sys.path.insert(0, str(reference / 'src'))
  from bort.optimizers.bort_adamw import BortA
  from bort.optimizers.bort_sgd import BortS

  return {'BortS': BortS, 'BortA': BortA}
