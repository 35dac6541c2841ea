"""The network of a finished or stopped run, to be looked into."""

import pathlib
from typing import Any, Literal

from bort_jax.train.errors import RunError
from bort_jax.train.report import restore_run
from bort_jax.train.run_dir import read_config


def load_model(
  run_dir: str | pathlib.Path,
  network: str | None = None,
  *,
  which: Literal['latest', 'best'] = 'latest',
  data_dir: pathlib.Path | None = None,
) -> Any:
  """A trained network, as a module that evaluates.

  Args:
    run_dir: the run's directory, as ``bort-jax train`` says it at its end.
    network: which of a run's networks: ``'bort'``, or that without constraint
      by the name of its optimizer; by default the first of them.
    which: the newest checkpoint, or that of the highest test accuracy.
    data_dir: TFDS directory, if it is no longer where the run found it.

  Returns:
    The module, of :mod:`flax.nnx`: pictures (N, H, W, C) in 0 … 1 to logits.

  Raises:
    RunError: if there is no run, no such network in it, or no checkpoint.

  Examples:
    >>> import pathlib, tempfile
    >>> import jax.numpy as jnp
    >>> from bort_jax import nn
    >>> from bort_jax.train import TrainConfig, load_model, train
    >>> with tempfile.TemporaryDirectory() as directory:
    ...   run_dir = pathlib.Path(directory, 'run')
    ...   config = TrainConfig(run_dir=run_dir, epochs=1, compare=False)
    ...   _ = train(config)
    ...   model = load_model(run_dir)
    >>> model(jnp.zeros((1, 8, 8, 1))).shape
    (1, 10)
    >>> outputs, weights = nn.functional(model, 'intermediates')
  """
  run = restore_run(read_config(pathlib.Path(run_dir), data_dir), which)
  name = next(iter(run.weights)) if network is None else network
  if name not in run.weights:
    raise RunError(
      f'The run in {run_dir} has no network {name!r}; it has'
      f' {", ".join(run.weights)}.'
    )
  return run.network.merge(*run.weights[name])
