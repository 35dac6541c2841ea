"""What the laws of METHOD.md say of a kernel under an optimizer."""

import numpy as np


def step_norm(optimizer: str, outputs: int, inputs: int) -> float | None:
  """Spectral norm of the step, over the learning rate, if it has rank one.

  Adam's step then has entries of size one. Muon's is orthogonal, scaled by the
  shape. LAMB's has the norm of the kernel, here of an orthogonal one. SGD's is
  as large as the gradient: None.
  """
  if optimizer == 'adamw':
    return float(np.sqrt(outputs * inputs))
  if optimizer == 'muon':
    return float(np.sqrt(max(1.0, outputs / inputs)))
  if optimizer == 'lamb':
    return float(np.sqrt(min(outputs, inputs)))
  return None


def drifted(norm: float, gamma: float, weight_decay: float = 0.0) -> float:
  """The largest root of σ(σ² − 1 + λ/γ) = norm / γ."""
  roots = np.roots([1.0, 0.0, -decayed(gamma, weight_decay), -norm / gamma])
  return float(max(root.real for root in roots if abs(root.imag) < 1e-9))


def noise(learning_rate: float, gamma: float) -> float:
  """Root mean square of W Wᵀ − I off its diagonal, under white gradients."""
  return float(np.sqrt(learning_rate / (2 * gamma)))


def decayed(gamma: float, weight_decay: float) -> float:
  """The mean of σ²."""
  return 1 - weight_decay / gamma
