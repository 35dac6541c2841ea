"""The page that ``bort-jax neurons`` writes."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from bort_jax.report import html
from bort_jax.report.page import assembled

UNITS_PAGE = 'neurons.html'  # its name in the directory of a run


class Unit(NamedTuple):
  """One unit, as it is shown."""

  number: int
  real: str  # top pictures, a PNG in base64
  adversarial: str
  real_classes: Sequence[str]  # what is seen in them
  adversarial_classes: Sequence[str]
  text: str


class LayerUnits(NamedTuple):
  """The units of a layer that lose most."""

  name: str
  text: str
  units: Sequence[Unit]


class NetworkUnits(NamedTuple):
  """One network."""

  name: str  # address of its section
  label: str
  text: Sequence[str]
  table: html.Table
  layers: Sequence[LayerUnits]


class UnitsContent(NamedTuple):
  """All that the page says."""

  title: str
  summary: str
  foreword: Sequence[str]
  networks: Sequence[NetworkUnits]


def render_units(content: UnitsContent) -> str:
  """The page as one file that needs no other, and no script."""
  sections = {
    network.name: (f'Units of {network.label}', _network(network))
    for network in content.networks
  }
  meanings = html.definitions(_MEANINGS, 'wide')
  about = html.paragraphs(content.foreword) + meanings
  return assembled(
    content.title,
    content.summary,
    {**sections, 'about': ('What the numbers mean', about)},
    'neurons',
    content.networks[0].name,
  )


def _network(network: NetworkUnits) -> str:
  layers = ''.join(
    _layer(layer, network.label, is_open=i == 0)
    for i, layer in enumerate(network.layers)
  )
  return html.paragraphs(network.text) + html.table(network.table) + layers


def _layer(layer: LayerUnits, label: str, is_open: bool) -> str:
  units = ''.join(_unit(unit, layer.name, label) for unit in layer.units)
  box = html.attributes(class_='layer', open=is_open)
  return (
    f'<details{box}><summary>{escape(layer.name)}: {escape(layer.text)}'
    f'</summary><div class="units">{units}</div></details>'
  )


def _unit(unit: Unit, layer: str, label: str) -> str:
  rows = {
    'real': (unit.real, unit.real_classes),
    'adversarial': (unit.adversarial, unit.adversarial_classes),
  }
  strips = ''
  for kind, (png, classes) in rows.items():
    seen = ', '.join(classes) or 'none'
    alt = (
      f'{kind} pictures that activate unit {unit.number} of {layer},'
      f' {label}, most: {seen}'
    )
    picture = html.image(png, alt, class_='pixelated')
    strips += f'<div class="strip"><span>{kind}</span>{picture}</div>'
  return (
    f'<figure><h3>{escape(layer)}, unit {unit.number}</h3>{strips}'
    f'<figcaption>{escape(unit.text)}</figcaption></figure>'
  )


_MEANINGS = (
  (
    'consistency',
    'pᵀAp, with p the shares of the classes among the top pictures of a unit'
    ' and A how near two classes are: 1 for a unit of one class alone.'
    ' Adversarial pictures count by the class that is seen in them.',
  ),
  (
    'both',
    'the same of the top pictures of real and adversarial ones together',
  ),
  ('chance', 'what a unit gets whose top pictures are drawn at random'),
  (
    'units',
    'those that have a consistency: others are alike on all pictures',
  ),
  (
    'cosine',
    'of what the layer makes of a picture and of its adversarial one, mean',
  ),
  (
    'relative distance',
    'of both, over the distance of two real pictures (root mean square)',
  ),
  ('drift', 'the distance of both, mean'),
  (
    'bound',
    'no attack of this size can make the drift larger: a Lipschitz constant of'
    ' the network up to the layer, times the change of the picture, mean',
  ),
  ('greatest share of it', 'the drift that came nearest to its bound'),
  (
    'marks',
    'where in its map the unit is activated most; layers without a map have'
    ' none',
  ),
  (
    'without it',
    'how much the logit of the class that is predicted falls when the unit is'
    ' set to zero, mean over some pictures',
  ),
)
