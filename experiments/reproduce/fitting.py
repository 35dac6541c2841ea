"""Trains one small network after another, each kind compiled once.

Learning rate, weight decay and seed are arguments of the compiled step, so all
runs of an arm share it. Seeds are trained one after another: under ``vmap``
each convolution has a kernel for every seed, for which XLA on CPUs takes 4.3
times as long (five seeds of SimpleCNN with widths 6, 12, 16, 32, 64, batches of
128: 73 ms of one core per step and seed, alone 17 ms; in ``loops.scan`` 16 ms).
"""

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from arms import Arm, optimizer_of, start_amplitude
from flax import nnx

from bort_jax.train import Dataset, TrainConfig, load_dataset
from bort_jax.train.augment import Recipe
from bort_jax.train.data import batches, padded_batches
from bort_jax.train.kernels import measure_kernels
from bort_jax.train.network import Network, make_model, make_network
from bort_jax.train.step import (
  StepOptions,
  TrainState,
  evaluation_step,
  first_state,
  train_step,
)

_EVALUATED = 500  # pictures at a time


@dataclasses.dataclass(frozen=True)
class Task:
  """What is learned, and for how long."""

  data: str = 'mnist'
  """Data set, as bort-jax train takes it."""
  model: str = 'simple_cnn'
  """Network, by its name in bort_jax.nn.create."""
  model_options: tuple[str, ...] = ()
  """Further arguments of it, NAME=VALUE."""
  epochs: int = 3
  """Passes over the training pictures."""
  batch_size: int = 128
  """Pictures per step."""
  pad_crop: int = 0
  """Pixels by which training pictures are padded and cropped again."""
  flip: bool = False
  """Whether every second training picture is mirrored."""
  train_split: str = 'train'
  """Part of the set to train on."""
  test_split: str | None = None
  """Part to judge on; by default the test set."""


class Numbers(NamedTuple):
  """What two trainings of one arm may differ by."""

  learning_rate: float
  weight_decay: float
  seed: int


class Program(NamedTuple):
  """A network under an arm, compiled."""

  network: Network
  start: Callable[[int], tuple[Any, Any]]  # seed -> params, stats
  first: Callable[..., TrainState]  # params, stats, numbers
  step: Callable[..., Any]  # state, numbers, images, labels, key
  evaluate: Callable[..., Any]


class Fitted(NamedTuple):
  """A trained network."""

  program: Program
  params: Any
  stats: Any
  numbers: dict[str, Any]  # what was found, for JSON


def facts_of(task: Task, arm: Arm, numbers: Numbers) -> dict[str, Any]:
  """All that a result depends on, as JSON has it.

  Of the arm what has its default is left out, so that results outlive a further
  field.
  """
  told = {
    field.name: getattr(arm, field.name)
    for field in dataclasses.fields(Arm)
    if getattr(arm, field.name) != field.default
  }
  return {
    **dataclasses.asdict(task),
    'model_options': list(task.model_options),
    **told,
    **numbers._asdict(),
  }


@functools.lru_cache(maxsize=2)
def data_of(
  data: str,
  data_dir: pathlib.Path | None,
  train_split: str,
  test_split: str | None,
) -> Dataset:
  """The pictures of a task, read once."""
  return load_dataset(data, data_dir, train_split, test_split)


