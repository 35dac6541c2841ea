"""How far pictures come back from the features by transposition alone."""

import functools
from typing import Any

import jax
from fitting import Fitted

from bort_jax.inversion import reconstruct, until
from bort_jax.metrics import reconstruction_error
from bort_jax.nn import functional
from bort_jax.train import Dataset
from bort_jax.train.network import Network
from bort_jax.train.step import to_unit_range

_PICTURES = 128


def back_error(
  layer: str, fitted: Fitted, dataset: Dataset
) -> dict[str, float]:
  """Mean relative error of test pictures run to a layer and back.

  Args:
    layer: name of the layer.
    fitted: the network.
    dataset: the pictures.

  Returns:
    ``back_error``, by the published rule: 0 is perfect, 1 what a black picture
    gets. ``solved_error``, the same by least squares: what is there to recover.
  """
  pictures = to_unit_range(dataset.test_images[:_PICTURES])
  run_back = _run_back(fitted.program.network, layer)
  weights = fitted.params, fitted.stats
  return {
    name: float(
      reconstruction_error(
        pictures, run_back(method, *weights, pictures)
      ).raw.mean()
    )
    for name, method in (
      ('back_error', 'published'),
      ('solved_error', 'least_squares'),
    )
  }


@functools.lru_cache(maxsize=4)
def _run_back(network: Network, layer: str) -> Any:
  @functools.partial(jax.jit, static_argnums=0)
  def run(method, params, stats, pictures):
    outputs, values = functional(network.merge(params, stats), 'intermediates')
    features = until(outputs, layer)
    return reconstruct(features, values, pictures, method=method).x

  return run
