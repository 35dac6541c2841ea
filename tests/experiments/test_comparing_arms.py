"""The pure parts of the experiments that compare arms."""

import dataclasses
import json

import accuracy
import bcos_tables
import constraint
import imagenet_recipes
import jax
import jax.numpy as jnp
import logit_scale
import numpy as np
import optax
import pytest
import what_helps
import what_helps_tables
from arms import Arm, optimizer_of, shape_of, without_head
from constraint_laws import decayed, drifted, step_norm
from fitting import Numbers, Task, facts_of, with_batch_norm
from flax import nnx
from kept_runs import KeptRuns
from paired import difference, equivalent, holm, p_value
from penalties import add_penalty, soft_orthogonality, srip
from runs_report import arm_in, task_in

from bort_jax import MatrixAxes, bort_sgd
from bort_jax.configs import load_config
from bort_jax.correction import bort_correction
from bort_jax.nn import PatchNet, SimpleCNN
from bort_jax.selection import default_rule
from bort_jax.train.metrics import Epoch, MetricsLog, Spread, Step


def params_of(seed=0):
  keys = jax.random.split(jax.random.key(seed))
  return {
    'layer': {'kernel': jax.random.normal(keys[0], (2, 2, 3, 5)) / 4},
    'head': {
      'kernel': jax.random.normal(keys[1], (6, 4)) / 2,
      'bias': jnp.ones(4),
    },
  }


def test_so_has_four_times_the_correction_as_its_gradient():
  params = params_of()
  grads = jax.grad(soft_orthogonality)(params, jax.random.key(0))
  for name in ('layer', 'head'):
    w = params[name]['kernel']
    axes = MatrixAxes(tuple(range(w.ndim - 1)), w.ndim - 1)
    expected = 4 * bort_correction(w, axes)
    np.testing.assert_allclose(grads[name]['kernel'], expected, atol=1e-5)
  assert not np.any(grads['head']['bias'])


def test_srip_is_the_squared_spectral_norm_of_what_is_too_much():
  # the largest excess, 3, is far from the others: power iteration finds it
  w = jnp.diag(jnp.array([2.0, 1.1, 0.9]))
  found = srip({'kernel': w}, jax.random.key(1))
  assert float(found) == pytest.approx(9, rel=1e-5)
  grads = jax.grad(srip)({'kernel': w}, jax.random.key(1))['kernel']
  # d(s² − 1)²/ds = 4s(s² − 1)
  np.testing.assert_allclose(grads, np.diag([24.0, 0, 0]), atol=1e-2 * 24)


@pytest.mark.parametrize('penalty', [soft_orthogonality, srip])
def test_an_orthogonal_kernel_has_no_penalty(penalty):
  w = jax.nn.initializers.orthogonal()(jax.random.key(0), (3, 5))
  value, grads = jax.value_and_grad(penalty)({'kernel': w}, jax.random.key(2))
  assert float(value) < 1e-10
  assert np.abs(grads['kernel']).max() < 1e-5


def test_with_sgd_so_is_bort():
  params = params_of()
  grads = jax.tree.map(jnp.ones_like, params)
  penalized = optax.chain(
    add_penalty(soft_orthogonality, 0.1), bort_sgd(0.1, 0.0, momentum=0.9)
  )
  bort = bort_sgd(0.1, 0.4, momentum=0.9)
  one, other = params, params
  state, state2 = penalized.init(one), bort.init(other)
  for _ in range(3):
    updates, state = penalized.update(grads, state, one)
    one = optax.apply_updates(one, updates)
    updates, state2 = bort.update(grads, state2, other)
    other = optax.apply_updates(other, updates)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('optimizer', list(accuracy.RATES))
def test_numbers_may_be_traced(optimizer):
  params = params_of()
  grads = jax.tree.map(jnp.ones_like, params)
  arm = Arm(optimizer, constraint='soft', gamma=1.0)

  @jax.jit
  def updated(learning_rate, weight_decay):
    tx = optimizer_of(arm, learning_rate, weight_decay, 1)
    return tx.update(grads, tx.init(params), params)[0]

  tx = optimizer_of(arm, 0.1, 0.01, 1)
  expected, _ = tx.update(grads, tx.init(params), params)
  for a, b in zip(
    jax.tree.leaves(updated(0.1, 0.01)), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
  'arms',
  [accuracy.names, what_helps.amplitudes, what_helps.shapes, what_helps.turns],
)
def test_every_arm_makes_a_step(arms):
  params = params_of()
  shapes = jax.eval_shape(lambda: params)
  for arm in arms():

    def step(params, arm=arm):
      tx = optimizer_of(arm, 0.1, 0.01, 4)
      return tx.update(params, tx.init(params), params)[0]

    assert jax.eval_shape(step, params) == shapes


