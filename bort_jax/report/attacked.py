"""Adversarial pictures of a run's networks."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax import attacks
from bort_jax.report.subject import Logits
from bort_jax.train.report import Restored

AttackKind = Literal['pgd', 'fgsm', 'ensemble']
_BATCH = 256


def attacked(
  run: Restored,
  name: str,
  x: jax.Array,
  labels: np.ndarray,
  kind: AttackKind,
  epsilon: float,
) -> tuple[np.ndarray, float]:
  """Attacks one network, or all of a run at once.

  Args:
    run: the run.
    name: the network.
    x: (N, H, W, C) pictures in 0 … 1.
    labels: (N,) their classes.
    kind: the attack; ``'ensemble'`` is on all networks, to the least likely
      class.
    epsilon: greatest change of a pixel, not of ``'ensemble'``.

  Returns:
    The adversarial pictures, and the share that succeeds on the network.
  """
  logits, weights = Logits(run.network), run.weights[name]
  everyone = list(run.weights.values())
  own = list(run.weights).index(name)
  made, success = [], []
  for start in range(0, len(x), _BATCH):
    rows = slice(start, start + _BATCH)
    if kind == 'ensemble':
      attack = attacks.ensemble([logits] * len(everyone), everyone, x[rows])
      success.append(attack.success[own])
    else:
      method = attacks.fgsm if kind == 'fgsm' else attacks.pgd
      classes = jnp.asarray(labels[rows])
      attack = method(logits, weights, x[rows], classes, epsilon)
      success.append(attack.success)
    made.append(np.asarray(attack.x))
  return np.concatenate(made), float(np.concatenate(success).mean())
