"""The command ``bort-jax explain``."""

import pathlib
from typing import Literal

import tyro
from rich.console import Console

from bort_jax.report.explain import NEWTON_STEPS, explain


def explain_command(
  run_dir: tyro.conf.Positional[pathlib.Path],
  images: tuple[pathlib.Path, ...] = (),
  invert: bool = False,
  output: pathlib.Path | None = None,
  checkpoint: Literal['latest', 'best'] = 'latest',
  num_pictures: int = 10,
  methods: tuple[str, ...] = (),
  newton_steps: int = NEWTON_STEPS,
  data_dir: pathlib.Path | None = None,
) -> None:
  """Explain the networks of a run: one page to open in a browser.

  Args:
    run_dir: the run's directory.
    images: your own pictures, PNG or JPEG of any size; they are resized, and
      cut at their centre, to what the network takes. What is transparent is
      shown on white.
    invert: exchange dark and light in them, for ink on paper and a network of
      light digits on dark.
    output: where to write; by default report.html in the run's directory.
    checkpoint: the newest one, or that of the highest test accuracy.
    num_pictures: test pictures in the gallery.
    methods: of attribution, such as gradient lrp grad_cam; by default all,
      which takes several times as long as a few.
    newton_steps: most steps of Gauss-Newton by which a layer is run backwards
      that has no simpler inverse. Where they do not undo it, what runs it
      backwards for every class is made only if it is named in methods.
    data_dir: TFDS directory, if it is no longer where the run found it.
  """
  console = Console()
  with console.status('explaining') as status:
    path = explain(
      run_dir,
      images=images,
      invert=invert,
      output=output,
      checkpoint=checkpoint,
      num_pictures=num_pictures,
      methods=methods,
      newton_steps=newton_steps,
      data_dir=data_dir,
      tell=status.update if console.is_terminal else console.print,
    )
  # a path is no markup, and is copied in one piece
  console.print(f'The report is in {path}.', markup=False, soft_wrap=True)