def num_steps_of(task: Task, data_dir: pathlib.Path | None) -> int:
  """Steps of a training."""
  dataset = data_of(task.data, data_dir, task.train_split, task.test_split)
  return task.epochs * (len(dataset.train_labels) // task.batch_size)


def fit(
  task: Task,
  arm: Arm,
  numbers: Numbers,
  data_dir: pathlib.Path | None,
  watch: Callable[[int, TrainState], None] = lambda step, state: None,
) -> tuple[Fitted, Dataset]:
  """Trains a network and judges it.

  Args:
    task: what is learned.
    arm: how.
    numbers: learning rate, weight decay and seed.
    data_dir: TFDS directory.
    watch: called with the number of steps done and the state, before the first
      step and after each.

  Returns:
    The network, with test accuracy, losses, the spread of each kernel's
    singular values and the seconds it took; and the pictures. A network that
    diverged is judged too, but its losses and kernels are None.
  """
  dataset = data_of(task.data, data_dir, task.train_split, task.test_split)
  program = _program(
    dataclasses.replace(task, train_split='', test_split=None),
    arm,
    dataset.train_images.shape[1:],
    dataset.num_classes,
    num_steps_of(task, data_dir),
  )
  began = time.perf_counter()
  arguments = (np.float32(numbers.learning_rate), float(numbers.weight_decay))
  state = program.first(*program.start(numbers.seed), *arguments)
  watch(0, state)
  key = jax.random.key(numbers.seed)
  loss, done = math.nan, 0
  for epoch in range(task.epochs):
    losses = []
    for images, labels in batches(
      dataset.train_images,
      dataset.train_labels,
      task.batch_size,
      [numbers.seed, epoch],
    ):
      state, metrics = program.step(state, *arguments, images, labels, key)
      losses.append(metrics.loss)
      done += 1
      watch(done, state)
    loss = float(np.mean(jax.device_get(losses)))
    if not math.isfinite(loss):
      break
  seconds = time.perf_counter() - began
  found = {
    'train_loss': loss if math.isfinite(loss) else None,
    **_judged(program, state, dataset),
    'kernels': _kernels(state.params, arm) if math.isfinite(loss) else None,
    'seconds': round(seconds, 2),
  }
  return Fitted(program, state.params, state.stats, found), dataset


@functools.lru_cache(maxsize=4)
def _program(
  task: Task,
  arm: Arm,
  image_shape: tuple[int, ...],
  num_classes: int,
  num_steps: int,
) -> Program:
  def model_of(seed: int) -> nnx.Module:
    config = _config(task, arm, seed)
    model = make_model(config, image_shape, num_classes)
    return with_batch_norm(model, seed) if arm.batch_norm else model

  network = make_network(functools.partial(model_of, 0))
  options = StepOptions(augment=Recipe(task.pad_crop, task.flip))

  def start(seed):
    _, _, params, stats = nnx.split(
      model_of(seed), nnx.RngState, nnx.Param, ...
    )
    return params, stats

  def first(params, stats, learning_rate, weight_decay):
    tx = optimizer_of(arm, learning_rate, weight_decay, num_steps)
    return first_state(tx, False, params, stats)

  def step(state, learning_rate, weight_decay, images, labels, key):
    tx = optimizer_of(arm, learning_rate, weight_decay, num_steps)
    return train_step(network, tx, options, state, images, labels, key)

  evaluate = functools.partial(evaluation_step, network, None, loss='softmax')
  return Program(
    network, start, jax.jit(first), jax.jit(step), jax.jit(evaluate)
  )


def _config(task: Task, arm: Arm, seed: int) -> TrainConfig:
  """What the library makes the network from."""
  return TrainConfig(
    data=task.data,
    model=task.model,
    model_options=task.model_options,
    init=arm.init,
    amplitude=start_amplitude(arm),
    logit_scale=arm.logit_scale,
    optimizer=arm.optimizer,
    seed=seed,
  )


def with_batch_norm(model: nnx.Module, seed: int) -> nnx.Module:
  """The network with normalization behind each of its convolutions."""

  def normalized(conv: nnx.Conv) -> nnx.Module:
    norm = nnx.BatchNorm(conv.out_features, rngs=nnx.Rngs(seed))
    return nnx.Sequential(conv, norm)

  for name, module in list(vars(model).items()):
    if isinstance(module, nnx.Conv):
      setattr(model, name, normalized(module))
    elif isinstance(module, nnx.List):
      setattr(model, name, nnx.List([normalized(conv) for conv in module]))
  return model


def _judged(program: Program, state: TrainState, dataset: Dataset):
  counts = [
    program.evaluate(state.params, state.stats, *batch)
    for batch in padded_batches(
      dataset.test_images, dataset.test_labels, _EVALUATED
    )
  ]
  loss, correct, pictures = np.sum(jax.device_get(counts), axis=0)
  mean = float(loss / pictures)
  return {
    'accuracy': float(correct / pictures),
    'loss': mean if math.isfinite(mean) else None,
  }


def _kernels(params: Any, arm: Arm) -> dict[str, list[float]]:
  """Smallest, median and largest singular value, and error, of each kernel."""
  return {
    path: [float(f'{number:.6g}') for number in spread]
    for path, spread in measure_kernels(params, start_amplitude(arm)).items()
  }