def test_a_free_head_is_no_matrix():
  leaf = jnp.zeros((3, 4))
  assert without_head('head/kernel', leaf) is None
  assert without_head('conv/kernel', leaf) == default_rule('conv/kernel', leaf)


def test_half_of_the_steps_have_the_full_rate():
  shape = shape_of(Arm(schedule='half constant'), 100)
  shares = [
    float(np.asarray(shape(step))) for step in (0, 5, 10, 49, 50, 75, 99)
  ]
  np.testing.assert_allclose(shares[:5], [0, 0.5, 1, 1, 1])
  assert shares[5] == pytest.approx(0.5)
  assert shares[6] < 0.01


def test_facts_tell_arm_and_task():
  arm = Arm('sgd', constraint='soft', gamma=1.0, amplitude='ada')
  task = Task(model_options=('widths=(1,2)',), train_split='train[:1%]')
  facts = json.loads(json.dumps(facts_of(task, arm, Numbers(0.1, 0.0, 3))))
  assert arm_in(facts) == arm
  assert task_in(facts) == task
  assert (facts['learning_rate'], facts['seed']) == (0.1, 3)
  assert 'penalty' not in facts  # has its default


def test_kept_runs_outlive_a_kill(tmp_path):
  path = tmp_path / 'some' / 'runs.jsonl'
  kept = KeptRuns(path)
  assert kept.find({'seed': 1}) is None
  kept.add({'seed': 1, 'arm': 'a'}, {'accuracy': 0.5})
  path.write_text(path.read_text() + '{"facts": {"se')  # killed while writing
  again = KeptRuns(path)
  assert again.find({'arm': 'a', 'seed': 1}) == {'accuracy': 0.5}
  again.add({'seed': 2}, {'accuracy': 0.6})
  assert len(KeptRuns(path).rows) == 2


def test_difference_is_students():
  # scipy.stats.ttest_rel of these: confidence interval −0.0867 … 2.0867
  apart = difference([2.0, 3.0, 4.0, 3.0], [1.0, 3.0, 2.0, 2.0])
  assert apart.mean == pytest.approx(1)
  assert apart.half == pytest.approx(1.29919, abs=1e-4)
  assert not apart.excludes_zero


def test_more_looks_make_intervals_wider():
  pair = ([2.0, 3.9, 4.0, 3.6], [1.0, 1.9, 3.1, 2.0])
  once, often = difference(*pair), difference(*pair, looks=50)
  assert once.excludes_zero
  assert often.half > 2 * once.half
  assert once.text(once) == '**+1.38 ± 0.83**'
  assert once.text(often) == '+1.38 ± 0.83'


def test_one_seed_has_no_interval():
  assert difference([2.0], [1.0]).half == float('inf')
  assert difference([2.0, 3.0], [1.0, 1.0]).half == float('inf')
  assert difference([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]).half == float('inf')


def test_equivalence_needs_the_interval_within_the_margin():
  one, other = [90.1, 90.0, 89.9, 90.2], [90.0, 90.1, 89.9, 90.1]
  assert equivalent(one, other, 0.5)
  assert not equivalent(one, other, 0.05)
  assert not equivalent(one[:1], other[:1], 0.5)  # no interval, no answer


def test_holm():
  # by hand: 0.01 · 3, 0.02 · 2, and the last is not below what is before it
  assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
  assert holm([0.9, 0.8]) == [1.0, 1.0]
  assert holm([0.01, 0.01]) == [0.02, 0.02]


def test_p_value_is_students():
  # scipy.stats.ttest_rel of these
  p = p_value([2.0, 3.0, 4.0, 3.0], [1.0, 3.0, 2.0, 2.0])
  assert p == pytest.approx(0.0917, abs=1e-4)
  assert np.isnan(p_value([2.0], [1.0]))


@pytest.mark.parametrize('question', list(what_helps_tables._BASELINES))
def test_what_helps_has_every_control(question):
  arms = list(what_helps._QUESTIONS[question]())
  for arm in arms:
    assert what_helps_tables.free_of(arm) in arms
    assert what_helps_tables.base_of(question, arm) in arms


def test_law_of_drift():
  # METHOD.md: 64×256 under Adam
  norm = step_norm('adamw', 64, 256)
  assert norm is not None
  assert drifted(norm, 10) == pytest.approx(2.4815, abs=1e-3)
  assert drifted(norm, 100) == pytest.approx(1.3867, abs=1e-3)
  assert drifted(1.0, 1e9, 0.5e9) == pytest.approx(np.sqrt(decayed(1, 0.5)))
  assert step_norm('muon', 4, 1) == 2
  assert step_norm('lamb', 4, 9) == 2
  assert step_norm('sgd', 4, 9) is None


