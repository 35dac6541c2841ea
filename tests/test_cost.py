"""What an update may cost: products, memory and communication, untimed."""

import math
import pathlib
import runpy
from typing import Any

import jax
import optax
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import bort_jax
from bort_jax import MatrixAxes

BENCHMARKS = pathlib.Path(__file__).parents[1] / 'experiments' / 'benchmarks'
HWIO = MatrixAxes((0, 1, 2), 3)
KERNELS = {  # shape, axes, and the shape of its smaller Gram matrix
  'tall': ((16, 64), MatrixAxes(0, 1), (16, 16)),
  'wide': ((64, 16), MatrixAxes(0, 1), (16, 16)),
  'square': ((32, 32), MatrixAxes(0, 1), (32, 32)),
  'convolution': ((3, 3, 16, 24), HWIO, (24, 24)),
  'grouped': (
    (3, 3, 16, 24),
    MatrixAxes((0, 1, 2), 3, groups=4),
    (4, 6, 6),
  ),
  'depthwise': ((5, 5, 1, 16), MatrixAxes((0, 1, 2), 3, groups=16), (16, 1, 1)),
  'stacked': ((5, 16, 24), MatrixAxes(1, 2), (5, 16, 16)),
}
PARAMS: Any = {
  name: {'kernel': jax.ShapeDtypeStruct(shape, 'float32')}
  for name, (shape, _, _) in KERNELS.items()
} | {'bias': jax.ShapeDtypeStruct((16,), 'float32')}
AXES = {name: {'kernel': axes} for name, (_, axes, _) in KERNELS.items()}


def equations(jaxpr):
  """All equations of a jaxpr, those of the functions it calls included."""
  for equation in jaxpr.eqns:
    yield equation
    for below in jaxprs_in_params(equation.params):
      yield from equations(below)


def products(tx, params) -> list[tuple[int, ...]]:
  """The shape of every matrix product of an update, sides in any order."""
  state = jax.eval_shape(tx.init, params)
  jaxpr = jax.make_jaxpr(tx.update)(params, state, params).jaxpr
  return [
    tuple(sorted(equation.outvars[0].aval.shape))
    for equation in equations(jaxpr)
    if equation.primitive.name == 'dot_general'
  ]


