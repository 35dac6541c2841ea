"""A page in headless Chromium, after its script has run."""

import html.parser
import re
import shutil
import subprocess

import pytest
from report_helpers import png

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)

needs_browser = pytest.mark.skipif(
  BROWSER is None, reason=f'none of {", ".join(NAMES)} is installed'
)


class Places(html.parser.HTMLParser):
  """What stands in each place of the page, and the texts of the options."""

  def __init__(self, text):
    super().__init__()
    self.place, self.images, self.texts = '', {}, {}
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.place = attrs.get('data-show', self.place)
    if tag == 'img' and self.place not in self.images:
      self.images[self.place] = attrs

  def handle_data(self, data):
    self.texts[self.place] = self.texts.get(self.place, '') + data


class Seen:
  """A page after its script has run."""

  def __init__(self, path, address='', profile=None):
    self.path = path
    result = subprocess.run(
      [
        str(BROWSER),
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--no-first-run',
        f'--user-data-dir={profile or path.parent / "profile"}',
        '--virtual-time-budget=5000',
        '--enable-logging=stderr',
        '--v=0',
        '--dump-dom',
        path.as_uri() + address,
      ],
      capture_output=True,
      text=True,
      timeout=120,
      check=True,
    )
    self.dom = result.stdout
    self.title = re.findall('<title>(.*?)</title>', self.dom)[0]
    self.complaints = re.findall(r'.*CONSOLE.*', result.stderr)
    places = Places(self.dom)
    self.texts = places.texts
    self.images = {
      place: attrs
      for place, attrs in places.images.items()
      if 'hidden' not in attrs
    }

  def shows(self, place, number):
    return self.images[place]['src'].endswith(png(number))


def acting(page, script):
  """A copy of the page in which a reader does something."""
  path = page.with_name('acting.html')
  text = page.read_text('utf-8').replace(
    '</body>', f'<script>{script}</script></body>'
  )
  path.write_text(text, 'utf-8')
  return path


def overflow(page, width):
  """By how much a page is wider than a window, and the window's width."""
  # Chromium's own windows are 500 pixels wide at least; a frame may be less.
  tell = """addEventListener('load', () => {
    const { scrollWidth, clientWidth } = document.documentElement;
    parent.postMessage(`${scrollWidth - clientWidth} ${innerWidth}`, '*');
  });"""
  frame = page.with_name('frame.html')
  frame.write_text(
    f'<iframe src="{acting(page, tell).name}" width="{width}"></iframe><script>'
    "addEventListener('message', (e) => { document.title = e.data; })</script>",
    'utf-8',
  )
  return Seen(frame).title
