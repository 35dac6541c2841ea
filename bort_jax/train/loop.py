"""Fitting one network, epoch by epoch."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

from bort_jax import spectrum
from bort_jax.selection import path_name
from bort_jax.train.config import TrainConfig
from bort_jax.train.data import Dataset, batches, padded_batches
from bort_jax.train.errors import DivergedError
from bort_jax.train.run_dir import RunDir
from bort_jax.train.step import (
  Apply,
  Metrics,
  TrainState,
  count_correct,
  init_state,
  train_step,
)

_LOOK_EVERY = 20  # steps between two looks at the metrics, which wait for them


class Step(NamedTuple):
  """What is known of a step."""

  step: int  # 1 is the first
  loss: float
  accuracy: float


class Epoch(NamedTuple):
  """What is known after an epoch; epoch 0 is the start."""

  epoch: int
  step: int
  test_accuracy: float
  singular_values: dict[str, np.ndarray]  # by the parameter's path


class Fit(NamedTuple):
  """A fitted network and how it came about."""

  params: Any
  steps: list[Step]
  epochs: list[Epoch]
  seconds: float


def fit(
  network: str,
  apply_fn: Apply,
  params: Any,
  tx: optax.GradientTransformation,
  dataset: Dataset,
  config: TrainConfig,
  run: RunDir,
  on_steps: Callable[[list[Step]], None],
) -> Fit:
  """Trains a network and writes its metrics and checkpoints as it goes.

  Args:
    network: its name in the run directory.
    apply_fn: parameters and pictures in 0 … 1 to logits.
    params: parameters at the start.
    tx: the optimizer.
    dataset: the data.
    config: the settings.
    run: where to write.
    on_steps: called every few steps with what is known of them.

  Returns:
    The fitted network.

  Raises:
    DivergedError: if a loss or a parameter stops being finite; the checkpoint
      of the last finite epoch stays.
  """
  start = time.perf_counter()
  step_fn = jax.jit(partial(train_step, apply_fn, tx), donate_argnums=0)
  correct_fn = jax.jit(partial(count_correct, apply_fn))
  state = init_state(params, tx)
  steps: list[Step] = []
  epochs: list[Epoch] = []
  with run.checkpoints(network) as checkpoints:
    for epoch in range(config.num_epochs + 1):
      if epoch > 0:
        chunks = _run_epoch(step_fn, state, dataset, config, epoch, len(steps))
        for state, new in chunks:  # noqa: B007 (the last one is used below)
          steps += new
          run.write_metrics(network, epoch, new)
          on_steps(new)
          _check_losses(network, new, epochs, config)
      _check_params(network, state.params, steps, epochs, config)
      checkpoints.save(epoch, args=ocp.args.StandardSave(state))
      summary = Epoch(
        epoch,
        len(steps),
        evaluate(correct_fn, state.params, dataset, config.batch_size),
        measure_singular_values(state.params),
      )
      epochs.append(summary)
      run.write_metrics(network, epoch, [_row(summary)])
  return Fit(state.params, steps, epochs, time.perf_counter() - start)


def evaluate(
  correct_fn: Callable[..., jax.Array],
  params: Any,
  dataset: Dataset,
  batch_size: int,
) -> float:
  """The share of test pictures whose class is found, each counted once."""
  counts = [
    correct_fn(params, *batch)
    for batch in padded_batches(
      dataset.test_images, dataset.test_labels, batch_size
    )
  ]
  return sum(map(int, counts)) / len(dataset.test_labels)


def measure_singular_values(params: Any) -> dict[str, np.ndarray]:
  """The singular values of every kernel, by its path."""
  values = _singular_values(params)
  return {
    path_name(path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(values)
  }


_singular_values = jax.jit(spectrum.singular_values)


@jax.jit
def _all_finite(params: Any) -> jax.Array:
  finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]
  return jnp.stack(finite).all()


def _run_epoch(
  step_fn: Callable[..., tuple[TrainState, Metrics]],
  state: TrainState,
  dataset: Dataset,
  config: TrainConfig,
  epoch: int,
  done: int,
) -> Iterator[tuple[TrainState, list[Step]]]:
  """Runs the steps of an epoch, a few at a time."""
  pending: list[Metrics] = []

  def look() -> list[Step]:
    losses, accuracies = jax.device_get(tuple(zip(*pending, strict=True)))
    first = done - len(pending) + 1
    return [
      Step(first + i, float(loss), float(accuracy))
      for i, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True))
    ]

  for images, labels in batches(
    dataset.train_images,
    dataset.train_labels,
    config.batch_size,
    seed=(config.seed, epoch),
  ):
    state, metrics = step_fn(state, images, labels)
    pending.append(metrics)
    done += 1
    if len(pending) == _LOOK_EVERY:
      yield state, look()
      pending = []
  if pending:
    yield state, look()


def _row(epoch: Epoch) -> dict[str, Any]:
  """An epoch as a line of metrics.jsonl."""
  extremes = {
    path: [float(values.min()), float(values.max())]
    for path, values in epoch.singular_values.items()
  }
  return {
    'step': epoch.step,
    'test_accuracy': epoch.test_accuracy,
    'singular_values': extremes,
  }


def _check_losses(network, steps, epochs, config) -> None:
  for step in steps:
    if not np.isfinite(step.loss):
      raise DivergedError(
        f'The loss of {network!r} is {step.loss} at step {step.step}.'
        f' {_remedy(network, epochs, config)}'
      )


def _check_params(network, params, steps, epochs, config) -> None:
  if not _all_finite(params):
    raise DivergedError(
      f'The parameters of {network!r} are not finite after step {len(steps)}.'
      f' {_remedy(network, epochs, config)}'
    )


def _remedy(network: str, epochs: list[Epoch], config: TrainConfig) -> str:
  advice = (
    f'The checkpoint after epoch {epochs[-1].epoch} is kept.'
    f' Lower --learning-rate (it is {config.learning_rate:g}'
  )
  if network == 'adamw' or config.constraint == 'hard' or config.gamma == 0:
    return advice + ').'
  largest = max(v.max() for v in epochs[-1].singular_values.values())
  safe = spectrum.largest_safe_step(
    {'kernel': jnp.full((1, 1), largest)},  # the matrix of that singular value
    config.gamma,
    amplitude=config.amplitude,
  )
  return (
    f'{advice}; the constraint alone is stable up to {safe["kernel"]:.3g}).'
  )
