"""The networks of a run as the functions that explanations take."""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bort_jax.inversion import InversionError, segments_before
from bort_jax.metrics.layer_outputs import named_outputs
from bort_jax.train.network import Network, make_model, make_network
from bort_jax.train.report import Restored

_AT_ONCE = 2**20  # numbers of pictures
_LINEAR = 5  # iterations of each linear problem, for each step


@dataclasses.dataclass(frozen=True)
class Logits:
  """A network as ``apply_fn(weights, x)``; equal ones are compiled once."""

  network: Network

  def __call__(self, weights: Any, x: jax.Array) -> jax.Array:
    """Logits (N, classes) of pictures, as float32 at least."""
    params, stats = weights
    logits = self.network.apply(params, stats, x)
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


@dataclasses.dataclass(frozen=True)
class Outputs:
  """All outputs that a network names, as ``apply_fn(weights, x)``."""

  network: Network

  def __call__(self, weights: Any, x: jax.Array) -> dict[str, jax.Array]:
    """Each layer's output by its name, ``logits`` last."""
    model: Any = self.network.merge(*weights)
    return model.intermediates(x)


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
  """What is explained; the same for all networks of a run but their weights."""

  logits: Logits
  outputs: Outputs
  feature_map: str | None  # last named output (N, h, w, channels)
  features: str | None  # the same, or the last tokens (N, T, width)
  background: jax.Array  # (M, H, W, C) other pictures
  newton_steps: int | None = None  # most of them, when it is run backwards

  @property
  def chunk(self) -> int:
    """Pictures that go through the network at once: many if they are small."""
    size = math.prod(self.background.shape[1:])
    return min(max(_AT_ONCE // size, 8), 512)

  @property
  def effort(self) -> dict[str, int]:
    """Options of what runs it backwards."""
    steps = self.newton_steps
    if steps is None:
      return {}
    return {'newton_steps': steps, 'linear_steps': _LINEAR * steps}


def make_subject(
  network: Network,
  weights: Any,
  background: jax.Array,
  newton_steps: int | None = None,
) -> Subject:
  """Finds out which layers a network names.

  Args:
    network: the network.
    weights: its parameters and statistics.
    background: (M, H, W, C) pictures that stand for the data.
    newton_steps: most steps of Gauss–Newton in a segment; by default as many as
      :func:`bort_jax.inversion.invert` takes.

  Returns:
    The subject. A layer that is not there is None.
  """
  outputs = Outputs(network)
  shapes = named_outputs(outputs, weights, background)
  last = lambda *ranks: next(
    (name for name in reversed(shapes) if shapes[name].ndim in ranks), None
  )
  return Subject(
    Logits(network),
    outputs,
    last(4),
    last(4) or last(3),
    background,
    newton_steps,
  )


def feature_depth(subject: Subject, weights: Any) -> int:
  """How many segments there are up to the last feature map.

  Args:
    subject: the network.
    weights: its parameters and statistics.

  Returns:
    The number; 0 where no map is named, or the function cannot be read: what
    needs the map says so itself.
  """
  layer = subject.feature_map
  if layer is None:
    return 0
  try:
    return segments_before(subject.outputs, weights, subject.background, layer)
  except InversionError:
    return 0


def fresh_parameters(run: Restored) -> Any:
  """Parameters by the network's own initializers, of another seed."""
  config = dataclasses.replace(run.config, seed=run.config.seed + 1)
  source = run.source
  make = partial(make_model, config, source.image_shape, source.num_classes)
  return make_network(make).init()[0]
