"""The page as text: escaped, whole, and readable by machines."""

import json
import re

import pytest
from report_helpers import HOSTILE, Elements, made_up_content

from bort_jax.report import html as pieces
from bort_jax.report.page import render


@pytest.fixture(scope='module')
def page():
  return render(made_up_content())


@pytest.fixture(scope='module')
def elements(page):
  return Elements(page).found


def test_nothing_from_outside_becomes_an_element(page, elements):
  assert HOSTILE not in page
  assert 'onerror' not in [name for _, attrs in elements for name in attrs]
  sources = [
    attrs['src'] for tag, attrs in elements if tag == 'img' if 'src' in attrs
  ]
  assert sources
  assert all(src.startswith('data:image/png;base64,') for src in sources)


def test_data_come_back_as_they_were(page):
  text = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
  assert text is not None
  data = json.loads(text[1])
  assert data['pictures'][0]['name'] == HOSTILE
  assert data['pictures'][1]['label'] == 2
  assert data['classes'][1] == 'dog & <b>'
  assert set(data['views']) == {'bort', 'adamw'}


def test_the_page_refers_to_nothing_outside(page, elements):
  assert 'http:' not in page.replace('http-equiv', '')
  assert 'https:' not in page
  tags = {tag for tag, _ in elements}
  assert not tags & {'iframe', 'object', 'embed'}
  for tag, attrs in elements:
    if tag in ('a', 'link'):
      assert attrs['href'].startswith(('#', 'data:'))


def test_the_page_is_accessible(elements):
  of = lambda name: [attrs for tag, attrs in elements if tag == name]
  assert of('html')[0]['lang'] == 'en'
  assert any(a.get('name') == 'viewport' for a in of('meta'))
  assert len(of('title')) == len(of('h1')) == len(of('main')) == 1
  assert all('alt' in attrs for attrs in of('img'))
  assert len(of('legend')) == len(of('fieldset')) == 3
  boxes = [a for a in of('div') if a.get('class') == 'scroll']
  assert len(boxes) == len(of('table')) == 2
  assert all(a['tabindex'] == '0' and a['aria-label'] for a in boxes)
  assert all(attrs['aria-label'] for attrs in of('table'))
  ids = [attrs['id'] for _, attrs in elements if 'id' in attrs]
  assert len(ids) == len(set(ids))
  links = {a['href'][1:] for a in of('a')}
  assert links <= set(ids)


def test_texts_of_tables_are_escaped():
  table = pieces.Table('a<b', ('<h>',), {'<g>': [['<c>', '&']]}, '<c>')
  found = pieces.table(table)
  assert '&lt;h&gt;' in found
  assert '&lt;g&gt;' in found
  assert (
    '<tr class="control"><th scope="row">&lt;c&gt;</th><td>&amp;</td>' in found
  )


def test_the_page_of_units_is_linked_where_there_is_one(page):
  assert 'Its units' not in page
  linked = render(made_up_content()._replace(units='neurons.html'))
  assert '<a href="neurons.html">Its units' in linked
