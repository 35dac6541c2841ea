"""How far ``bort_jax.metrics`` is from outside referees.

Trains a small network on handwritten digits and, where they are prepared, on
CIFAR-10, computes each metric here and by Quantus, RISE's and Xplique's
definitions, and writes ``referee/table.md``. Needs
``pip install -e ".[train,referee]"``. From the project's root:

    python experiments/reproduce/referee.py
    python experiments/reproduce/referee.py --data-dir DIR
"""

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import by_quantus
import jax
import jax.numpy as jnp
import numpy as np
import published_metrics as published
import tyro
from quantus_adapter import quantus, taken_as_they_are
from referee_case import Case, apart, trained_case

from bort_jax import metrics
from bort_jax.train import Dataset, load_dataset
from bort_jax.train.errors import DataError


class Agreement(NamedTuple):
  """How far two numbers for the same thing are apart."""

  metric: str
  referee: str
  data: str
  deviation: float
  tolerance: float

  @property
  def holds(self) -> bool:
    """Whether it is within the tolerance; NaN is not."""
    return self.deviation <= self.tolerance


def main(
  data_dir: pathlib.Path | None = None, steps: int = 150, pictures: int = 8
) -> None:
  """Compares all metrics on all data there is, and writes the table.

  Args:
    data_dir: of CIFAR-10 as prepared by TFDS; else ``$TFDS_DATA_DIR``.
    steps: of training.
    pictures: test pictures of each.
  """
  rows = []
  for name in ('digits', 'cifar10'):
    try:
      dataset = load_dataset(name, None if name == 'digits' else data_dir)
    except DataError as error:
      print(f'{name} is left out: {error}')
      continue
    rows += agreements(dataset, steps, pictures)
  table = as_table(rows, steps, pictures)
  folder = pathlib.Path(__file__).parent / 'referee'
  folder.mkdir(exist_ok=True)
  (folder / 'table.md').write_text(table)
  print(table)
  if not all(row.holds for row in rows):
    raise SystemExit('Some metrics do not agree.')


def agreements(
  dataset: Dataset, steps: int, pictures: int
) -> Iterator[Agreement]:
  """All comparisons on a data set, in float32 and in float64."""
  single = trained_case(dataset, steps, pictures)
  yield from compared(single)
  with jax.enable_x64(True):
    yield from compared(single.doubled())


def compared(case: Case) -> Iterator[Agreement]:
  """All comparisons of one network."""
  exact = 1e-12 if case.x.dtype == jnp.float64 else 1e-5
  close = 1e-6  # of what does not come from the network alone
  for metric, referee, tolerance, deviation in (
    ('deletion', 'Quantus', exact, by_quantus.deletion),
    ('insertion', 'Quantus', exact, by_quantus.insertion),
    ('deletion, AUC converted', 'Quantus', exact, by_quantus.area),
    ('deletion, published AUC', 'Quantus', exact, by_quantus.published_area),
    ('sparseness (Gini)', 'Quantus', close, by_quantus.gini),
    ('relevance rank accuracy', 'Quantus', close, by_quantus.rank_accuracy),
    ('faithfulness correlation, replayed', 'Quantus', close, by_quantus.faith),
    ('parameter randomization', 'Quantus', exact, by_quantus.randomization),
    ('deletion', 'RISE', exact, lambda case: by_rise(case, False)),
    ('insertion', 'RISE', exact, lambda case: by_rise(case, True)),
    ('deletion', 'Xplique', exact, lambda case: by_xplique(case, False)),
    ('insertion', 'Xplique', exact, lambda case: by_xplique(case, True)),
  ):
    with taken_as_they_are():
      found = deviation(case)
    yield Agreement(metric, referee, case.name, found, tolerance)


def by_rise(case: Case, insertion: bool) -> float:
  """The curve and its area, as RISE defines them."""
  x, target, maps = map(np.asarray, (case.x, case.target, case.maps))
  theirs = published.rise(case.logits, x, target, maps, case.step, insertion)
  judge = metrics.insertion if insertion else metrics.deletion
  ours = judge(*case.args, maps, pixels_per_step=case.step)
  return max(
    apart(ours.scores, theirs.scores),
    apart(ours.published_auc, theirs.auc),
  )


def by_xplique(case: Case, insertion: bool, steps: int = 10) -> float:
  """The curve and its area, as Xplique defines them."""
  x, target, maps = map(np.asarray, (case.x, case.target, case.maps))
  theirs = published.xplique(
    case.logits, x, target, maps[..., None], steps, insertion
  )
  judge = metrics.insertion if insertion else metrics.deletion
  ours = judge(*case.args, maps, steps=steps, convention='xplique')
  return max(
    apart(ours.scores, theirs.scores),
    apart(ours.published_auc, theirs.auc),
  )


def as_table(rows: list[Agreement], steps: int, pictures: int) -> str:
  """The agreements as Markdown."""
  lines = [
    '| metric | referee | data | largest deviation | tolerance | verdict |',
    '| --- | --- | --- | ---: | ---: | --- |',
  ]
  for row in rows:
    verdict = 'agrees' if row.holds else 'DIFFERS'
    lines.append(
      f'| {row.metric} | {row.referee} | {row.data} | {row.deviation:.1e} |'
      f' {row.tolerance:.0e} | {verdict} |'
    )
  lines += [
    '',
    f'SimpleCNN, {steps} steps of Adam, {pictures} test pictures. Quantus'
    f' {quantus.__version__}; of RISE and Xplique, what their protocols say,'
    ' transcribed in `published_metrics.py`. Deletion and insertion compare'
    ' every point of the curve, of 32 steps (Xplique: 10).'
    f' jax {jax.__version__} on {jax.devices()[0].device_kind}.',
  ]
  return '\n'.join(lines) + '\n'


if __name__ == '__main__':
  tyro.cli(main)