@pytest.mark.parametrize(
  ('model', 'count'),
  [
    (lambda rngs: PatchNet((4, 4, 1), 3, rngs=rngs), 2),
    (
      lambda rngs: SimpleCNN((16, 16, 1), 3, widths=(2, 2, 2, 2, 2), rngs=rngs),
      5,
    ),
  ],
)
def test_each_convolution_gets_a_normalization(model, count):
  plain = model(nnx.Rngs(0))
  shape = (2, 4, 4, 1) if count == 2 else (2, 16, 16, 1)
  x = jax.random.normal(jax.random.key(0), shape)
  before = plain(x)
  normed = with_batch_norm(model(nnx.Rngs(0)), 0)
  norms = [m for _, m in nnx.iter_modules(normed) if type(m) is nnx.BatchNorm]
  assert len(norms) == count
  normed.eval()
  np.testing.assert_allclose(normed(x), before, atol=1e-4)


@pytest.mark.parametrize(
  ('arms', 'count'),
  [
    ([*accuracy.names()], 28),
    (
      [
        arm
        for optimizer in logit_scale.RATES
        for norm in (False, True)
        for arm in logit_scale.arms_of(optimizer, norm)
      ],
      36,
    ),
    (
      [(constraint.arm_of(o, g), decay) for o, g, decay in constraint.CASES],
      18,
    ),
    ([*what_helps.strengths()], 20),
    ([*what_helps.amplitudes()], 27),
    ([*what_helps.shapes()], 20),
    ([*what_helps.turns()], 15),
  ],
)
def test_arms_are_as_many_as_told_and_differ(arms, count):
  assert len(arms) == len(set(arms)) == count


def test_a_recipe_is_shrunk_and_told(tmp_path, monkeypatch):
  recipe = load_config('imagenet_resnet50')
  small = imagenet_recipes.shrunk(recipe, 200, 4, 4, 'validation')
  assert small.train_split == 'validation[:200]'
  assert small.learning_rate == pytest.approx(recipe.learning_rate * 4 / 1024)
  assert (small.model, small.image_size) == ('resnet50', 224)
  monkeypatch.setattr(imagenet_recipes, 'RESULTS', tmp_path)
  kept = KeptRuns(tmp_path / 'runs.jsonl')
  facts = {'config': 'some', 'settings': dataclasses.asdict(small)}
  kept.add(
    facts,
    {
      'steps': 200,
      'losses': [7.0, 6.0, 5.5],
      'spectra': [(0.1, 2.0), (0.5, 1.5)],
      'seconds': 400.0,
    },
  )
  assert kept.find(facts)
  imagenet_recipes.write(kept.rows)
  text = (tmp_path / 'table.md').read_text()
  assert '| 200 | 7 | 5.5 | 0.1 … 2 | 0.5 … 1.5 | 2.0 |' in text


def test_what_is_told_of_a_recipe_is_what_its_run_wrote(tmp_path):
  log = MetricsLog(tmp_path, 'bort')
  losses = [4.0, 3.0, 2.0, 1.0]
  for epoch in range(3):
    done = 2 * epoch
    log.write_steps(
      [Step(n, losses[n - 1], 0.5) for n in range(done - 1, done + 1) if n > 0]
    )
    kernels = {
      'conv': Spread(1 - epoch / 10, 1.0, 1.0, 0.1),
      'head': Spread(0.9, 1.0, 1 + epoch / 10, 0.2),
    }
    log.write_epoch(Epoch(epoch, done, 1.0, 0.5, kernels))
  log.close()
  results = [
    {'network': 'untrained', 'seconds': 0.0},
    {'network': 'bort', 'seconds': 9.0},
  ]
  (tmp_path / 'results.json').write_text(json.dumps(results))
  assert imagenet_recipes.found_in(tmp_path) == {
    'steps': 4,
    'losses': [3.5, 1.5],
    'spectra': [(0.9, 1.0), (0.8, 1.2)],
    'seconds': 9.0,
  }


def test_localisations_are_compared_seed_by_seed():
  def arm(seed, score):
    own = {bcos_tables.OWN: {'mean': score, 'median': score}}
    games = {f'localisation {grid}': own for grid in (2, 3)}
    return {'facts': {'seed': seed}, **games}

  plain = [arm(seed, 0.6) for seed in range(4)]
  bort = [arm(seed, 0.8 + 0.01 * seed) for seed in reversed(range(4))]
  groups = {(2.0, 'plain'): plain, (2.0, 'Bort'): bort, (1.0, 'plain'): plain}
  text = '\n'.join(bcos_tables.differences_tables(groups))
  assert '| 2 | Bort − plain | 4 |' in text
  assert text.count('**+0.22 ± 0.02**') == 4
  assert 'for all 4 (Bonferroni)' in text
  assert not bcos_tables.differences_tables({(2.0, 'plain'): plain})
