"""Metrics beside Quantus's, on one network and the same pictures and maps.

The network of attribution.py, compiled by JAX, for both: Quantus calls it as
often as ours does, by ``reproduce/quantus_adapter.py``, which hands pictures
over as arrays of NumPy. Deletion takes 32 steps, correlation 64 subsets of a
fifth of the pixels, infidelity 64 squares (Quantus removes one after the other
and leaves them out, ours each alone), sensitivity 16 gradients. Contestants
take turns; the ratio is the median of those of all rounds. A compiled function
that adds one to the maps says what a call of JAX costs.
From the project's root, with Quantus (``pip install -e ".[referee]"``):

    python experiments/benchmarks/metrics.py
"""

import pathlib
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from attribution import CLASSES, SIDE, arrays, jax_network
from contestants import Contestant, machine, ratio, take_turns
from results import write_results

from bort_jax import attribution, inversion, metrics

STEPS, RUNS, SAMPLES = 32, 64, 16
SQUARE = SIDE // 8  # so that as many squares as RUNS fill a picture
PIXELS, CHANNELS = SIDE * SIDE, 3


class Pair(NamedTuple):
  """A metric here and there."""

  ours: Callable[[], Any]
  quantus: Callable[[], Any] | None  # None where there is no such thing
  same: bool = True  # numbers; otherwise each draws its own


def main(repeats: int = 9, pictures: tuple[int, ...] = (1, 8)) -> None:
  """Times every metric.

  Args:
    repeats: calls of each contestant.
    pictures: sizes of the batch.
  """
  rows = [row for count in pictures for row in measured(count, repeats)]
  lines = table(rows)
  write_results(__file__, rows, lines)


def measured(count: int, repeats: int) -> list[dict[str, Any]]:
  """The rows of one batch size."""
  adapters = adapter_module()
  rows = []
  with adapters.taken_as_they_are():
    for name, pair in pairs(adapters, count).items():
      runs = {'ours': pair.ours, 'quantus': pair.quantus}
      contestants = {who: Contestant(run) for who, run in runs.items() if run}
      take_turns(contestants, repeats)
      seconds = {who: c.seconds for who, c in contestants.items()}
      row = {
        'pictures': count,
        'metric': name,
        **{f'{n}_ms': 1e3 * statistics.median(s) for n, s in seconds.items()},
        'machine': f'{machine()}, Quantus {adapters.quantus.__version__}',
      }
      if pair.quantus:
        row['ratio'] = ratio(seconds['ours'], seconds['quantus'])
        difference = np.asarray(pair.ours()) - np.asarray(pair.quantus())
        if pair.same:
          row['difference'] = float(np.abs(difference).max())
      rows.append(row)
  return rows


def adapter_module() -> Any:
  """What shows a network of JAX to Quantus."""
  sys.path.append(str(pathlib.Path(__file__).parents[1] / 'reproduce'))
  import quantus_adapter

  return quantus_adapter


