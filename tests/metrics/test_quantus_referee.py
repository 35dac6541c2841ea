"""Agreement with Quantus, and with RISE's and Xplique's definitions.

On a network trained for some steps and real pictures, gray and in color.
"""

import runpy

import jax
import metric_helpers as h
import pytest

from bort_jax.train import load_dataset
from bort_jax.train.errors import DataError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]
METRICS = (
  ('deletion', 'Quantus'),
  ('insertion', 'Quantus'),
  ('deletion, AUC converted', 'Quantus'),
  ('deletion, published AUC', 'Quantus'),
  ('sparseness (Gini)', 'Quantus'),
  ('relevance rank accuracy', 'Quantus'),
  ('faithfulness correlation, replayed', 'Quantus'),
  ('parameter randomization', 'Quantus'),
  ('deletion', 'RISE'),
  ('insertion', 'RISE'),
  ('deletion', 'Xplique'),
  ('insertion', 'Xplique'),
)


@pytest.fixture(scope='module')
def referee():
  """The experiment that compares; what it needs is the extra ``referee``."""
  pytest.importorskip(
    'quantus', reason="quantus is not installed: pip install -e '.[referee]'"
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(h.REPRODUCE))
    yield runpy.run_path(str(h.REPRODUCE / 'referee.py'))


@pytest.fixture(scope='module')
def gray(referee):
  """In float64, where rounding hides nothing."""
  case = referee['trained_case'](load_dataset('digits'), 60, 4)
  with jax.enable_x64(True):
    return list(referee['compared'](case.doubled()))


@pytest.fixture(scope='module')
def color(referee):
  try:
    dataset = load_dataset('cifar10')
  except DataError as error:
    pytest.skip(f'CIFAR-10 is not prepared: {error}')
  return list(referee['compared'](referee['trained_case'](dataset, 20, 2)))


def test_gray_pictures_agree_in_float64(gray):
  assert [(row.metric, row.referee) for row in gray] == list(METRICS)
  assert [row for row in gray if not row.holds] == []
  exact = [row for row in gray if 'deletion' in row.metric]
  assert all(row.tolerance == 1e-12 for row in exact)


def test_color_pictures_agree_in_float32(color):
  assert [(row.metric, row.referee) for row in color] == list(METRICS)
  assert [row for row in color if not row.holds] == []


def test_what_differs_is_seen(referee):
  agreement = referee['Agreement']
  assert not agreement('deletion', 'Quantus', '', 1e-4, 1e-5).holds
  assert not agreement('deletion', 'Quantus', '', float('nan'), 1e-5).holds
  table = referee['as_table']([agreement('a', 'b', 'c', 1.0, 1e-5)], 1, 1)
  assert '| a | b | c | 1.0e+00 | 1e-05 | DIFFERS |' in table
