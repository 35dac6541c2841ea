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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import published_metrics as published
import tyro
from flax import nnx
from quantus_adapter import (
  CHANNELS_FIRST,
  CHANNELS_LAST,
  quantus,
  taken_as_they_are,
)
from referee_case import Case, gradient, trained_case

from bort_jax import metrics
from bort_jax.train import Dataset, load_dataset
from bort_jax.train.errors import DataError

LAYERS = ('head', 'conv3', 'conv1')  # that forget, from the output down


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
    ('deletion', 'Quantus', exact, quantus_deletion),
    ('insertion', 'Quantus', exact, quantus_insertion),
    ('deletion, AUC converted', 'Quantus', exact, quantus_area),
    ('deletion, published AUC', 'Quantus', exact, quantus_published_area),
    ('sparseness (Gini)', 'Quantus', close, quantus_gini),
    ('relevance rank accuracy', 'Quantus', close, quantus_rank_accuracy),
    ('faithfulness correlation, replayed', 'Quantus', close, quantus_faith),
    ('parameter randomization', 'Quantus', exact, quantus_randomization),
    ('deletion', 'RISE', exact, lambda case: by_rise(case, False)),
    ('insertion', 'RISE', exact, lambda case: by_rise(case, True)),
    ('deletion', 'Xplique', exact, lambda case: by_xplique(case, False)),
    ('insertion', 'Xplique', exact, lambda case: by_xplique(case, True)),
  ):
    with taken_as_they_are():
      found = deviation(case)
    yield Agreement(metric, referee, case.name, found, tolerance)


def quantus_deletion(case: Case) -> float:
  """Quantus has no point for the whole picture."""
  return _apart(_curve(case).scores[:, 1:], _flipped(case))


def quantus_insertion(case: Case) -> float:
  """Quantus on black pictures, whose pixels are set to those of x."""
  batch = case.batch()
  whole = batch['x_batch'].reshape(len(case.x), -1)

  def put_back(arr, indices, **_):
    arr, rows = arr.copy(), np.arange(len(arr))[:, None]
    arr[rows, indices] = whole[rows, indices]
    return arr

  batch['x_batch'] = np.zeros_like(batch['x_batch'])
  judge = _pixel_flipping(case, perturb_func=put_back)
  theirs = judge.evaluate_batch(model=case.adapter(True), **batch)
  ours = metrics.insertion(
    *case.args,
    case.maps,
    convention='quantus',
    pixels_per_step=case.step,
    baseline=0.0,
  )
  return _apart(ours.scores[:, 1:], theirs)


def quantus_area(case: Case) -> float:
  """(trapezoid + (s0 + s1) / 2) / n of theirs is the area of ours."""
  curve = _curve(case)
  theirs = np.array(_flipped(case, return_auc_per_sample=True))
  s = np.asarray(curve.scores)
  return _apart(
    curve.auc, (theirs + (s[:, 0] + s[:, 1]) / 2) / (s.shape[1] - 1)
  )


def quantus_published_area(case: Case) -> float:
  """Their area itself."""
  theirs = _flipped(case, return_auc_per_sample=True)
  return _apart(_curve(case).published_auc, theirs)


def quantus_gini(case: Case) -> float:
  """Quantus adds 1e-7 to absolute values, which matters least where all is 1.

  The index does not depend on the scale of a map.
  """
  judge = quantus.Sparseness(disable_warnings=True)
  batch = case.batch()
  sizes = np.abs(batch['a_batch'])
  theirs = judge.evaluate_batch(
    x_batch=batch['x_batch'],
    a_batch=sizes / sizes.mean(axis=(1, 2, 3), keepdims=True),
  )
  return _apart(metrics.sparseness(case.maps), theirs)


def quantus_rank_accuracy(case: Case) -> float:
  """Of what is brighter than the mean."""
  grey = jnp.mean(case.x, axis=-1)
  mask = grey > jnp.mean(grey, axis=(1, 2), keepdims=True)
  judge = quantus.RelevanceRankAccuracy(disable_warnings=True)
  theirs = judge.evaluate_batch(
    a_batch=case.batch()['a_batch'], s_batch=np.array(mask)[:, None]
  )
  return _apart(metrics.relevance_rank_accuracy(case.maps, mask), theirs)


