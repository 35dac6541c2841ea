"""What figures show: their labels, colours and axes."""

import jax.numpy as jnp
import numpy as np
import pytest

from bort_jax import metrics, plots
from bort_jax.train.metrics import Epoch, Spread, Step

STEPS = [Step(i, 2.0 / i, 1.0) for i in range(1, 9)]
KERNELS = {'conv1/kernel': Spread(0.9, 1.0, 1.1, 0.1)}
EPOCHS = [
  Epoch(number, 4 * number, 0.1, accuracy, KERNELS)
  for number, accuracy in enumerate([0.1, 0.97, 1.0])
]


def test_accuracy_ends_at_a_hundred_per_cent():
  _, accuracy = plots.training_curves({'a': STEPS}, {'a': EPOCHS}).axes
  assert accuracy.get_ylim()[1] == 100
  low = [epoch._replace(test_accuracy=0.3) for epoch in EPOCHS]
  _, accuracy = plots.training_curves({'a': STEPS}, {'a': low}).axes
  assert 30 < accuracy.get_ylim()[1] < 40


def test_epochs_are_whole_numbers():
  _, accuracy = plots.training_curves({'a': STEPS}, {'a': EPOCHS}).axes
  (panel,) = plots.singular_values_over_training({'a': EPOCHS}).axes
  for axes in (accuracy, panel):
    ticks = axes.get_xticks()
    assert len(ticks) > 1
    assert all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize(
  ('constraint', 'label'),
  [('soft', 'Bort'), ('hard', 'Bort (hard)')],
)
def test_the_constraint_is_in_the_label_and_not_in_the_colour(
  constraint, label
):
  assert plots.label_of('bort', constraint) == label
  assert plots.label_of('adamw', constraint) == 'AdamW'
  histories = {label: EPOCHS, 'AdamW': EPOCHS}
  (panel,) = plots.singular_values_over_training(histories).axes
  colors = {line.get_label(): line.get_color() for line in panel.get_lines()}
  assert colors == {label: 'C0', 'AdamW': 'C1'}


@pytest.mark.parametrize(
  ('size', 'text'),
  [(12, '1.00 · 0.00 · 1.00 · 0.64'), (8, '1.00 · 0.00 · 1.00')],
)
def test_errors_that_are_defined_stand_under_what_came_back(size, text):
  """SSIM of a picture twice as bright is 0.8², where there is room for it."""
  pictures = jnp.linspace(0, 1, size**2).reshape(1, size, size, 1)
  errors = {'doubled': metrics.reconstruction_error(pictures, 2 * pictures)}
  shown = np.asarray(pictures)
  _, panel = plots.inversions(shown, {'doubled': 2 * shown}, errors).axes
  assert panel.get_xlabel() == text


@pytest.mark.parametrize(('rescaled', 'most'), [(False, 0.5), (True, 1)])
def test_faint_pictures_look_faint_unless_they_are_rescaled(rescaled, most):
  x = jnp.linspace(0, 1, 64).reshape(1, 8, 8, 1)
  errors = {'half': metrics.reconstruction_error(x, x / 2)}
  pictures = np.asarray(x)
  _, panel = plots.inversions(
    pictures, {'half': pictures / 2}, errors, rescaled=rescaled
  ).axes
  (image,) = panel.get_images()
  np.testing.assert_allclose(np.asarray(image.get_array()).max(), most, 1e-6)
