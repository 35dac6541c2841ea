"""Pieces of HTML. Whatever text comes in is escaped; nothing else is."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from bort_jax.report.png import PREFIX


class Table(NamedTuple):
  """A table of text; the first column names its rows."""

  caption: str
  headings: Sequence[str]
  groups: Mapping[str, Sequence[Sequence[str]]]
  """Rows by the name of their group; '' for rows without one."""
  control: str | None = None  # first cell of the rows that are set apart


def attributes(**values: str | int | bool | None) -> str:
  """Attributes of an element: true ones bare, false and missing ones left out.

  Examples:
    >>> from bort_jax.report.html import attributes
    >>> attributes(id='a<b', checked=True, hidden=False, data_pick=3)
    ' id="a&lt;b" checked data-pick="3"'
  """
  shown = {
    name.rstrip('_').replace('_', '-'): value
    for name, value in values.items()
    if value is not None and value is not False
  }
  return ''.join(
    f' {name}' if value is True else f' {name}="{escape(str(value))}"'
    for name, value in shown.items()
  )


def image(png: str, alt: str, **others: str | int | bool | None) -> str:
  """An image from a PNG in base64.

  Examples:
    >>> from bort_jax.report.html import image
    >>> image('iVBO', 'a "3"')
    '<img src="data:image/png;base64,iVBO" alt="a &quot;3&quot;">'
  """
  return f'<img{attributes(src=PREFIX + png, alt=alt, **others)}>'


def figure(png: str, alt: str, caption: str) -> str:
  """A drawing of matplotlib with its caption."""
  picture = image(png, alt, class_='drawing', loading='lazy')
  return f'<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>'


def table(content: Table) -> str:
  """A table in a box of its own, which scrolls where it is too wide."""
  head = ''.join(f'<th scope="col">{escape(h)}</th>' for h in content.headings)
  bodies = ''.join(
    _body(name, rows, content) for name, rows in content.groups.items()
  )
  box = attributes(
    class_='scroll', tabindex=0, role='region', aria_label=content.caption
  )
  return (
    f'<figure class="table"><figcaption>{escape(content.caption)}</figcaption>'
    f'<div{box}><table{attributes(aria_label=content.caption)}>'
    f'<thead><tr>{head}</tr></thead>{bodies}</table></div></figure>'
  )


def _body(name: str, rows: Iterable[Sequence[str]], content: Table) -> str:
  heading = ''
  if name:
    span = attributes(scope='rowgroup', colspan=len(content.headings))
    heading = f'<tr class="group"><th{span}>{escape(name)}</th></tr>'
  lines = ''.join(_row(row, row[0] == content.control) for row in rows)
  return f'<tbody>{heading}{lines}</tbody>'


def _row(cells: Sequence[str], is_control: bool) -> str:
  first, *rest = map(escape, cells)
  mark = ' class="control"' if is_control else ''
  numbers = ''.join(f'<td>{cell}</td>' for cell in rest)
  return f'<tr{mark}><th scope="row">{first}</th>{numbers}</tr>'


def radios(
  legend: str, pick: str, choices: Mapping[str, str], css: str = 'radios'
) -> str:
  """A group of radio buttons.

  Args:
    legend: what is chosen.
    pick: its name in the page's state.
    choices: HTML of each label by its value.
    css: class of the group.

  Returns:
    The group, with its first choice made.
  """
  labels = ''.join(
    f'<label><input{_radio(pick, value, i == 0)}>{inside}</label>'
    for i, (value, inside) in enumerate(choices.items())
  )
  return (
    f'<fieldset{attributes(class_=css)}><legend>{escape(legend)}</legend>'
    f'<div>{labels}</div></fieldset>'
  )


def _radio(pick: str, value: str, checked: bool) -> str:
  return attributes(
    type='radio', name=pick, value=value, data_pick=pick, checked=checked
  )


def select(label: str, pick: str, choices: Mapping[str, str]) -> str:
  """A list to choose from: texts by their values."""
  options = ''.join(
    f'<option{attributes(value=value)}>{escape(text)}</option>'
    for value, text in choices.items()
  )
  return (
    f'<label class="select"><span>{escape(label)}</span>'
    f'<select{attributes(data_pick=pick)}>{options}</select></label>'
  )


def definitions(
  pairs: Iterable[tuple[str, str]], css: str | None = None
) -> str:
  """A list of names and what they stand for."""
  lines = ''.join(
    f'<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>'
    for name, text in pairs
  )
  return f'<dl{attributes(class_=css)}>{lines}</dl>'


def paragraphs(texts: Iterable[str], **others: str) -> str:
  """A paragraph for each text."""
  return ''.join(
    f'<p{attributes(**others)}>{escape(text)}</p>' for text in texts
  )
