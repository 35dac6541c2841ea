"""From a run to its report."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax import plots
from bort_jax.inversion import certificate
from bort_jax.report import gather
from bort_jax.report.backwards import WAYS, reconstructions
from bort_jax.report.certify import left_out, lipschitz, statement
from bort_jax.report.gallery import Gallery, Picture, View
from bort_jax.report.maps import classes_shown, maps_of, shown_maps
from bort_jax.report.measures import (
  Case,
  curve_figures,
  measure,
  measure_table,
)
from bort_jax.report.method import Method
from bort_jax.report.methods import choose_methods
from bort_jax.report.own import with_own
from bort_jax.report.page import Content, render
from bort_jax.report.pictures import PROTOCOL_MARGIN, read_pictures
from bort_jax.report.run import run_drawings, run_table, settings_of, summary_of
from bort_jax.report.shown import Shown, attempt
from bort_jax.report.subject import (
  Subject,
  feature_depth,
  fresh_parameters,
  make_subject,
)
from bort_jax.report.units_page import UNITS_PAGE
from bort_jax.report.write import check_place, write_whole
from bort_jax.train.config import TrainConfig
from bort_jax.train.errors import RunError
from bort_jax.train.report import Restored, restore_run
from bort_jax.train.run_dir import read_config
from bort_jax.train.step import to_unit_range
from bort_jax.validation import check_steps

REPORT = 'report.html'  # its name in the directory of a run
NEWTON_STEPS = 10  # on a page
_MEASURED = 24  # test pictures
_BACKGROUND = 64
_CERTIFIED = 10


def explain(
  run_dir: pathlib.Path,
  *,
  images: Sequence[pathlib.Path] = (),
  invert: bool = False,
  output: pathlib.Path | None = None,
  checkpoint: Literal['latest', 'best'] = 'latest',
  num_pictures: int = 10,
  methods: Sequence[str] = (),
  newton_steps: int = NEWTON_STEPS,
  data_dir: pathlib.Path | None = None,
  tell: Callable[[str], None] = lambda text: None,
) -> pathlib.Path:
  """Writes the report of a run: one page that needs no other file.

  Args:
    run_dir: the run's directory.
    images: the user's own pictures, which stand first in the gallery; see
      :func:`bort_jax.report.read_pictures`.
    invert: see there.
    output: where to write; by default ``report.html`` in the run's directory.
    checkpoint: the newest one, or that of the highest test accuracy.
    num_pictures: test pictures in the gallery, of all classes in turn.
    methods: which ones, by the names of their functions; by default all. B-cos
      networks have two more, their own: bcos and bcos_picture.
    newton_steps: most steps of Gauss–Newton in a segment that is run backwards
      by it, each with five times as many iterations of its linear problem.
      Where a segment is not undone (a twentieth of what comes out is still
      missed), the methods that run it backwards for every class or unit are
      left out, unless they are named.
    data_dir: TFDS directory, if it is no longer where the run found it.
    tell: hears what is being done.

  Returns:
    Where the page is. It is there as a whole or not at all.

  Raises:
    RunError: if there is no run or checkpoint, a picture cannot be read, there
      is no such method, no picture or no step is asked for, or the page cannot
      be written.

  Examples:
    >>> import pathlib
    >>> from bort_jax.report import explain
    >>> from bort_jax.train.errors import RunError
    >>> try:
    ...   explain(pathlib.Path('runs/of_yesterday'))
    ... except RunError as error:
    ...   print(str(error).split(':')[0])
    runs/of_yesterday is not the directory of a run
  """
  config = read_config(run_dir, data_dir)
  chosen = choose_methods(tuple(methods))
  output = output or run_dir / REPORT
  check_place(output)
  _check_numbers(num_pictures, len(images), newton_steps)
  tell('restoring the networks')
  run = restore_run(config, checkpoint)
  if not methods:
    chosen = with_own(chosen, run.network, next(iter(run.weights.values())))
  asked = _Asked(chosen, methods, num_pictures, newton_steps)
  own = read_pictures(
    images,
    run.source.image_shape,
    margin=0.0 if config.image_size is None else PROTOCOL_MARGIN,
    invert=invert,
  )
  _refuse_blank(images, own)
  content = _content(run, asked, _Own(images, own), tell)
  if has_units(run_dir, output):
    content = content._replace(units=UNITS_PAGE)
  write_whole(output, render(content))
  return output


def _check_numbers(
  num_pictures: int, num_images: int, newton_steps: int
) -> None:
  if num_pictures < 0 or num_pictures + num_images == 0:
    raise RunError(
      f'A report needs pictures: num_pictures is {num_pictures}, and there are'
      f' {num_images} images.'
    )
  try:
    check_steps('newton_steps', newton_steps)
  except ValueError as error:
    raise RunError(str(error)) from error


def has_units(run_dir: pathlib.Path, output: pathlib.Path) -> bool:
  """Whether there is a page of this run's units, beside its report."""
  beside = output.parent.resolve() == run_dir.resolve()
  return beside and (run_dir / UNITS_PAGE).exists()


