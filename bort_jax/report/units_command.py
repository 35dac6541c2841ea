"""The command ``bort-jax neurons``."""

import pathlib
from typing import Literal

import tyro
from rich.console import Console

from bort_jax.metrics import MetricError
from bort_jax.report.attacked import AttackKind
from bort_jax.report.explain import REPORT
from bort_jax.report.units import Asked, survey_run
from bort_jax.train.errors import RunError


def neurons_command(
  run_dir: tyro.conf.Positional[pathlib.Path],
  attack: AttackKind = 'pgd',
  epsilon: float | None = None,
  pictures: int = 1000,
  count: int = 9,
  units: int = 12,
  layers: tuple[str, ...] = (),
  tree: pathlib.Path | None = None,
  output: pathlib.Path | None = None,
  checkpoint: Literal['latest', 'best'] = 'latest',
  data_dir: pathlib.Path | None = None,
) -> None:
  """Show the units of a run's networks and what attacks make of them.

  One page to open in a browser: of every layer the units that lose most
  consistency, with the real and the adversarial pictures that activate them
  most.

  Args:
    run_dir: the run's directory.
    attack: how adversarial pictures are made; ensemble is one attack on all
      networks of the run, towards the least likely class, and slow.
    epsilon: greatest change of a pixel of 0 … 1, of pgd and fgsm; by default
      that which the run was trained with, or 0.1.
    pictures: test pictures that are looked through.
    count: top pictures of each unit.
    units: of each layer that are shown.
    layers: names, such as act1 act3; by default all that the network names.
    tree: class tree, a text of lines PARENT CHILD with the names of the
      classes as the data set has them, such as WordNet's; by default that of
      mnist, fashion_mnist, cifar10 or cifar100, else each class by itself.
    output: where to write; by default neurons.html in the run's directory.
    checkpoint: the newest one, or that of the highest test accuracy.
    data_dir: TFDS directory, if it is no longer where the run found it.
  """
  console = Console()
  asked = Asked(attack, epsilon, pictures, count, units, layers, tree)
  try:
    with console.status('looking at units') as status:
      path = survey_run(
        run_dir,
        asked,
        output=output,
        checkpoint=checkpoint,
        data_dir=data_dir,
        tell=status.update,
      )
  except MetricError as error:
    raise RunError(str(error)) from error
  # a path is no markup, and is copied in one piece
  text = f'The page is in {path}.'
  if output is None and (run_dir / REPORT).exists():
    text += f' Its link in {REPORT} comes with bort-jax explain {run_dir}.'
  console.print(text, markup=False, soft_wrap=True)
