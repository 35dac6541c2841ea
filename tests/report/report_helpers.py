"""A page of made-up contents, quick to make, and a reader of pages."""

import html.parser

import numpy as np

from bort_jax.report import html as pieces
from bort_jax.report.certify import Statement
from bort_jax.report.gallery import Gallery, Picture, View
from bort_jax.report.methods import choose_methods
from bort_jax.report.page import Content, Drawing
from bort_jax.report.png import encode
from bort_jax.report.shown import Shown

HOSTILE = '<img src=x onerror=alert(1)>"\'</script>.png'
NETWORKS = {'bort': 'Bort', 'adamw': 'AdamW'}
CLASSES = ['cat', 'dog & <b>', 'owl']
VOID = {'meta', 'link', 'img', 'input', 'br'}


class Elements(html.parser.HTMLParser):
  """All elements of a page, which must be closed in order, and its text."""

  def __init__(self, text):
    super().__init__()
    self.found, self.text, self.open = [], '', []
    self.feed(text)
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.found.append((tag, dict(attrs)))
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data

  def attributes(self, tag):
    return [attrs for name, attrs in self.found if name == tag]


def png(number):
  """A picture of its own for every number."""
  return encode(np.full((8, 8, 3), number, np.uint8))


def made_up_content(picture_name=HOSTILE):
  methods = choose_methods(('gradient', 'grad_cam', 'backtrack'))
  pixels = np.zeros((8, 8, 1), np.uint8)
  pictures = [Picture(picture_name, None, pixels), Picture('test 5', 2, pixels)]
  views, curves = {}, {}
  for n, network in enumerate(NETWORKS):
    views[network] = [_view(methods, 50 * n + 10 * p, p) for p in (0, 1)]
    curves[network] = {
      'gradient': Shown(png(n), caption='Deletion AUC 0.1.'),
      'grad_cam': Shown(why='No feature map.'),
      'backtrack': Shown(png(n)),
    }
  return Content(
    f'Report of {picture_name}',
    'simple_cnn on digits.',
    [('data', 'digits')],
    pieces.Table('Run', ('network', 'loss'), {'': [['Bort', '0.1']]}),
    [Drawing(png(200), 'Training loss', 'Loss.')],
    Gallery(pictures, NETWORKS, methods, CLASSES, views, curves),
    pieces.Table('Metrics', ('method', 'AUC'), {'Bort': [['Gradient', '0.2']]}),
    [Statement('No bound: none is known of softmax.', None)],
  )


def _view(methods, first, predicted):
  maps = {
    method.name: Shown([png(first + c) for c in range(len(CLASSES))])
    for method in methods
  }
  maps['grad_cam'] = Shown(why='No feature map.')
  back = {
    'published': Shown(png(first), caption='Error 0.5.'),
    'least_squares': Shown(why='It cannot be run backwards.'),
  }
  order = [predicted, *(c for c in (0, 1, 2) if c != predicted)]
  return View(order, [0.7, 0.2, 0.1], predicted, maps, back)