def pairs(adapters: Any, count: int) -> dict[str, Pair]:
  """Every metric by both, on so many pictures."""
  kernels, images = arrays(count)
  params = [jnp.asarray(kernel) for kernel in kernels]
  x = jnp.asarray(np.moveaxis(images, 1, -1))
  target = jnp.arange(count) % CLASSES
  apply_fn = inversion.until(jax_network, 'logits')
  maps = jax.random.uniform(jax.random.key(0), x.shape[:3])
  mask = jnp.mean(x, axis=-1) > 0.5
  key = jax.random.key(1)
  args = apply_fn, params, x, target
  compiled = jax.jit(apply_fn)
  logits = adapters.Adapter(compiled, params, softmax=False)
  chances = adapters.Adapter(compiled, params, softmax=True)
  gradient = jax.jit(partial(attribution.gradient, apply_fn))

  def explain(model, inputs, targets):
    pictures = jnp.asarray(inputs.transpose(adapters.CHANNELS_LAST))
    found = gradient(model, pictures, jnp.asarray(targets))
    return np.asarray(found).transpose(adapters.CHANNELS_FIRST)

  arrays_of = lambda maps: {
    'x_batch': images.copy(),
    'y_batch': np.array(target),
    'a_batch': maps,
    's_batch': np.array(mask)[:, None],
  }
  by_pixel = lambda: arrays_of(np.array(maps)[:, None])

  def judge(name: str, model=logits, batch=by_pixel, **options):
    found = getattr(adapters.quantus, name)(disable_warnings=True, **options)
    found.explain_func, found.explain_func_kwargs = explain, {}
    return lambda: np.asarray(found.evaluate_batch(model=model, **batch()))

  first = gradient(params, x, target)
  by_number = lambda: arrays_of(
    np.array(first).transpose(adapters.CHANNELS_FIRST)
  )
  done = lambda function, *given, **options: (
    lambda: jax.block_until_ready(function(*given, **options))
  )
  addition = jax.jit(lambda maps: maps + 1)
  return {
    'none: an addition': Pair(done(addition, maps), None),
    'deletion': Pair(
      lambda: np.asarray(
        metrics.deletion(
          *args,
          maps,
          convention='quantus',
          pixels_per_step=PIXELS // STEPS,
          baseline=0.0,
        ).scores[:, 1:]
      ),
      judge(
        'PixelFlipping',
        chances,
        features_in_step=PIXELS // STEPS * CHANNELS,
        perturb_baseline=0.0,
      ),
    ),
    'faithfulness correlation': Pair(
      lambda: np.asarray(
        metrics.faithfulness_correlation(
          *args, maps, key=key, runs=RUNS, subset_size=PIXELS // 5
        ).correlation
      ),
      judge(
        'FaithfulnessCorrelation',
        nr_runs=RUNS,
        subset_size=PIXELS * CHANNELS // 5,
        perturb_baseline=0.0,
      ),
      same=False,
    ),
    'infidelity': Pair(
      lambda: np.asarray(
        metrics.infidelity(
          *args,
          first,
          key=key,
          samples=RUNS,
          perturbation=metrics.SquareRemoval(SQUARE),
        ).value
      ),
      judge(
        'Infidelity',
        batch=by_number,
        perturb_patch_sizes=[SQUARE],
        n_perturb_samples=1,
      ),
      same=False,
    ),
    'max-sensitivity': Pair(
      lambda: np.asarray(
        metrics.max_sensitivity(
          attribution.gradient, *args, key=key, radius=0.02, samples=SAMPLES
        ).relative
      ),
      judge(
        'MaxSensitivity', batch=by_number, nr_samples=SAMPLES, lower_bound=0.02
      ),
      same=False,
    ),
    'sparseness': Pair(done(metrics.sparseness, maps), judge('Sparseness')),
    'complexity': Pair(done(metrics.complexity, maps), judge('Complexity')),
    'relevance rank accuracy': Pair(
      done(metrics.relevance_rank_accuracy, maps, mask),
      judge('RelevanceRankAccuracy'),
    ),
    'relevance mass accuracy': Pair(
      done(metrics.relevance_mass_accuracy, maps, mask),
      judge('RelevanceMassAccuracy'),
    ),
    'pointing game': Pair(
      lambda: np.asarray(metrics.pointing_game(maps, mask), float),
      judge('PointingGame'),
    ),
  }


def table(rows: list[dict[str, Any]]) -> list[str]:
  """All rows."""
  return [
    '| pictures | metric | ours (ms) | Quantus (ms) | ours / Quantus |'
    ' 95 % interval | largest difference |',
    '| ---: | --- | ---: | ---: | ---: | ---: | ---: |',
    *(
      f'| {r["pictures"]} | {r["metric"]} | {r["ours_ms"]:.2f} |'
      f' {beside(r)} | {apart(r)} |'
      for r in rows
    ),
    '',
    f'Pictures of {SIDE}×{SIDE}; {STEPS} steps, {RUNS} subsets or squares,'
    f' {SAMPLES} gradients. Where no difference stands, both draw numbers of'
    f' their own. {rows[0]["machine"]}.',
  ]


def beside(row: dict[str, Any]) -> str:
  """Quantus's time and the ratio, where it has one."""
  if 'ratio' not in row:
    return '| |'
  median, low, high = row['ratio']
  return f'{row["quantus_ms"]:.2f} | {median:.2f} | {low:.2f} … {high:.2f}'


def apart(row: dict[str, Any]) -> str:
  """How far the numbers are, where they are the same."""
  return f'{row["difference"]:.0e}' if 'difference' in row else ''


if __name__ == '__main__':
  tyro.cli(main)
