"""From a run to its page, by the command."""

import base64
import dataclasses
import html
import importlib
import io
import json
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from bort_jax import attribution, cli, inversion
from bort_jax.report import explain, methods
from bort_jax.report.write import write_whole
from bort_jax.train import load_dataset
from bort_jax.train.errors import RunError

METHODS = ('gradient', 'grad_cam')
HOSTILE = '<img src=x onerror=alert(1)>.png'


def data_of(path):
  text = re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)
  assert text is not None
  return json.loads(text[1])


@pytest.fixture(scope='module')
def own_picture(tmp_path_factory):
  path = tmp_path_factory.mktemp('own') / HOSTILE
  picture = PIL.Image.new('RGB', (40, 30), 'white')
  picture.paste('black', (18, 5, 22, 25))
  picture.save(path)
  return path


@pytest.fixture(scope='module')
def report(run_dir, own_picture):
  """What the command writes of the run, with a picture of the user's."""
  args = ['explain', str(run_dir), '--images', str(own_picture)]
  cli.main([*args, '--num-pictures', '3', '--methods', *METHODS])
  return run_dir / 'report.html'


def test_the_page_tells_of_the_run(report):
  text = report.read_text()
  assert '<title>Report of tiny</title>' in text
  for label in ('Bort', 'AdamW', 'untrained (control)', 'random map'):
    assert label in text
  assert 'patch_net on digits: pictures of 8×8×1, 10 classes' in text
  accuracy = json.loads((report.parent / 'results.json').read_text())
  assert f'{accuracy[0]["test_accuracy"]:.2%}' in text
  assert 'stretches no difference' in text  # of the certificate
  assert html.escape(HOSTILE) in text
  assert HOSTILE not in text


def test_every_choice_has_something_to_show(report):
  data = data_of(report)
  assert [p['name'] for p in data['pictures']][0] == HOSTILE
  assert [p['label'] for p in data['pictures']] == [None, 0, 1, 2]
  assert [n['name'] for n in data['networks']] == ['bort', 'adamw']
  assert [m['name'] for m in data['methods']] == list(METHODS)
  for views in data['views'].values():
    assert len(views) == 4
    for view in views:
      assert sorted(view['classes']) == list(range(10))
      assert view['probabilities'] == sorted(view['probabilities'])[::-1]
      assert sum(view['probabilities']) == pytest.approx(1, abs=1e-4)
      for name in (*METHODS, 'backtrack'):
        assert len(view['maps'][name]['png']) == 10
      for way in data['ways']:
        assert view['reconstructions'][way['name']]['png']
  for curves in data['curves'].values():
    assert all(curves[name]['png'] for name in METHODS)


@pytest.fixture
def hard_to_undo(monkeypatch):
  """Certificates as of a network that does not come back in its steps."""
  page = importlib.import_module('bort_jax.report.explain')

  def certificate(*args, newton_steps, **options):
    found = inversion.certificate(*args, newton_steps=newton_steps, **options)
    first, *others = found.segments
    stuck = dataclasses.replace(
      first,
      newton_steps=jnp.int32(newton_steps),
      residual=jnp.ones_like(first.residual),
    )
    return found._replace(segments=(stuck, *others))

  monkeypatch.setattr(page, 'certificate', certificate)


def test_what_would_take_too_long_is_left_out(run_dir, tmp_path, hard_to_undo):
  path = tmp_path / 'page.html'
  options = {'output': path, 'num_pictures': 3, 'methods': METHODS}
  explain(run_dir, **options, newton_steps=7)
  for views in data_of(path)['views'].values():
    for view in views:
      assert view['maps']['backtrack']['why'].startswith('Left out: ')
      assert 'is left after 7 steps' in view['maps']['backtrack']['why']
      assert view['maps']['gradient']['png']
      assert view['reconstructions']['least_squares']['png']
  assert 'is what Gauss–Newton leaves' in path.read_text()


def test_what_is_asked_for_is_not_left_out(run_dir, tmp_path, hard_to_undo):
  path = tmp_path / 'page.html'
  explain(run_dir, output=path, num_pictures=3, methods=('backtrack',))
  data = data_of(path)
  for views in data['views'].values():
    assert all(view['maps']['backtrack']['png'] for view in views)
  for curves in data['curves'].values():
    assert curves['backtrack']['png']


def test_pictures_are_what_the_networks_saw(report):
  data = data_of(report)
  test = load_dataset('digits').test_images
  picture = data['pictures'][1]
  pixels = np.asarray(
    PIL.Image.open(io.BytesIO(base64.b64decode(picture['png'])))
  )
  number = int(picture['name'].removeprefix('test '))
  np.testing.assert_array_equal(pixels, test[number, :, :, 0])


def test_a_bad_picture_leaves_the_report_as_it_was(run_dir, report, tmp_path):
  before, files = report.read_bytes(), sorted(run_dir.iterdir())
  bad = tmp_path / 'bad.png'
  bad.write_bytes(b'nothing')
  with pytest.raises(SystemExit) as caught:
    cli.main(['explain', str(run_dir), '--images', str(bad)])
  assert str(bad) in str(caught.value)
  assert report.read_bytes() == before
  assert sorted(run_dir.iterdir()) == files


def test_a_page_that_cannot_be_written_leaves_what_was_there(
  tmp_path, monkeypatch
):
  def fail(*args):
    raise OSError(28, 'No space left on device')

  page = tmp_path / 'page.html'
  write_whole(page, 'old')
  monkeypatch.setattr(pathlib.Path, 'replace', fail)
  with pytest.raises(OSError, match='No space'):
    write_whole(page, 'new')
  assert list(tmp_path.iterdir()) == [page]
  assert page.read_text() == 'old'


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (
      {'methods': ('gradient', 'gradeint')},
      "no method 'gradeint'; .* Did you mean 'gradient'",
    ),
    ({'num_pictures': 0}, 'needs pictures'),
    ({'num_pictures': -1}, 'needs pictures'),
    ({'newton_steps': 0}, 'newton_steps must be an integer, at least 1'),
    ({'output': pathlib.Path('missing/page.html')}, 'is in no directory'),
    ({'output': pathlib.Path('.')}, 'is a directory'),
  ],
)
def test_bad_settings_are_refused_at_once(run_dir, options, message):
  told = []
  with pytest.raises(RunError, match=message):
    explain(run_dir, **options, tell=told.append)
  assert not told


def test_a_blank_picture_is_refused(run_dir, tmp_path):
  blank = tmp_path / 'logo.png'
  logo = PIL.Image.new('RGBA', (9, 9), (255, 255, 255, 0))
  logo.putpixel((4, 4), (255, 255, 255, 255))  # white on nothing
  logo.save(blank)
  with pytest.raises(RunError, match='nothing to see in .*logo.png'):
    explain(run_dir, images=[blank])


def test_what_is_no_run_is_refused(tmp_path):
  with pytest.raises(RunError, match='not the directory of a run'):
    explain(tmp_path)


def test_all_methods_of_the_library_are_shown():
  known = {method.name for method in methods.METHODS}
  assert set(attribution.METHODS) <= known
  kinds = {method.kind for method in methods.METHODS}
  assert kinds == {'signed', 'absolute'}
