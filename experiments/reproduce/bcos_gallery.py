r"""Pictures beside what B-cos networks see in them.

For test pictures that the first network gets right, of all classes in turn:
what each network's linear map adds up to for the class, pixel by pixel, and the
colours that it asks for. Networks are those of finished runs, or untrained ones
of a configuration, of which the class is the one that each predicts. From the
project's root:

    python experiments/reproduce/bcos_gallery.py \
      runs/digits_B=1_plain*seed=0 runs/digits_B=2_plain*seed=0
    python experiments/reproduce/bcos_gallery.py imagenet_bcos_resnet50 \
      --model bcos_resnet18 --data-dir DIR --smooth 15 --pictures 6

The second shows the geometry of ImageNet, of weights that nobody has trained:
dots every 32 pixels, since blocks add little yet to shortcuts that see one
pixel in four.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from bort_jax import configs, nn, plots
from bort_jax.report.gather import first_test_pictures, spread
from bort_jax.report.maps import on_white
from bort_jax.train import TrainConfig
from bort_jax.train.comparison import network_of
from bort_jax.train.parallel import make_parallel
from bort_jax.train.report import restore_run
from bort_jax.train.run_dir import read_config
from bort_jax.train.source import Source, make_source
from bort_jax.train.step import to_unit_range


class Shown(NamedTuple):
  """A network of the gallery."""

  config: TrainConfig
  source: Source
  apply_fn: Callable[[Any, jax.Array], jax.Array]
  params: Any
  trained: bool


def main(
  networks: tyro.conf.Positional[tuple[str, ...]],
  model: str | None = None,
  split: str = 'validation',
  pictures: int = 8,
  drawn_from: int = 512,
  smooth: int = 3,
  data_dir: pathlib.Path | None = None,
  output: pathlib.Path | None = None,
) -> None:
  """Draws the gallery.

  Args:
    networks: directories of runs of B-cos networks on one data set, or names of
      configurations.
    model: instead of those of the configurations.
    split: part of the set of configurations that pictures are taken from.
    pictures: how many.
    drawn_from: how many test pictures they are chosen from.
    smooth: side of the window of the pictures in colour.
    data_dir: TFDS directory; of runs, if it is no longer where they found it.
    output: where to write; by default bcos/DATA_MODEL/gallery.png.
  """
  shown = {name: _shown(name, model, split, data_dir) for name in networks}
  first = next(iter(shown.values()))
  test = first_test_pictures(first.source, drawn_from)
  logits = jax.jit(first.apply_fn)(first.params, to_unit_range(test.pixels))
  predicted = np.argmax(logits, 1)
  right = np.flatnonzero((predicted == test.labels) | (not first.trained))
  chosen = right[spread(test.labels[right], pictures)]
  x, target = to_unit_range(test.pixels[chosen]), jnp.asarray(predicted[chosen])
  rows = {'picture': np.asarray(x)}
  for name, network in shown.items():
    label = _label(network)
    label = name if f'{label}\ncontributions' in rows else label
    for kind, drawn in _drawn(network, x, target, smooth).items():
      rows[f'{label}\n{kind}'] = drawn
  config = first.config
  folder = pathlib.Path(__file__).parent / 'bcos'
  output = output or folder / f'{config.data}_{config.model}' / 'gallery.png'
  output.parent.mkdir(parents=True, exist_ok=True)
  plots.picture_grid(rows).savefig(output, dpi=80)
  print(output)


def _drawn(
  network: Shown, x: jax.Array, target: jax.Array, smooth: int
) -> dict[str, np.ndarray]:
  """What a network sees, in two kinds of pictures."""
  found = nn.bcos.explain(network.apply_fn, network.params, x, target)
  maps = np.asarray(found.contribution_map)[..., None]
  colours = nn.bcos.explanation_picture(
    found.weights, found.encoded, smooth=smooth
  )
  return {
    'contributions': plots.map_colors(maps, 'signed') / 255,
    'in colours': on_white(np.asarray(colours)) / 255,
  }


def _label(network: Shown) -> str:
  exponent = network.config.model_options[0].partition('=')[2]
  label = f'B = {float(exponent):g}'
  if not network.trained:
    return f'{label}, untrained'
  bort = network.config.constraint == 'soft'
  return f'{label}, Bort' if bort else label


def _shown(
  name: str, model: str | None, split: str, data_dir: pathlib.Path | None
) -> Shown:
  """A network of a run, which trained one alone, or of a configuration."""
  run = pathlib.Path(name)
  if run.is_dir():
    restored = restore_run(read_config(run, data_dir))
    ((params, stats),) = restored.weights.values()
    config, source = restored.config, restored.source
    merged = restored.network.merge(params, stats)
  else:
    config = configs.load_config(name)
    config = dataclasses.replace(
      config,
      model=model or config.model,
      train_split=split,
      test_split=split,
      batch_size=1,
      num_workers=0,
      data_dir=data_dir,
    )
    source = make_source(config)
    network = network_of(config, source, make_parallel(config))
    merged = network.merge(*network.init())
  return Shown(config, source, *nn.functional(merged), run.is_dir())


if __name__ == '__main__':
  tyro.cli(main)
