"""Adversarial pictures of a run's networks."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax import attacks
from bort_jax.report.subject import Logits
from bort_jax.train.report import Restored

AttackKind = Literal['pgd', 'fgsm', 'ensemble']
_BATCH = 256


class Attacked(NamedTuple):
  """What an attack made, for one network."""

  name: str  # of the network
  x: np.ndarray  # (N, H, W, C) adversarial pictures in 0 … 1
  success: float  # share of them that succeeds on the network


def attacked(
  run: Restored,
  x: jax.Array,
  labels: np.ndarray,
  kind: AttackKind,
  epsilon: float,
) -> Iterator[Attacked]:
  """Attacks the networks of a run, one after the other or all at once.

  Args:
    run: the run.
    x: (N, H, W, C) pictures in 0 … 1.
    labels: (N,) their classes.
    kind: the attack; ``'ensemble'`` is on all networks, to the least likely
      class, and made once.
    epsilon: greatest change of a pixel, not of ``'ensemble'``.

  Yields:
    What was made for each network, in their order.
  """
  if kind == 'ensemble':
    yield from _all_at_once(run, x)
    return
  method = attacks.fgsm if kind == 'fgsm' else attacks.pgd
  logits = Logits(run.network)
  for name, weights in run.weights.items():
    one = lambda rows, weights=weights: method(
      logits, weights, x[rows], jnp.asarray(labels[rows]), epsilon
    )
    made, success = _in_batches(one, len(x))
    yield Attacked(name, made, float(success.mean()))


def _all_at_once(run: Restored, x: jax.Array) -> Iterator[Attacked]:
  everyone = list(run.weights.values())
  networks = [Logits(run.network)] * len(everyone)
  made, success = _in_batches(
    lambda rows: attacks.ensemble(networks, everyone, x[rows]), len(x)
  )
  for name, own in zip(run.weights, success, strict=True):
    yield Attacked(name, made, float(own.mean()))


def _in_batches(
  attack: Callable[[slice], attacks.Attack], count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Pictures (N, H, W, C), and success (..., N)."""
  found = [attack(slice(i, i + _BATCH)) for i in range(0, count, _BATCH)]
  pictures = np.concatenate([np.asarray(a.x) for a in found])
  return pictures, np.concatenate([a.success for a in found], axis=-1)
