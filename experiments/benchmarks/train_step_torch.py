"""A step of training in PyTorch, for train_step.py."""
# The project itself never needs torch.
# pyright: reportMissingImports=false

from typing import Any

import jax
from train_step_cases import Case, Step, config_of


def torch_step(case: Case, images, labels, *, compiles: bool) -> Step:
  """A step of torchvision's network in channels-last memory, on the CPU.

  Raises:
    SystemExit: if JAX runs on something else.
  """
  import torch

  if jax.default_backend() != 'cpu':
    raise SystemExit(
      f'PyTorch is timed on the CPU, and JAX runs on {jax.default_backend()}:'
      ' set JAX_PLATFORMS=cpu, or time where torchvision is not installed.'
    )

  network = network_of(case).to(memory_format=torch.channels_last).train()
  config = config_of(case)
  weights = [w for w in network.parameters() if w.ndim > 1]
  others = [w for w in network.parameters() if w.ndim <= 1]
  groups = [
    {'params': weights, 'weight_decay': config.weight_decay},
    {'params': others, 'weight_decay': 0.0},
  ]
  options: dict[str, Any] = {'lr': config.learning_rate, 'fused': True}
  if config.optimizer == 'sgd':
    tx = torch.optim.SGD(groups, momentum=config.momentum, **options)
  else:
    tx = torch.optim.AdamW(groups, **options)
  run_network = torch.compile(network) if compiles else network
  pictures = torch.from_numpy(images).permute(0, 3, 1, 2)
  classes = torch.from_numpy(labels).long()

  def run():
    tx.zero_grad()
    logits = run_network(pictures.float() / 255)
    torch.nn.functional.cross_entropy(logits, classes).backward()
    tx.step()

  return Step(run, sum(w.numel() for w in network.parameters()))


def network_of(case: Case) -> Any:
  """The network of a case."""
  import torch
  import torchvision

  if case.network == 'vit_s':
    return torchvision.models.VisionTransformer(
      image_size=case.image_shape[0],
      patch_size=16,
      num_layers=12,
      num_heads=6,
      hidden_dim=384,
      mlp_dim=1536,
      num_classes=case.num_classes,
    )
  network = getattr(torchvision.models, case.network)(
    num_classes=case.num_classes
  )
  if min(case.image_shape[:2]) < 64:
    network.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = torch.nn.Identity()
  return network