def _refuse_blank(paths: Sequence[pathlib.Path], pixels: np.ndarray) -> None:
  blank = [
    str(path)
    for path, picture in zip(paths, pixels, strict=True)
    if not np.ptp(picture, axis=(0, 1)).any()
  ]
  if blank:
    raise RunError(
      f'There is nothing to see in {", ".join(blank)}: one colour alone, once'
      ' cut out of its centre and with white behind what is transparent.'
    )


class _Own(NamedTuple):
  """The user's pictures."""

  paths: Sequence[pathlib.Path]
  pixels: np.ndarray


class _Asked(NamedTuple):
  """What is to be on the page."""

  methods: Sequence[Method]
  named: Sequence[str]  # those that were asked for
  num_pictures: int
  newton_steps: int

  @property
  def shown(self) -> list[Method]:
    """The methods whose maps are made: the gallery always backtracks."""
    found = {
      m.name: m for m in (*self.methods, *choose_methods(('backtrack',)))
    }
    return list(found.values())

  @property
  def unnamed(self) -> list[Method]:
    """Those of them that may be left out."""
    return [m for m in self.shown if m.name not in self.named]


def _content(
  run: Restored,
  asked: _Asked,
  own: _Own,
  tell: Callable[[str], None],
) -> Content:
  test = gather.first_test_pictures(run.source)
  pictures = _pictures(own, test, asked.num_pictures)
  x = to_unit_range(np.stack([one.pixels for one in pictures]))
  subject = make_subject(
    run.network,
    next(iter(run.weights.values())),
    to_unit_range(test.pixels[-_BACKGROUND:]),
    asked.newton_steps,
  )
  depth = feature_depth(subject, next(iter(run.weights.values())))
  labels = {
    name: plots.label_of(name, run.config.constraint) for name in run.weights
  }
  judged = to_unit_range(test.pixels[:_MEASURED])
  forgotten = fresh_parameters(run)
  ranking = [method for method in asked.methods if method.kind != 'colours']
  views, curves, measured, statements = {}, {}, {}, []
  for name, weights in run.weights.items():
    label = labels[name]
    tell(f'{label}: certificate')
    certain = attempt(
      lambda weights=weights: certificate(
        subject.logits, weights, x[:_CERTIFIED], **subject.effort
      )
    )
    statements.append(statement(label, certain, asked.newton_steps))
    missing = left_out(asked.unnamed, certain, asked.newton_steps, depth)
    tell(f'{label}: maps and reconstructions')
    views[name] = _views(asked.shown, missing, subject, weights, pictures, x)
    tell(f'{label}: metrics')
    target = jnp.argmax(subject.logits(weights, judged), axis=1)
    case = Case(subject, weights, forgotten, judged, target, lipschitz(certain))
    measured[label] = measure(ranking, case, missing)
    curves[name] = curve_figures(asked.methods, measured[label])
  names = gather.class_names(run.config, run.source.num_classes)
  return Content(
    f'Report of {_name_of(run.config)}',
    summary_of(run),
    settings_of(run.config),
    run_table(run),
    run_drawings(run.config),
    Gallery(pictures, labels, asked.methods, names, views, curves),
    measure_table(ranking, measured, len(judged)),
    statements,
  )


def _name_of(config: TrainConfig) -> str:
  assert config.run_dir is not None
  return config.run_dir.resolve().name


def _pictures(
  own: _Own, test: gather.TestPictures, count: int
) -> list[Picture]:
  return [
    *(
      Picture(path.name, None, pixels)
      for path, pixels in zip(own.paths, own.pixels, strict=True)
    ),
    *(
      Picture(f'test {i}', int(test.labels[i]), test.pixels[i])
      for i in gather.spread(test.labels, count)
    ),
  ]


def _views(
  methods: Sequence[Method],
  missing: Mapping[str, str],
  subject: Subject,
  weights: Any,
  pictures: Sequence[Picture],
  x: jax.Array,
) -> list[View]:
  """What a network makes of each picture."""
  logits = np.asarray(subject.logits(weights, x), np.float64)
  probabilities = np.asarray(jax.nn.softmax(logits, axis=1), np.float64)
  labels = np.array([-1 if p.label is None else p.label for p in pictures])
  classes = classes_shown(probabilities, labels)
  maps = {
    m.name: shown_maps(
      missing.get(m.name) or maps_of(m, subject, weights, x, classes), m.kind
    )
    for m in methods
  }
  back = {way.name: reconstructions(way, subject, weights, x) for way in WAYS}
  return [
    View(
      classes[i].tolist(),
      np.round(probabilities[i, classes[i]], 6).tolist(),
      int(probabilities[i].argmax()),
      {name: _at(shown, i) for name, shown in maps.items()},
      {name: _at(shown, i) for name, shown in back.items()},
    )
    for i in range(len(pictures))
  ]


def _at(shown: list[Shown], i: int) -> Shown:
  """That of a picture; a reason is the same for all."""
  return shown[i if len(shown) > 1 else 0]
