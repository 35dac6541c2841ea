"""The gallery: what a reader picks, and what is shown of it."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from bort_jax.plots.colors import Kind, map_colors
from bort_jax.report import html
from bort_jax.report.backwards import WAYS
from bort_jax.report.method import Method
from bort_jax.report.png import encode
from bort_jax.report.shown import Shown

_SMALL = 96  # side up to which pixels are shown as squares


class Picture(NamedTuple):
  """One picture of the gallery."""

  name: str
  label: int | None
  pixels: np.ndarray  # (H, W, C) uint8


class View(NamedTuple):
  """What one network makes of one picture."""

  classes: list[int]  # that are explained, most probable first
  probabilities: list[float]  # of them
  predicted: int
  maps: dict[str, Shown]  # by the name of the method, backtrack among them
  reconstructions: dict[str, Shown]  # by the name of the way


class Gallery(NamedTuple):
  """Everything that a reader picks from."""

  pictures: Sequence[Picture]
  networks: Mapping[str, str]  # labels by name
  methods: Sequence[Method]
  classes: Sequence[str]  # names
  views: Mapping[str, Sequence[View]]  # by network, one for each picture
  curves: Mapping[str, Mapping[str, Shown]]  # by network and method


def gallery_section(gallery: Gallery) -> str:
  """The pickers, and places for what is picked."""
  height, width, _ = gallery.pictures[0].pixels.shape
  pixelated = 'pixelated' if max(height, width) <= _SMALL else None
  first = gallery.views[next(iter(gallery.networks))][0]
  style = html.attributes(style=f'--aspect: {width} / {height}')
  pickers = (
    html.radios(
      'Picture', 'picture', _picture_tiles(gallery, pixelated), 'tiles'
    )
    + '<div class="row">'
    + html.radios('Network', 'network', _escaped(gallery.networks))
    + html.select('Class', 'class', _class_options(gallery, first))
    + '</div>'
    + html.radios(
      'Method',
      'method',
      {m.name: _method_tile(m, pixelated) for m in gallery.methods},
      'tiles wide',
    )
  )
  places = {
    'picture': 'Picture',
    'attribution': 'Attribution',
    'backtracking': 'Backtracking',
    **{way.name: way.label for way in WAYS},
  }
  views = ''.join(
    _place(name, heading, pixelated) for name, heading in places.items()
  )
  return (
    '<p>Choose a picture, a network, a class and a method; the address of the'
    ' page follows, so that a view can be linked to.</p>'
    f'<noscript><p><strong>The gallery needs JavaScript, which is off.</strong>'
    f'</p></noscript><div{style}>'
    f'<form class="pickers" autocomplete="off">{pickers}</form>'
    f'<p role="status" class="soft" data-show="status"></p>'
    f'<div class="views">{views}</div></div>{_legends()}'
  )


def _escaped(texts: Mapping[str, str]) -> dict[str, str]:
  return {name: escape(text) for name, text in texts.items()}


def _picture_tiles(gallery: Gallery, css: str | None) -> dict[str, str]:
  return {
    str(i): html.image(encode(one.pixels), '', class_=css)
    + f'<span>{escape(_tile_text(one, gallery.classes))}</span>'
    for i, one in enumerate(gallery.pictures)
  }


def _tile_text(picture: Picture, classes: Sequence[str]) -> str:
  if picture.label is None:
    return picture.name
  return f'{picture.name}: {classes[picture.label]}'


def _class_options(gallery: Gallery, view: View) -> dict[str, str]:
  return {str(i): gallery.classes[i] for i in view.classes}


def _method_tile(method: Method, css: str | None) -> str:
  tile = html.attributes(data_tile=method.name, class_='tile')
  return (
    f'<span{tile}><img{html.attributes(alt="", class_=css)}>'
    '<span class="none" hidden aria-hidden="true">–</span></span>'
    f'<span>{escape(method.label)}</span>'
  )


def _place(name: str, heading: str, css: str | None) -> str:
  """Where a picture is shown, or the reason why there is none."""
  return (
    f'<figure data-show="{name}"><h3>{escape(heading)}</h3>'
    f'<img{html.attributes(alt="", class_=css)}><p class="why" hidden></p>'
    '<figcaption></figcaption></figure>'
  )


def _legends() -> str:
  ramp = np.linspace(-1, 1, 64)[None, :, None]
  legend: Mapping[Kind, tuple[str, str]] = {
    'signed': ('against the class', 'for it'),
    'absolute': ('nothing', 'most'),
  }
  items = ''
  for kind, (low, high) in legend.items():
    values = ramp if kind == 'signed' else (ramp + 1) / 2
    colors = map_colors(values[None], kind, 100)[0]
    bar = html.image(encode(colors), f'from {low} to {high}')
    items += f'<span>{low} {bar} {high}</span>'
  return (
    f'<p class="legends">{items}<span>each map by itself, clipped at its 99th'
    ' percentile</span></p>'
  )


def gallery_data(gallery: Gallery) -> dict[str, Any]:
  """What the page's script draws from, as JSON."""
  shown = lambda by_name: {k: v.as_json() for k, v in by_name.items()}
  return {
    'pictures': [
      {'name': one.name, 'label': one.label, 'png': encode(one.pixels)}
      for one in gallery.pictures
    ],
    'networks': _named(gallery.networks),
    'methods': [
      {'name': m.name, 'label': m.label, 'about': m.about}
      for m in gallery.methods
    ],
    'ways': _named({way.name: way.label for way in WAYS}),
    'classes': list(gallery.classes),
    'views': {
      network: [
        {
          **view._asdict(),
          'maps': shown(view.maps),
          'reconstructions': shown(view.reconstructions),
        }
        for view in views
      ]
      for network, views in gallery.views.items()
    },
    'curves': {
      network: shown(curves) for network, curves in gallery.curves.items()
    },
  }


def _named(labels: Mapping[str, str]) -> list[dict[str, str]]:
  return [{'name': name, 'label': label} for name, label in labels.items()]
