"""A step of ``bort-jax train``, for train_step.py."""

import math
from functools import partial
from typing import Any

import jax
from train_step_cases import UPDATES, Case, Step, config_of

from bort_jax.train.network import make_model, make_network
from bort_jax.train.optimizer import make_optimizer
from bort_jax.train.parallel import make_parallel
from bort_jax.train.step import StepOptions, first_state, train_step

# What differs from the step without constraint.
OURS: dict[str, dict[str, Any]] = {
  'ours': {'constraint': 'none'},
  'ours, Bort': {},
  'ours, Bort every=4': {'every': 4},
  'ours, pmap': {'constraint': 'none', 'parallel': 'pmap'},
}


def ours(case: Case, images, labels, **options: Any) -> Step:
  """The step of ``bort-jax train``."""
  config = config_of(case, **options)
  parallel = make_parallel(config)
  make = partial(
    make_model, config, case.image_shape, case.num_classes, parallel.axis_name
  )
  network = make_network(make)
  tx = make_optimizer(config, UPDATES, config.constraint != 'none')
  step = parallel.step(
    partial(train_step, network, tx, StepOptions(axis_name=parallel.axis_name))
  )
  weights = parallel.init(network.init)
  carry = [parallel.init(partial(first_state, tx, False), *weights)]
  key = jax.random.key(0)

  def run():
    carry[0], metrics = step(carry[0], *parallel.batch(images, labels), key)
    jax.block_until_ready((carry[0], metrics))

  leaves = jax.tree.leaves(weights[0])
  return Step(run, sum(math.prod(leaf.shape) for leaf in leaves))
