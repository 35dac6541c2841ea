"""The page: sections of HTML around one picker."""

import importlib.resources
import json
import string
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from bort_jax import __version__
from bort_jax.report import html
from bort_jax.report.certify import Statement
from bort_jax.report.gallery import Gallery, gallery_data, gallery_section


class Drawing(NamedTuple):
  """A figure of the run."""

  png: str
  alt: str
  caption: str


class Content(NamedTuple):
  """All that a page says."""

  title: str
  summary: str
  settings: Sequence[tuple[str, str]]
  run: html.Table
  drawings: Sequence[Drawing]
  gallery: Gallery
  measures: html.Table
  certificates: Sequence[Statement]
  units: str | None = None  # address of the page of units, if there is one


def render(content: Content) -> str:
  """The page as one file that needs no other."""
  sections = {
    'run': ('Run', _run(content)),
    'training': ('Training', _drawings(content.drawings)),
    'gallery': ('Gallery', gallery_section(content.gallery)),
    'metrics': ('Metrics', _metrics(content)),
    'certificate': ('Certificate', _certificates(content.certificates)),
  }
  data = _as_script(gallery_data(content.gallery))
  scripts = (
    f'<script type="application/json" id="data">{data}</script>'
    f'\n<script>\n{_resource("page.js")}\n</script>'
  )
  return assembled(
    content.title, content.summary, sections, 'explain', 'gallery', scripts
  )


def assembled(
  title: str,
  summary: str,
  sections: Mapping[str, tuple[str, str]],
  command: str,
  skip_to: str,
  scripts: str = '',
) -> str:
  """Sections as one file that needs no other.

  Args:
    title: of the page.
    summary: one sentence under it.
    sections: heading, and HTML, of each by its address.
    command: what wrote it.
    skip_to: the section that is reached past all links.
    scripts: elements at the end.

  Returns:
    The page.
  """
  return string.Template(_resource('page.html')).substitute(
    title=escape(title),
    summary=escape(summary),
    generator=f'bort-jax {__version__}',
    command=command,
    skip_to=skip_to,
    style=_resource('page.css'),
    scripts=scripts,
    links=''.join(
      f'<li><a{html.attributes(href="#" + name)}>{escape(heading)}</a></li>'
      for name, (heading, _) in sections.items()
    ),
    sections='\n'.join(
      f'<section{html.attributes(id=name)}><h2>{escape(heading)}</h2>{body}'
      '</section>'
      for name, (heading, body) in sections.items()
    ),
  )


def _resource(name: str) -> str:
  files = importlib.resources.files('bort_jax.report')
  return files.joinpath(name).read_text('utf-8')


def _as_script(data: Any) -> str:
  """JSON in which no tag can begin."""
  return json.dumps(data, allow_nan=False).replace('<', '\\u003c')


def _run(content: Content) -> str:
  settings = html.definitions(content.settings)
  return (
    html.table(content.run)
    + _link_to_units(content.units)
    + f'<details><summary>Settings</summary>{settings}</details>'
  )


def _link_to_units(address: str | None) -> str:
  if address is None:
    return ''
  link = html.attributes(href=address)
  return f'<p><a{link}>Its units, and what attacks make of them</a></p>'


def _drawings(drawings: Sequence[Drawing]) -> str:
  figures = ''.join(html.figure(*drawing) for drawing in drawings)
  return f'<div class="drawings">{figures}</div>'


def _metrics(content: Content) -> str:
  gallery = content.gallery
  methods = {method.name: method.label for method in gallery.methods}
  return (
    html.table(content.measures)
    + '<details><summary>What the columns mean</summary>'
    + html.definitions(_MEANINGS, 'wide')
    + '</details><form class="row curves" autocomplete="off">'
    + html.select('Curves of', 'method', methods)
    + html.select('of network', 'network', gallery.networks)
    + '</form><figure data-show="curves"><img class="drawing" alt="">'
    '<p class="why" hidden></p><figcaption></figcaption></figure>'
  )


_MEANINGS = (
  (
    'deletion AUC',
    'area under the probability of the class while the pixels that the map'
    ' ranks first are blacked out; less is better',
  ),
  (
    'insertion AUC',
    'area under it while they are put on the blurred picture; more is better',
  ),
  (
    'faithfulness',
    'correlation of what the map gives to random sets of pixels and how much'
    ' the logit falls without them',
  ),
  (
    'after randomizing',
    'rank correlation of the map with that of the same network with new random'
    ' weights; a map that stays the same does not explain what was learned',
  ),
  ('sparseness', 'Gini index of the map: 0 is even, 1 is one pixel alone'),
)


def _certificates(statements: Sequence[Statement]) -> str:
  body = ''
  for text, table in statements:
    body += html.paragraphs([text])
    body += html.table(table) if table else ''
  meanings = html.definitions(_SEGMENTS, 'wide')
  return (
    f'{body}<details><summary>What the columns mean</summary>{meanings}'
    '</details>'
  )


_SEGMENTS = (
  (
    'segment',
    'what lies between two arrays through which all passes',
  ),
  ('L ≤', 'no two inputs are stretched by more'),
  ('L ≥', 'some two inputs near these pictures are stretched by this much'),
  (
    'σ min',
    'some are stretched by this little, of those that do not become one',
  ),
  (
    'null space',
    'share of the directions that the output tells nothing of, by shapes alone',
  ),
  (
    'lost energy',
    'squared error of what comes back through this segment, over the energy of'
    ' what went in',
  ),
  ('source', 'file and line where it ends'),
)
