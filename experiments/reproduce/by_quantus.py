"""How far each metric here is from what Quantus makes of the same maps."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from quantus_adapter import CHANNELS_FIRST, CHANNELS_LAST, quantus
from referee_case import Case, apart, gradient

from bort_jax import metrics

LAYERS = ('head', 'conv3', 'conv1')  # that forget, from the output down


def deletion(case: Case) -> float:
  """Quantus has no point for the whole picture."""
  return apart(_curve(case).scores[:, 1:], _flipped(case))


def insertion(case: Case) -> float:
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
  return apart(ours.scores[:, 1:], theirs)


def area(case: Case) -> float:
  """(trapezoid + (s0 + s1) / 2) / n of theirs is the area of ours."""
  curve = _curve(case)
  theirs = np.array(_flipped(case, return_auc_per_sample=True))
  s = np.asarray(curve.scores)
  return apart(curve.auc, (theirs + (s[:, 0] + s[:, 1]) / 2) / (s.shape[1] - 1))


def published_area(case: Case) -> float:
  """Their area itself."""
  theirs = _flipped(case, return_auc_per_sample=True)
  return apart(_curve(case).published_auc, theirs)


def gini(case: Case) -> float:
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
  return apart(metrics.sparseness(case.maps), theirs)


def rank_accuracy(case: Case) -> float:
  """Of what is brighter than the mean."""
  grey = jnp.mean(case.x, axis=-1)
  mask = grey > jnp.mean(grey, axis=(1, 2), keepdims=True)
  judge = quantus.RelevanceRankAccuracy(disable_warnings=True)
  theirs = judge.evaluate_batch(
    a_batch=case.batch()['a_batch'], s_batch=np.array(mask)[:, None]
  )
  return apart(metrics.relevance_rank_accuracy(case.maps, mask), theirs)


def faith(case: Case, runs: int = 20) -> float:
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
  return apart(ours.correlation, theirs)


def randomization(case: Case) -> float:
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
  return apart(ours.spearman_absolute, columns)


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
