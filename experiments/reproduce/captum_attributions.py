"""Captum's attributions on a small made-up network, to compare ours with.

Writes ``tests/golden/captum_attributions.npz``: the pictures, the classes, the
network's arrays and, for each method, what Captum computes in float64. The
tests build the same network in JAX and need no PyTorch. From the project's
root, with torch and captum installed:

    python experiments/reproduce/captum_attributions.py

It was run with torch 2.14.1 and captum 0.9.0, on a CPU; it takes seconds.
"""
# The project itself never needs these packages.
# pyright: reportMissingImports=false

import pathlib
import unittest.mock

import numpy as np
from torch_outputs import GOLDEN, numbers, weights

SHAPE = (3, 3, 12, 12)  # pictures, channels first
CLASSES = (0, 2, 3)
STEPS = 32
SAMPLES = 5
LAYER = 'act2'
LAYERS = {'conv1': (6, 3, 3, 3), 'conv2': (8, 6, 3, 3), 'dense': (4, 72)}


def arrays() -> dict[str, np.ndarray]:
  """Kernels and biases by PyTorch's names, float64."""
  found = {}
  for name, shape in LAYERS.items():
    kernel = weights(f'{name}.weight', shape, 2.0)
    found[f'{name}.weight'] = kernel.astype(np.float64)
    bias = numbers(f'{name}.bias', shape[:1], 0.2)
    found[f'{name}.bias'] = bias.astype(np.float64)
  return found


def torch_network():
  """Two convolutions, maxima, a mean-free dense head."""
  import torch
  from torch import nn

  class Net(nn.Module):
    def __init__(self):
      super().__init__()
      self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
      self.act1 = nn.ReLU()
      self.pool = nn.MaxPool2d(2)
      self.conv2 = nn.Conv2d(6, 8, 3, stride=2, padding=1)
      self.act2 = nn.ReLU()
      self.dense = nn.Linear(72, 4)

    def forward(self, x):
      x = self.pool(self.act1(self.conv1(x)))
      return self.dense(self.act2(self.conv2(x)).flatten(1))

  network = Net().double().eval()
  state = {k: torch.from_numpy(v) for k, v in arrays().items()}
  network.load_state_dict(state)
  return network


def main() -> None:
  """Writes the file."""
  import torch
  from captum import attr

  network = torch_network()
  x = torch.from_numpy(numbers('pictures', SHAPE, 1.0).astype(np.float64))
  target = torch.tensor(CLASSES)
  smooth, noise = _smooth_grad(network, x, target)
  grad_cam = attr.LayerGradCam(network, getattr(network, LAYER))
  small = grad_cam.attribute(x, target, relu_attributions=True)
  integrated = attr.IntegratedGradients(network)
  found = {
    'gradient': attr.Saliency(network).attribute(x, target, abs=False),
    'gradient_times_input': attr.InputXGradient(network).attribute(x, target),
    'smooth_grad': smooth,
    'guided_backprop': attr.GuidedBackprop(network).attribute(x, target),
    'deconvnet': attr.Deconvolution(network).attribute(x, target),
    'grad_cam_layer': small,
    'grad_cam': attr.LayerAttribution.interpolate(small, SHAPE[2:], 'bilinear'),
    'lrp_epsilon': attr.LRP(torch_network()).attribute(x, target),
    'occlusion': attr.Occlusion(network).attribute(
      x, (3, 4, 4), (3, 2, 2), target=target
    ),
    **{
      f'integrated_gradients_{rule}': integrated.attribute(
        x, target=target, n_steps=STEPS, method=rule
      )
      for rule in ('riemann_middle', 'riemann_trapezoid', 'gausslegendre')
    },
  }
  stored = {k: _channels_last(v) for k, v in found.items()}
  stored |= {
    'pictures': _channels_last(x),
    'logits': network(x).detach().numpy(),
    'noise': np.moveaxis(noise, 2, -1),  # (SAMPLES, N, H, W, C)
    'target': np.array(CLASSES),
    'integration_steps': np.array(STEPS),
  }
  stored |= {f'network/{name}': value for name, value in arrays().items()}
  path = pathlib.Path(GOLDEN, 'captum_attributions.npz')
  np.savez_compressed(path, allow_pickle=False, **stored)
  print(f'Wrote {path}, {path.stat().st_size // 1000} kB.')


def _smooth_grad(network, x, target):
  """Captum's SmoothGrad and the noise that it drew."""
  import torch
  from captum import attr

  drawn = []
  normal = torch.normal

  def record(*args, **options):
    drawn.append(normal(*args, **options))
    return drawn[-1]

  tunnel = attr.NoiseTunnel(attr.Saliency(network))
  torch.manual_seed(0)
  with unittest.mock.patch('torch.normal', record):
    found = tunnel.attribute(
      x,
      nt_type='smoothgrad',
      nt_samples=SAMPLES,
      stdevs=0.3,
      target=target,
      abs=False,
    )
  (noise,) = drawn  # (N · SAMPLES, C, H, W), the samples of a picture together
  return found, noise.numpy().reshape(len(x), SAMPLES, *x.shape[1:]).swapaxes(
    0, 1
  )


def _channels_last(pictures) -> np.ndarray:
  return np.moveaxis(pictures.detach().numpy(), 1, -1)


if __name__ == '__main__':
  main()
