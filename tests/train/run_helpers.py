"""Stopping runs half-way, and reading what they saved."""

import jax
import orbax.checkpoint as ocp

from bort_jax.train.comparison import Listener


class Interrupt(Exception):
  pass


class Interrupting(Listener):
  """Fails at a step, as a crash would."""

  def __init__(self, network, step):
    self.network, self.step = network, step

  def stepped(self, network, steps, pace):
    if network == self.network and steps[-1].step >= self.step:
      raise Interrupt


def last_state(path, network):
  """All arrays of the newest checkpoint, on one device."""
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  with ocp.CheckpointManager(path / 'checkpoints' / network) as manager:
    arguments = ocp.args.Composite(
      state=ocp.args.StandardRestore(fallback_sharding=here)
    )
    return manager.restore(manager.latest_step(), args=arguments)['state']
