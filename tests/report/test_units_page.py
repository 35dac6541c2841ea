"""The page of units: what stands in it, in text and in a browser."""

import base64
import io
import json
import re
import shutil

import numpy as np
import PIL.Image
import pytest
from browser_helpers import Seen, needs_browser, overflow
from report_helpers import HOSTILE, Elements, png

from bort_jax import cli
from bort_jax.report import html as pieces
from bort_jax.report.explain import has_units
from bort_jax.report.strips import strip
from bort_jax.report.units_page import (
  LayerUnits,
  NetworkUnits,
  Unit,
  UnitsContent,
  render_units,
)


def made_up():
  units = [
    Unit(number, png(number), png(9), [HOSTILE, 'dog & <b>'], [], 'It loses.')
    for number in range(3)
  ]
  layers = [LayerUnits(name, '3 units', units) for name in ('act1', 'act2')]
  table = pieces.Table('Layers', ('layer', 'units'), {'': [['act1', '3']]})
  networks = [
    NetworkUnits(name, name.title(), ['So many.'], table, layers)
    for name in ('bort', 'adamw')
  ]
  return UnitsContent(f'Units of {HOSTILE}', 'A run.', ['What.'], networks)


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  path = tmp_path_factory.mktemp('units') / 'neurons.html'
  path.write_text(render_units(made_up()), 'utf-8')
  return path


def test_every_picture_says_what_it_shows(page):
  elements = Elements(page.read_text('utf-8'))
  alts = [attrs['alt'] for attrs in elements.attributes('img')]
  assert len(alts) == 2 * 2 * 3 * 2
  assert len(set(alts)) == len(alts)
  assert (
    'real pictures that activate unit 1 of act2, Bort, most:'
    f' {HOSTILE}, dog & <b>' in alts
  )
  assert any(alt.endswith('Adamw, most: none') for alt in alts)


def test_nothing_from_outside_becomes_an_element(page):
  elements = Elements(page.read_text('utf-8'))
  assert not elements.attributes('script')
  assert not elements.attributes('b')
  assert all('onerror' not in attrs for _, attrs in elements.found)


def test_links_lead_somewhere_and_layers_open_by_key(page):
  elements = Elements(page.read_text('utf-8'))
  places = {attrs['id'] for attrs in elements.attributes('section')}
  assert places == {'bort', 'adamw', 'about'}
  to = {a['href'] for a in elements.attributes('a')}
  assert to == {f'#{place}' for place in places}
  # details and summary are reached and opened by keyboard as they come
  layers = [d for d in elements.attributes('details') if 'class' in d]
  assert [('open' in d) for d in layers] == [True, False] * 2
  assert len(elements.attributes('summary')) == len(layers)


@needs_browser
def test_a_browser_does_not_complain_and_scrolls_one_way(page):
  seen = Seen(page)
  assert seen.complaints == []
  assert seen.title.startswith('Units of')
  for width in (360, 1280):
    text = page.read_text('utf-8')
    wide = page.with_name(f'open{width}.html')
    wide.write_text(text.replace('<details', '<details open'), 'utf-8')
    assert overflow(wide, width) == f'0 {width}'


def pixels_of(encoded):
  image = PIL.Image.open(io.BytesIO(base64.b64decode(encoded)))
  return np.asarray(image.convert('RGB'))


def test_a_strip_is_a_row_of_pictures_with_marks():
  grey = np.zeros((16, 12, 1), np.uint8)
  marks = np.array([[0.5, 0.5], [np.nan, np.nan], [0.0, 0.9]])
  pixels = pixels_of(strip([grey, None, grey], marks))
  assert pixels.shape == (16, 3 * 12 + 2, 3)
  orange = np.all(pixels == (230, 159, 0), axis=-1)
  assert orange[:, :12].any()
  assert not orange[:, 12:26].any()
  assert orange[0, 26:].any()
  assert np.all(pixels[:, 13:25] == 128)  # where there is none
  large = np.zeros((200, 100, 3), np.uint8)
  assert pixels_of(strip([large], np.full((1, 2), np.nan))).shape == (64, 32, 3)


SMALL = ['--pictures', '96', '--layers', 'act1', 'logits']


@pytest.mark.parametrize('attack', ['fgsm', 'ensemble'])
def test_the_command_writes_the_units_of_a_run(
  run_dir, attack, tmp_path, capsys
):
  path = tmp_path / 'page.html'
  options = ['--attack', attack, '--units', '3', '--count', '4']
  cli.main(['neurons', str(run_dir), '--output', str(path), *SMALL, *options])
  assert capsys.readouterr().out == f'The page is in {path}.\n'
  page = Elements(path.read_text('utf-8'))
  assert len(page.attributes('img')) == 2 * 2 * 3 * 2  # networks, layers, …
  assert 'units, of which 3 are shown' in page.text
  assert 'Without it the logit' in page.text
  assert 'the class tree of digits that comes with bort_jax' in page.text
  lost = [
    float(number) for number in re.findall(r'it loses (-?\d\.\d+)', page.text)
  ]
  assert len(lost) == 2 * 2 * 3
  for first in range(0, len(lost), 3):  # of each layer
    of_layer = lost[first : first + 3]
    assert of_layer == sorted(of_layer, reverse=True)


def test_by_default_pgd_attacks_as_the_run_was_trained(
  run_dir, tmp_path, capsys
):
  run = tmp_path / 'run'
  shutil.copytree(run_dir, run)
  for page in ('report.html', 'neurons.html'):
    (run / page).unlink(missing_ok=True)
  fields = json.loads((run / 'config.json').read_text())
  fields['adversarial'] = {**fields['adversarial'], 'epsilon': 0.25}
  fields['run_dir'] = str(run)
  (run / 'config.json').write_text(json.dumps(fields))
  few = ['--pictures', '32', '--layers', 'logits', '--units', '1']
  cli.main(['neurons', str(run), *few])
  assert 'bort-jax explain' not in capsys.readouterr().out
  text = Elements((run / 'neurons.html').read_text('utf-8')).text
  assert 'by PGD, 10 steps, ε = 0.25' in text
  (run / 'report.html').touch()
  cli.main(['neurons', str(run), *few, '--attack', 'fgsm'])
  assert f'comes with bort-jax explain {run}' in capsys.readouterr().out


def test_a_report_links_to_the_units_of_its_own_run_alone(tmp_path):
  run, other = tmp_path / 'run', tmp_path / 'other'
  for directory in (run, other):
    directory.mkdir()
  assert not has_units(run, run / 'report.html')
  for directory in (run, other):
    (directory / 'neurons.html').touch()
  assert has_units(run, run / 'report.html')
  assert not has_units(run, other / 'report.html')


def test_the_command_refuses_with_a_remedy(run_dir, tmp_path):
  refused = lambda *options: cli.main(
    ['neurons', str(run_dir), '--output', str(tmp_path / 'page.html'), *options]
  )
  with pytest.raises(SystemExit, match='epsilon must be above 0 and at most 1'):
    refused('--epsilon', '8')
  with pytest.raises(SystemExit, match='count must be at least 1'):
    refused('--count', '0')
  with pytest.raises(SystemExit, match="no layer 'act11'.* mean 'act1'"):
    refused('--layers', 'act11', '--pictures', '8', '--attack', 'fgsm')
  tree = tmp_path / 'tree.txt'
  tree.write_text('digit 0\ndigit 1\n')
  with pytest.raises(SystemExit, match="not cover 8 of 10 classes: '2'"):
    refused('--tree', str(tree))
  assert not (tmp_path / 'page.html').exists()
