"""How a step runs on many devices: one program over a mesh, or pmap.

Both give the result of a single device. Under ``jit`` the batch is split and
everything else follows: batch statistics are those of the whole batch, with no
axis name. Under ``pmap`` each device runs the step on its part, and averages
over the axis ``batch`` make it one.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from bort_jax.selection import default_rule, path_name
from bort_jax.train.config import TrainConfig
from bort_jax.train.errors import RunError

_AXIS = 'batch'  # of a pmap


class Parallel(Protocol):
  """Places data and compiles functions for the devices of a run."""

  num_devices: int

  @property
  def axis_name(self) -> str | None:
    """Of a pmap over several devices, over which the step averages."""
    ...

  def init(self, fn: Callable[..., Any], *args: Any) -> Any:
    """Runs ``fn`` where its result, weights or a training state, is to lie."""
    ...

  def abstract(self, fn: Callable[[], Any]) -> Any:
    """Shapes, dtypes and shardings of :meth:`init`."""
    ...

  def to_save(self, state: Any) -> Any:
    """A state that steps gave, as arrays that all processes save together."""
    ...

  def batch(self, *arrays: np.ndarray) -> tuple[jax.Array, ...]:
    """Moves the rows of a batch that this process has to its devices."""
    ...

  def step(self, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles ``fn(state, *batch, key) -> state, metrics``."""
    ...

  def evaluation(self, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles ``fn(params, stats, *batch) -> counts``."""
    ...


def make_parallel(config: TrainConfig) -> Parallel:
  """The devices of a run.

  Args:
    config: the settings.

  Returns:
    How to run on them.

  Raises:
    RunError: if there are fewer devices than asked for, or the batch or fsdp
      does not divide.

  Examples:
    >>> from bort_jax.train import TrainConfig
    >>> from bort_jax.train.parallel import make_parallel
    >>> make_parallel(TrainConfig(devices=1)).num_devices
    1
  """
  devices = jax.devices()
  count = config.devices or len(devices)
  if count > len(devices):
    raise RunError(
      f'devices is {count}, but there are {len(devices)} {devices[0].platform}'
      ' devices. Lower --devices, or leave it out to use all of them.'
    )
  if count < len(devices) and jax.process_count() > 1:
    raise RunError(
      f'devices is {count} of {len(devices)}: with several processes all'
      ' devices are used. Leave out --devices.'
    )
  if config.batch_size % count:
    raise RunError(
      f'batch_size {config.batch_size} is not divisible by the {count} devices.'
      f' Choose a multiple of {count}, or fewer --devices.'
    )
  if count % config.fsdp:
    raise RunError(
      f'fsdp {config.fsdp} does not divide the {count} devices.'
      ' Choose a divisor, or another number of --devices.'
    )
  if config.parallel == 'pmap':
    _check_pairs(config, count)
    return PmapParallel(devices[:count])
  return MeshParallel(devices[:count], config.fsdp)


def _check_pairs(config: TrainConfig, count: int) -> None:
  mixes = config.augment.mixup or config.augment.cutmix
  if mixes and config.batch_size // count % 2:
    raise RunError(
      f'mixup and cutmix pair the pictures of a device: batch_size'
      f' {config.batch_size} gives each of {count} devices an odd number. Make'
      f' it a multiple of {2 * count}, or leave out --parallel pmap.'
    )


class _Placement:
  """What follows from where each array of a tree lies."""

  def _shardings(self, tree):
    raise NotImplementedError

  def init(self, fn, *args):
    """Runs ``fn`` with its result sharded."""
    shardings = self._shardings(jax.eval_shape(fn, *args))
    return jax.jit(fn, out_shardings=shardings)(*args)

  def abstract(self, fn):
    """Shapes, dtypes and shardings of :meth:`init`."""
    shapes = jax.eval_shape(fn)
    return jax.tree.map(
      lambda x, sharding: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=sharding
      ),
      shapes,
      self._shardings(shapes),
    )

  def to_save(self, state):
    """The state as it is."""
    return state


class MeshParallel(_Placement):
  """One program over a mesh (data, fsdp), partitioned by the compiler.

  With ``fsdp`` above one, kernels and all that is shaped like them are sharded
  along an axis of their larger side: there the constraint's Gram matrix, that
  of the smaller side, is summed over the shards, and no weight is gathered.
  """

  axis_name = None

  def __init__(self, devices: list[Any], fsdp: int = 1):
    self.num_devices = len(devices)
    self.mesh = jax.make_mesh(
      (len(devices) // fsdp, fsdp),
      ('data', 'fsdp'),
      axis_types=(AxisType.Auto, AxisType.Auto),
      devices=devices,
    )
    self.replicated = NamedSharding(self.mesh, P())
    self.rows = NamedSharding(self.mesh, P(('data', 'fsdp')))

  def batch(self, *arrays):
    """Splits the rows over all devices."""
    return tuple(
      jax.make_array_from_process_local_data(self.rows, x) for x in arrays
    )

  def step(self, fn):
    """Compiles for the mesh; the state is donated."""

    # States keep the shardings they have, so one compilation serves all steps.
    def sharded(state, *args):
      state, metrics = fn(state, *args)
      shardings = self._shardings(state)
      return jax.lax.with_sharding_constraint(
        (state, metrics), (shardings, self.replicated)
      )

    return jax.jit(sharded, donate_argnums=0)

  def evaluation(self, fn):
    """Compiles for the mesh; counts are replicated."""
    return jax.jit(fn, out_shardings=self.replicated)

  def _shardings(self, tree):
    return jax.tree_util.tree_map_with_path(self._sharding, tree)

  def _sharding(self, path, x):
    axis = sharded_axis(path_name(path), x, self.mesh.shape['fsdp'])
    if axis is None:
      return self.replicated
    return NamedSharding(self.mesh, P(*[None] * axis, 'fsdp'))


class PmapParallel(_Placement):
  """One program per device; the state is the same on all of them.

  Dropout and stochastic depth are drawn by each device, so networks that have
  them train like those of one device, but not to the same numbers.
  """

  def __init__(self, devices: list[Any]):
    self.num_devices = len(devices)
    self.devices = devices
    # One device has nothing to average over, and XLA would do it all the same.
    self.axis_name = _AXIS if len(devices) > 1 else None
    # As pmap's own, lest the second step be compiled again for its result.
    self.mesh = jax.make_mesh(
      (len(devices),),
      (_AXIS,),
      axis_types=(AxisType.Auto,),
      devices=devices,
    )
    self.replicated = NamedSharding(self.mesh, P())
    self.local = jax.local_device_count() * len(devices) // jax.device_count()

  def to_save(self, state):
    """What this process has is what all have."""
    if self._is_one_process():
      return state
    return multihost_utils.host_local_array_to_global_array(
      state, self.mesh, P()
    )

  def batch(self, *arrays):
    """Gives each device of this process its rows, on a leading axis."""
    return tuple(
      x.reshape(self.local, len(x) // self.local, *x.shape[1:]) for x in arrays
    )

  def step(self, fn):
    """Maps over the devices; the state is donated."""
    return self._map(
      fn, in_axes=(None, 0, 0, None), out_axes=None, donate_argnums=0
    )

  def evaluation(self, fn):
    """Maps over the devices; counts are the same on all."""
    return self._map(fn, in_axes=(None, None, 0, 0, 0), out_axes=None)

  def _map(self, fn, **axes):
    mapped = partial(jax.pmap, axis_name=_AXIS, **axes)
    # With several processes pmap finds the devices of all by itself.
    return mapped(fn, devices=self.devices if self._is_one_process() else None)

  def _shardings(self, tree):
    return jax.tree.map(lambda _: self.replicated, tree)

  def _is_one_process(self):
    return jax.process_count() == 1


def sharded_axis(path: str, x: Any, shards: int) -> int | None:
  """The axis of a parameter that is sharded, or None.

  The longest axis that the shards divide of the larger side, fan-in or fan-out,
  of a kernel; of other parameters, and of kernels without such an axis, none:
  they are small.

  Examples:
    >>> import jax
    >>> from bort_jax.train.parallel import sharded_axis
    >>> kernel = jax.ShapeDtypeStruct((3, 3, 64, 128), 'float32')
    >>> sharded_axis('conv/kernel', kernel, 8)
    2
    >>> sharded_axis('conv/bias', jax.ShapeDtypeStruct((128,), 'float32'), 8)
  """
  axes = default_rule(path, x)
  if shards == 1 or axes is None:
    return None
  size = lambda side: math.prod(x.shape[axis] for axis in side)
  larger = max(axes.in_axes, axes.out_axes, key=size)
  fitting = [axis for axis in larger if x.shape[axis] % shards == 0]
  return max(fitting, key=lambda axis: x.shape[axis], default=None)
