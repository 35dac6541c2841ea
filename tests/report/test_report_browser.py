"""The page in headless Chromium: it draws, it picks, it does not complain."""

import pytest
from browser_helpers import Seen, acting, needs_browser, overflow
from report_helpers import made_up_content

from bort_jax.report.page import render

pytestmark = needs_browser


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  path = tmp_path_factory.mktemp('page') / 'report.html'
  path.write_text(render(made_up_content()), 'utf-8')
  return path


CHOOSE = """
const choose = (pick, value) => {
  const all = [...document.querySelectorAll(`[data-pick="${pick}"]`)];
  const one = all.find((c) => c.type !== 'radio' || c.value === value);
  if (one.type === 'radio') one.click();
  else {
    one.value = value;
    one.dispatchEvent(new Event('change', { bubbles: true }));
  }
};
"""


def test_it_starts_with_the_first_of_everything(page):
  seen = Seen(page)
  assert seen.complaints == []
  assert seen.shows('attribution', 0)
  assert seen.shows('backtracking', 0)
  assert seen.shows('published', 0)
  assert 'cannot be run backwards' in seen.texts['least_squares']
  assert 'least_squares' not in seen.images
  assert seen.images['attribution']['alt'].startswith('Gradient of <img src=x')
  assert 'Deletion AUC 0.1.' in seen.texts['curves']


def test_an_address_opens_a_view(page):
  seen = Seen(page, '#picture=1&network=adamw&class=2&method=backtrack')
  assert seen.complaints == []
  # classes of that picture: 1, 0, 2
  assert seen.shows('attribution', 50 + 10 + 2)
  assert seen.images['attribution']['alt'] == (
    'Backtracking of test 5, class owl, network AdamW'
  )
  assert 'labelled owl; AdamW says dog & <b>' in seen.texts['picture']
  assert 'owl (10.0 %, its label)' in seen.dom
  assert 'dog &amp; &lt;b&gt; (70.0 %)' in seen.dom


def test_what_cannot_be_shown_says_why(page):
  seen = Seen(page, '#method=grad_cam')
  assert seen.complaints == []
  assert 'No feature map.' in seen.texts['attribution']
  assert 'attribution' not in seen.images
  assert 'curves' not in seen.images


@pytest.mark.parametrize(
  'address',
  [
    '#picture=99&network=x&class=-1&method=%3Cimg%3E&other=1',
    '#picture=length&network=constructor&class=length&method=length',
  ],
)
def test_an_address_of_what_does_not_exist_shows_what_does(page, address):
  seen = Seen(page, address)
  assert seen.complaints == []
  assert seen.shows('attribution', 0)


def test_a_reader_picks(page):
  script = CHOOSE + (
    "choose('picture', '1'); choose('network', 'adamw');"
    "choose('class', '0'); choose('method', 'backtrack');"
    'document.title = location.hash;'
  )
  seen = Seen(acting(page, script))
  assert seen.complaints == []
  assert seen.shows('attribution', 50 + 10 + 1)
  assert seen.images['attribution']['alt'] == (
    'Backtracking of test 5, class cat, network AdamW'
  )
  state = '#picture=1&amp;network=adamw&amp;class=0&amp;method=backtrack'
  assert f'<title>{state}</title>' in seen.dom


def test_a_class_stays_when_the_picture_changes(page):
  script = CHOOSE + "choose('class', '2'); choose('picture', '1');"
  seen = Seen(acting(page, script))
  assert seen.shows('attribution', 10 + 2)


def test_nothing_hides_complaints(page):
  seen = Seen(acting(page, 'console.error("told"); missing();'))
  assert len(seen.complaints) == 2


@pytest.mark.parametrize('width', [360, 1280])
def test_nothing_is_wider_than_the_window(page, width):
  assert overflow(page, width) == f'0 {width}'