def quantus_faith(case: Case, runs: int = 20) -> float:
  """The same subsets of numbers, channels first, drawn by the same seed."""
  n, height, width, channels = case.x.shape
  numbers, size = height * width * channels, height * width // 4
  judge = quantus.FaithfulnessCorrelation(
    nr_runs=runs,
    subset_size=size,
    perturb_baseline=0.0,
    abs=False,
    normalise=False,
    disable_warnings=True,
  )
  np.random.seed(0)
  theirs = judge.evaluate_batch(model=case.adapter(False), **case.batch())
  np.random.seed(0)
  subsets = np.zeros((n, runs, numbers), bool)
  for run in range(runs):
    for i in range(n):
      drawn = np.random.choice(numbers, size, replace=False)
      subsets[i, run, drawn] = True
  subsets = np.moveaxis(
    subsets.reshape(n, runs, channels, height, width), 2, -1
  )
  ours = metrics.faithfulness_correlation(
    *case.args, case.maps, subsets=subsets
  )
  return _apart(ours.correlation, theirs)


def quantus_randomization(case: Case) -> float:
  """Layers that forget from the output down, explained by the gradient."""
  mixed, forgetful = dict(case.params), {}
  for layer in LAYERS:
    mixed = {**mixed, layer: case.fresh[layer]}
    forgetful[layer] = nnx.State(mixed)

  def explain(model, inputs, targets, **_):
    x = jnp.asarray(inputs.transpose(CHANNELS_LAST))
    maps = gradient(case.apply_fn, model, x, jnp.asarray(targets))
    return np.asarray(maps).transpose(CHANNELS_FIRST)

  batch = case.batch()
  batch['a_batch'] = explain(case.params, batch['x_batch'], batch['y_batch'])
  judge = quantus.MPRT(disable_warnings=True)
  theirs = judge(
    model=case.adapter(False, forgetful=forgetful),
    explain_func=explain,
    channel_first=True,
    **batch,
  )
  ours = metrics.parameter_randomization(
    gradient, case.apply_fn, case.params, case.fresh, LAYERS, *case.args[2:]
  )
  columns = np.stack([theirs[layer] for layer in LAYERS], axis=1)
  return _apart(ours.spearman_absolute, columns)


def by_rise(case: Case, insertion: bool) -> float:
  """The curve and its area, as RISE defines them."""
  x, target, maps = map(np.asarray, (case.x, case.target, case.maps))
  theirs = published.rise(case.logits, x, target, maps, case.step, insertion)
  judge = metrics.insertion if insertion else metrics.deletion
  ours = judge(*case.args, maps, pixels_per_step=case.step)
  return max(
    _apart(ours.scores, theirs.scores),
    _apart(ours.published_auc, theirs.auc),
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
    _apart(ours.scores, theirs.scores),
    _apart(ours.published_auc, theirs.auc),
  )


def _curve(case: Case) -> metrics.PerturbationCurve:
  return metrics.deletion(
    *case.args,
    case.maps,
    convention='quantus',
    pixels_per_step=case.step,
    baseline=0.0,
  )


def _flipped(case: Case, **options: Any):
  judge = _pixel_flipping(case, **options)
  return judge.evaluate_batch(model=case.adapter(True), **case.batch())


def _pixel_flipping(case: Case, **options: Any):
  """Quantus counts each channel of a pixel."""
  return quantus.PixelFlipping(
    features_in_step=case.step * case.x.shape[-1],
    perturb_baseline=0.0,
    abs=False,
    normalise=False,
    disable_warnings=True,
    **options,
  )


def _apart(ours, theirs) -> float:
  """The largest deviation; NaN if one of the numbers is."""
  ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
  if ours.shape != theirs.shape:
    raise ValueError(f'{ours.shape} is compared with {theirs.shape}.')
  return float(np.max(np.abs(ours - theirs)))


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