def expected_products(gram_times: int, weight_times: int):
  """So many of the shape of each Gram matrix and of each (split) weight."""
  shapes = []
  for shape, axes, gram in KERNELS.values():
    *rest, out = shape
    split = (*rest, axes.groups, out // axes.groups)
    split = split if axes.groups > 1 else shape
    shapes += [tuple(sorted(gram))] * gram_times
    shapes += [tuple(sorted(split))] * weight_times
  return sorted(shapes)


@pytest.mark.parametrize(
  'tx',
  [
    bort_jax.bort(1.0, axes=AXES),
    bort_jax.bort_sgd(0.1, 1.0, momentum=0.9, weight_decay=0.1, axes=AXES),
    bort_jax.bort_adamw(0.1, 1.0, weight_decay=0.1, axes=AXES),
    bort_jax.bort_lamb(0.1, 1.0, weight_decay=0.1, axes=AXES),
    bort_jax.bort_sgd(0.1, 1.0, axes=AXES, every=3),
    bort_jax.bort_adamw(0.1, 1.0, axes=AXES, every=3),
  ],
  ids=['bort', 'sgd', 'adamw', 'lamb', 'sgd in turns', 'adamw in turns'],
)
def test_a_correction_takes_two_products(tx):
  assert sorted(products(tx, PARAMS)) == expected_products(1, 1)


@pytest.mark.parametrize('steps', [1, 4])
def test_the_hard_form_takes_two_and_two_for_each_iteration(steps):
  tx = bort_jax.keep_orthogonal(steps=steps, axes=AXES)
  assert sorted(products(tx, PARAMS)) == expected_products(steps + 1, steps + 1)


def test_muon_pays_for_the_constraint_what_the_others_pay():
  made = (bort_jax.bort_muon(0.1, gamma, axes=AXES) for gamma in (0.0, 1.0))
  plain, bort = (products(tx, PARAMS) for tx in made)
  for shape in plain:
    bort.remove(shape)
  assert sorted(bort) == expected_products(1, 1)


def test_without_a_constraint_there_are_no_products():
  for make in (bort_jax.bort_sgd, bort_jax.bort_adamw, bort_jax.bort_lamb):
    assert products(make(0.1, 0.0), PARAMS) == []


def test_turns_compute_nothing_outside_a_branch():
  """Else the device would work at every step."""
  tx = bort_jax.bort_sgd(0.1, 1.0, axes=AXES, every=3)
  state = jax.eval_shape(tx.init, PARAMS)
  jaxpr = jax.make_jaxpr(tx.update)(PARAMS, state, PARAMS).jaxpr
  names = [equation.primitive.name for equation in jaxpr.eqns]
  assert names.count('cond') == len(KERNELS)
  assert 'dot_general' not in names
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'cond':
      leave, correct = (
        [e.primitive.name for e in equations(branch.jaxpr)]
        for branch in equation.params['branches']
      )
      assert (leave, correct.count('dot_general')) == ([], 2)


# Memory.


@pytest.fixture
def optimized():
  """Compiles as users do."""
  before = jax.config.values['jax_disable_most_optimizations']
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


LAYERS = {
  str(i): {'kernel': jax.ShapeDtypeStruct((256, 64), 'float32')}
  for i in range(8)
}
GRAM, WEIGHT = 4 * 64 * 64, 4 * 256 * 64
MOMENTUM = optax.sgd(0.1, momentum=0.9)


def planned_bytes(tx) -> int:
  """What a compiled step needs beside arguments and results, as planned.

  As in training, gradients are made in it, and weights and state change in
  place: results come in the order of the arguments, for jax to pair them.
  """

  def step(x, state, params):
    grads = {i: {'kernel': x[i] @ x[i][:64].T} for i in params}
    updates, state = tx.update(grads, state, params)
    return state, optax.apply_updates(params, updates)

  x = {i: jax.ShapeDtypeStruct((256, 8), 'float32') for i in LAYERS}
  state = jax.eval_shape(tx.init, LAYERS)
  program = jax.jit(step, donate_argnums=(1, 2)).lower(x, state, LAYERS)
  analysis: Any = program.compile().memory_analysis()
  return analysis.temp_size_in_bytes


@pytest.mark.parametrize('every', [2, 8])
def test_turns_need_one_gram_and_one_weight(every, optimized):
  """Of eight layers: a copy of them all would be eight weights."""
  plain = planned_bytes(MOMENTUM)
  turns = bort_jax.bort_sgd(0.1, 1.0, momentum=0.9, every=every)
  assert planned_bytes(turns) - plain <= GRAM + WEIGHT + 1024


@pytest.mark.skipif(
  jax.__version_info__ < (0, 12), reason='XLA drops barriers before it orders'
)
@pytest.mark.parametrize(
  ('tx', 'plain'),
  [
    (bort_jax.bort_sgd(0.1, 1.0, momentum=0.9), MOMENTUM),
    (bort_jax.bort_adamw(0.1, 1.0), optax.adamw(0.1)),
    (optax.chain(MOMENTUM, bort_jax.keep_orthogonal()), MOMENTUM),
  ],
  ids=['sgd', 'adamw', 'the hard form'],
)
def test_an_update_needs_one_gram_and_one_weight(tx, plain, optimized):
  """Left to itself XLA's CPU compiler would make a copy of all eight."""
  added = planned_bytes(tx) - planned_bytes(plain)
  assert added <= GRAM + WEIGHT + 1024


def waits(shapes) -> list[int]:
  """On how many results each matrix waits that does, in order."""
  params: Any = {
    str(i): {'kernel': jax.ShapeDtypeStruct(shape, 'float32')}
    for i, shape in enumerate(shapes)
  }
  tx = bort_jax.bort(1.0)
  jaxpr = jax.make_jaxpr(tx.update)(params, tx.init(params), params).jaxpr
  return [
    len(equation.invars) - 1
    for equation in equations(jaxpr)
    if equation.primitive.name == 'optimization_barrier'
  ]


def test_small_matrices_begin_together():
  """Four have room where one of the largest has."""
  small, large = (16, 8), (32, 16)
  assert waits([large, large, large]) == [1, 1]
  assert waits([small] * 3 + [large]) == [3]
  assert waits([large, small, small, large]) == [1, 1, 2]
  assert waits([small]) == []


def test_decay_makes_no_copy_of_the_weights(optimized):
  without, decayed = (
    planned_bytes(bort_jax.bort_adamw(0.1, 1.0, weight_decay=decay))
    for decay in (0.0, 0.1)
  )
  assert decayed <= without + WEIGHT


# Communication.


@pytest.mark.parametrize('every', [None, 2], ids=['every step', 'in turns'])
def test_sharded_kernels_sum_their_gram_matrices_alone(every):
  count = runpy.run_path(str(BENCHMARKS / 'fsdp_collectives.py'))['count']
  names = ('tall', 'wide', 'square', 'convolution', 'stacked')
  sharded = {'tall': 1, 'wide': 0, 'square': 0, 'convolution': 2, 'stacked': 2}
  mesh = jax.make_mesh((8,), ('x',), axis_types=(AxisType.Auto,))
  specs = {
    name: NamedSharding(mesh, PartitionSpec(*[None] * sharded[name], 'x'))
    for name in names
  }
  params = {
    name: {
      'kernel': jax.ShapeDtypeStruct(
        KERNELS[name][0], 'float32', sharding=specs[name]
      )
    }
    for name in names
  }
  axes = {name: AXES[name] for name in names}
  replicated = NamedSharding(mesh, PartitionSpec())

  def collectives(tx):
    state = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated),
      jax.eval_shape(tx.init, params),
    )
    lowered = jax.jit(tx.update).lower(params, state, params)
    return count(lowered.compile().as_text())

  assert not any(n for n, _ in collectives(optax.sgd(0.1)).values())
  found = collectives(
    optax.chain(bort_jax.bort(1.0, axes=axes, every=every), optax.sgd(0.1))
  )
  number, size = found.pop('all-reduce')
  grams = sum(math.prod(KERNELS[name][2]) for name in names)
  assert size == 4 * grams
  assert number <= len(names)
  assert not any(n for n, _ in found.values())
