r"""Does the constraint hold during training, and do its laws?

Trains a small network under the constraint, at several strengths and with
weight decay, and measures the singular values of every kernel twenty times on
the way. Beside them stand what METHOD.md's laws say, at the learning rate of
the moment η and for an m×n kernel:

* drift: where a steady gradient of rank one would hold the largest singular
  value, σ(σ² − 1 + λ/γ) = s/γ with λ the weight decay and s the spectral norm
  of the optimizer's step: √(mn) of Adam, √max(1, m/n) of Muon, √min(m, n) of
  LAMB, whose step has the kernel's own norm. A gradient that changes should
  stay below;
* noise: the root mean square of W Wᵀ − I off its diagonal under white
  gradients, √(η/2γ) of Adam;
* decay: the mean of σ² is at 1 − λ/γ.

SGD has no law of drift: its step is as large as the gradient. Nothing is tuned:
learning rates are those in the middle of the grid of accuracy.py. Half of the
steps have the full learning rate, at which the laws of drift and noise are
compared, then it falls to zero. Writes into ``constraint/DATA_MODEL/``; what is
there in its ``runs.jsonl`` is not done again. From the project's root, five
minutes of one core:

    python experiments/reproduce/constraint.py --data-dir DIR \
      --model-options 'widths=(6,12,16,32,64)' --train-split 'train[:10%]'
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from arms import Arm
from constraint_tables import write_tables
from fitting import Numbers, Task, facts_of, fit, num_steps_of
from trainings import Bench, open_bench, told_of

from bort_jax.matrices import MatrixView
from bort_jax.selection import map_matrices, path_name

RESULTS = pathlib.Path(__file__).parent / 'constraint'
RATES = {'sgd': 0.03, 'adamw': 3e-3, 'lamb': 1e-2, 'muon': 1e-2}
# Optimizer, γ and weight decay; γ = 0 is free, None the hard form.
CASES: tuple[tuple[str, float | None, float], ...] = (
  ('sgd', 0.0, 0.0),
  ('sgd', 0.1, 0.0),
  ('sgd', 1.0, 0.0),
  ('sgd', 1.0, 0.1),
  ('sgd', None, 0.0),
  ('adamw', 0.0, 0.0),
  ('adamw', 1.0, 0.0),
  ('adamw', 10.0, 0.0),
  ('adamw', 100.0, 0.0),
  ('adamw', 10.0, 1.0),
  ('adamw', None, 0.0),
  ('muon', 0.0, 0.0),
  ('muon', 1.0, 0.0),
  ('muon', 10.0, 0.0),
  ('muon', 10.0, 1.0),
  ('muon', None, 0.0),
  ('lamb', 0.0, 0.0),
  ('lamb', 10.0, 0.0),
)
_LOOKS = 20
_TASK = Task(batch_size=64)


def main(
  task: tyro.conf.OmitArgPrefixes[Task] = _TASK,
  seeds: int = 3,
  minutes: float | None = None,
  results: pathlib.Path = RESULTS,
  data_dir: pathlib.Path | None = None,
) -> None:
  """Trains and measures.

  Args:
    task: what is learned.
    seeds: how many, from 0.
    minutes: after which no further training is begun; by default all is done.
    results: directory in which that of the data set and network is.
    data_dir: TFDS directory; by default $TFDS_DATA_DIR.
  """
  folder = results / f'{task.data}_{task.model}'
  bench = open_bench(folder / 'runs.jsonl', minutes, data_dir)
  for optimizer, gamma, decay in CASES:
    arm = arm_of(optimizer, gamma)
    for seed in range(seeds):
      watched(bench, task, arm, Numbers(RATES[optimizer], decay, seed))
  write_tables(folder, bench.kept.rows)


def arm_of(optimizer: str, gamma: float | None) -> Arm:
  """One strength of the constraint."""
  constraint = 'hard' if gamma is None else 'soft' if gamma else 'none'
  return Arm(
    optimizer,  # pyright: ignore
    constraint=constraint,
    gamma=gamma or 0.0,
    schedule='half constant',
  )


def watched(bench: Bench, task: Task, arm: Arm, numbers: Numbers) -> None:
  """A training whose kernels are measured on the way, unless it is there."""

  def look(step: int, state: Any) -> None:
    if step in steps:
      spectra = jax.device_get(_spectra(state.params))
      history.append({'step': step, 'kernels': _short(spectra)})

  facts = {**facts_of(task, arm, numbers), 'looks': _LOOKS}
  if bench.kept.find(facts) or bench.is_over():
    return
  history: list[dict[str, Any]] = []
  total = num_steps_of(task, bench.data_dir)
  steps = set(np.linspace(0, total, _LOOKS + 1).round().astype(int).tolist())
  fitted, _ = fit(task, arm, numbers, bench.data_dir, look)
  found = {**fitted.numbers, 'steps': total, 'history': history}
  bench.kept.add(facts, found)
  print(f'{told_of(facts)}: {found["accuracy"]:.2%}', flush=True)


@jax.jit
def _spectra(params: Any) -> dict[str, dict[str, jax.Array]]:
  measured = map_matrices(_spectrum, None, params, others=lambda _: None)
  leaves = jax.tree_util.tree_leaves_with_path(
    measured, is_leaf=lambda x: isinstance(x, dict) and 'largest' in x
  )
  return {path_name(path): found for path, found in leaves}


def _spectrum(view: MatrixView, w: jax.Array) -> dict[str, jax.Array]:
  gram = view.gram(w, w)
  side = min(view.num_out, view.num_in)
  gram = gram.reshape(side, side)
  squares = jnp.maximum(jnp.linalg.eigvalsh(gram), 0)
  off = gram - jnp.diag(jnp.diag(gram))
  return {
    'smallest': jnp.sqrt(squares[0]),
    'largest': jnp.sqrt(squares[-1]),
    'mean square': squares.mean(),
    'off': jnp.sqrt(jnp.sum(off**2) / (side * (side - 1))),
    'error': jnp.max(jnp.abs(gram - jnp.eye(side))),
    'outputs': jnp.asarray(view.num_out),
    'inputs': jnp.asarray(view.num_in),
  }


def _short(spectra: Any) -> Any:
  return jax.tree.map(lambda x: float(f'{float(x):.5g}'), spectra)


if __name__ == '__main__':
  tyro.cli(main)
