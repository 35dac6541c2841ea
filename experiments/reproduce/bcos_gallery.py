r"""Pictures beside what B-cos networks of finished runs see in them.

For test pictures that the first network gets right, of all classes in turn:
what each network's linear map adds up to for the class, pixel by pixel, and the
colours that it asks for. From the project's root:

    python experiments/reproduce/bcos_gallery.py \
      runs/digits_B=1_plain*seed=0 runs/digits_B=2_plain*seed=0
"""

import pathlib

import jax.numpy as jnp
import numpy as np
import tyro

from bort_jax import nn, plots
from bort_jax.report.gather import first_test_pictures, spread
from bort_jax.report.maps import on_white
from bort_jax.train.report import Restored, restore_run
from bort_jax.train.run_dir import read_config
from bort_jax.train.step import to_unit_range


def main(
  runs: tyro.conf.Positional[tuple[pathlib.Path, ...]],
  pictures: int = 8,
  smooth: int = 3,
  data_dir: pathlib.Path | None = None,
  output: pathlib.Path | None = None,
) -> None:
  """Draws the gallery.

  Args:
    runs: directories of runs of B-cos networks on one data set.
    pictures: how many.
    smooth: side of the window of the pictures in colour.
    data_dir: TFDS directory, if it is no longer where the runs found it.
    output: where to write; by default bcos/DATA_MODEL/gallery.png.
  """
  restored = {run.name: _restored(run, data_dir) for run in runs}
  first = next(iter(restored.values()))
  test = first_test_pictures(first.source)
  logits = _functional(first)
  right = np.flatnonzero(
    np.argmax(logits[0](logits[1], to_unit_range(test.pixels)), 1)
    == test.labels
  )
  chosen = right[spread(test.labels[right], pictures)]
  x, target = to_unit_range(test.pixels[chosen]), test.labels[chosen]
  rows = {'picture': np.asarray(x)}
  for name, run in restored.items():
    apply_fn, params = _functional(run)
    found = nn.bcos.explain(apply_fn, params, x, jnp.asarray(target))
    maps = np.asarray(found.contribution_map)[..., None]
    drawn = nn.bcos.explanation_picture(
      found.weights, found.encoded, smooth=smooth
    )
    exponent = run.config.model_options[0].partition('=')[2]
    label = f'B = {float(exponent):g}'
    if run.config.constraint == 'soft':
      label += ', Bort'
    label = label if f'{label}\ncontributions' not in rows else name
    rows[f'{label}\ncontributions'] = plots.map_colors(maps, 'signed') / 255
    rows[f'{label}\nin colours'] = on_white(np.asarray(drawn)) / 255
  config = first.config
  folder = pathlib.Path(__file__).parent / 'bcos'
  output = output or folder / f'{config.data}_{config.model}' / 'gallery.png'
  output.parent.mkdir(parents=True, exist_ok=True)
  plots.picture_grid(rows).savefig(output, dpi=80)
  print(output)


def _restored(run: pathlib.Path, data_dir: pathlib.Path | None) -> Restored:
  return restore_run(read_config(run, data_dir))


def _functional(run: Restored):
  """The network of a run, which trained one alone."""
  ((params, stats),) = run.weights.values()
  return nn.functional(run.network.merge(params, stats))


if __name__ == '__main__':
  tyro.cli(main)
