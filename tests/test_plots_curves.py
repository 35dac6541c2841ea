"""Figures of deletion and insertion."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bort_jax import metrics, plots
from bort_jax.plots.colors import OKABE_ITO


def apply_fn(params, x):
  return x.reshape(len(x), -1) @ params


@pytest.fixture(scope='module')
def case():
  keys = jax.random.split(jax.random.key(0), 3)
  params = 0.1 * jax.random.normal(keys[0], (64, 3))
  x = jax.random.uniform(keys[1], (4, 8, 8, 1))
  target = jnp.argmax(apply_fn(params, x), 1)
  maps = x * params.T[target].reshape(x.shape)
  random = metrics.random_attribution(keys[2], x)
  return (apply_fn, params, x, target), maps, random


@pytest.fixture(scope='module')
def curves(case):
  args, maps, random = case
  of = lambda judge: {
    'exact': judge(*args, maps, steps=8),
    metrics.CONTROL: judge(*args, random, steps=8),
  }
  return of(metrics.deletion), of(metrics.insertion)


def test_curves_are_means_of_the_scores(curves):
  figure = plots.perturbation_curves(*curves)
  for panel, by_name in zip(figure.axes, curves, strict=True):
    exact, random = panel.get_lines()
    np.testing.assert_allclose(
      np.asarray(exact.get_ydata()), by_name['exact'].scores.mean(0), rtol=1e-5
    )
    assert exact.get_label() == f'exact: AUC {by_name["exact"].auc.mean():.3f}'
    assert random.get_linestyle() == '--'
    assert random.get_color() == '0.45'


def test_no_two_of_many_curves_look_alike(curves):
  deletion, _ = curves
  names = [*map(str, range(20)), metrics.CONTROL]
  many: dict[str, Any] = dict.fromkeys(names, deletion['exact'])
  for panel in plots.perturbation_curves(many, many).axes:
    lines = panel.get_lines()
    looks = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(looks) == len(names)
    # where colours cannot be told apart, neighbours differ in their dashes
    styles = [line.get_linestyle() for line in lines]
    assert all(a != b for a, b in zip(styles, styles[1:], strict=False))
    assert {line.get_color() for line in lines[:7]} == set(OKABE_ITO)


def test_the_envelope_holds_the_curve_and_does_not_rule_the_axis(case, curves):
  (network, params, x, target), maps, _ = case
  args = network, params, x, target
  envelope = metrics.certified_envelope(*args, maps, steps=8)
  plain = plots.perturbation_curves(*curves).axes[0].get_ylim()
  figure = plots.perturbation_curves(*curves, envelope=envelope)
  panel = figure.axes[0]
  assert panel.get_ylim() == plain
  (band,) = [
    c for c in panel.collections if c.get_label() == 'certified bounds'
  ]
  heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
  np.testing.assert_allclose(
    heights.min(), envelope.lower.mean(0).min(), rtol=1e-5
  )
  np.testing.assert_allclose(
    heights.max(), envelope.upper.mean(0).max(), rtol=1e-5
  )


def test_undefined_curves_do_not_count(case):
  (network, params, x, target), maps, _ = case
  args = network, params, x, target
  broken = maps.at[0].set(jnp.nan)
  deletion = metrics.deletion(*args, broken, steps=4)
  figure = plots.perturbation_curves({'a': deletion}, {'a': deletion})
  (line,) = figure.axes[0].get_lines()
  np.testing.assert_allclose(
    np.asarray(line.get_ydata()), deletion.scores[1:].mean(0), rtol=1e-5
  )
  nothing = metrics.deletion(*args, jnp.full_like(maps, jnp.nan), steps=4)
  figure = plots.perturbation_curves({'a': nothing}, {'a': nothing})
  (line,) = figure.axes[0].get_lines()
  assert line.get_label() == 'a: AUC nan'


def test_no_curves_are_refused(curves):
  with pytest.raises(ValueError, match='at least one curve'):
    plots.perturbation_curves({}, curves[1])
