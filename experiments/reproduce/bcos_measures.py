"""What one B-cos network is judged by."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from bcos_angles import cosines_of, largest_cosine
from bcos_scope import COSINE, GRIDS, Scope, among

from bort_jax import attribution, inversion, metrics, nn
from bort_jax.train.network import Network
from bort_jax.train.source import Source
from bort_jax.train.step import to_unit_range

OWN, RANDOM = 'B-cos', metrics.CONTROL
_SEED = 42  # of the published mosaics
_AT_ONCE = 16  # mosaics and their classes
_LAST = 'last'  # of the stages


class Judge:
  """Judges networks that differ in their weights alone.

  Args:
    network: its pure functions.
    source: the data.
    exponent: B.
    scope: how much is judged.
  """

  def __init__(
    self, network: Network, source: Source, exponent: float, scope: Scope
  ):
    self.network, self.scope, self.exponent = network, scope, exponent
    parts = [
      (images[mask], labels[mask]) for images, labels, mask in source.test()
    ]
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    self.images, self.labels = images, labels
    self.logits = lambda weights, x: network.apply(*weights, x)
    self.outputs = lambda weights, x: _named(network.merge(*weights), x)
    self.batch_logits = jax.jit(self.logits)
    self.cosines = jax.jit(
      lambda weights, x: cosines_of(network.merge(*weights), x)
    )
    shapes = jax.eval_shape(
      self.outputs, network.init(), to_unit_range(images[:1])
    )
    stages = [name for name in shapes if name.startswith('stage')]
    self.last = max(stages, key=_numbers)
    self.own = bcos_map
    known = {
      'gradient × input': attribution.gradient_times_input,
      'integrated gradients': functools.partial(
        attribution.integrated_gradients, steps=scope.steps
      ),
      'Grad-CAM': self._grad_cam,
      'guided backprop': attribution.guided_backprop,
    }
    self.posthoc = {name: known[name] for name in scope.posthoc}

  def measures(self, params: Any, stats: Any) -> dict[str, Callable[[], Any]]:
    """What is measured of one network, by name; results are ready for JSON."""
    weights = params, stats
    logits = functools.cache(lambda: self._all_logits(weights))
    return {
      COSINE: lambda: largest_cosine(params),
      'alignment': lambda: self._alignment(weights),
      **{
        f'localisation {grid}': lambda grid=grid: self._localisation(
          weights, logits(), grid
        )
        for grid in GRIDS
      },
      **{
        among(grid): lambda grid=grid: self._own_among(weights, logits(), grid)
        for grid in GRIDS
      },
      'perturbation': lambda: self._perturbation(weights, logits()),
      **{
        f'back from {layer}': lambda layer=layer: self._reconstruction(
          weights, layer
        )
        for layer in self.scope.layers
      },
    }

  def _all_logits(self, weights) -> np.ndarray:
    return np.concatenate(
      [
        self.batch_logits(weights, to_unit_range(self.images[i : i + 250]))
        for i in range(0, len(self.images), 250)
      ]
    )

  def _pictures(self, count: int) -> jax.Array:
    return to_unit_range(self.images[:count])

  def _grad_cam(self, apply_fn, weights, x, target) -> jax.Array:
    del apply_fn  # layers are named by another function of the same weights
    return attribution.grad_cam(
      self.outputs, weights, x, target, layer=self.last
    )

  def _mosaics(self, logits, grid: int) -> np.ndarray:
    return metrics.draw_mosaics(
      logits,
      self.labels,
      key=jax.random.key(_SEED),
      grid=grid,
      count=self.scope.mosaics,
      confidence=self.scope.confidence,
    )

  def _own_among(self, weights, logits, grid: int) -> dict[str, Any]:
    """The network's own explanations, on the mosaics of post-hoc methods."""
    try:
      layout = self._mosaics(logits, grid)
    except metrics.MetricError as error:
      return {'why': str(error)}
    return self._play(weights, self.own, layout[: self.scope.posthoc_mosaics])

  def _localisation(self, weights, logits, grid: int) -> dict[str, Any]:
    try:
      layout = self._mosaics(logits, grid)
    except metrics.MetricError as error:
      return {'why': str(error)}
    few = layout[: self.scope.posthoc_mosaics]
    play = functools.partial(self._play, weights)
    return {
      OWN: play(self.own, layout),
      **{name: play(m, few) for name, m in self.posthoc.items()},
      RANDOM: play(random_map, few),
    }

  def _play(self, weights, method, layout: np.ndarray) -> dict[str, Any]:
    size = max(1, _AT_ONCE // layout.shape[1])
    filled = np.resize(
      layout, (-(-len(layout) // size) * size, layout.shape[1])
    )
    scores = []
    for rows in filled.reshape(-1, size, layout.shape[1]):
      numbers = rows.ravel()
      order = np.arange(len(numbers)).reshape(rows.shape)
      try:
        found = metrics.grid_pointing_game(
          method,
          self.logits,
          weights,
          to_unit_range(self.images[numbers]),
          self.labels[numbers],
          order,
          smooth=self.scope.smooth,
          chunk=rows.size,
        )
      except attribution.AttributionError as error:
        return {'why': str(error)}
      scores.append(np.asarray(found))
    return spread_of(np.concatenate(scores)[: len(layout)].ravel())

  def _perturbation(self, weights, logits) -> dict[str, Any]:
    """Areas under the probability, of coded pictures whose pixels go to 0."""
    right = np.flatnonzero(logits.argmax(1) == self.labels)
    chosen = right[: self.scope.perturbed]
    target = jnp.asarray(self.labels[chosen])
    x = nn.bcos.add_inverse(to_unit_range(self.images[chosen]))
    rows = {}
    for name, method in {
      OWN: self.own,
      **self.posthoc,
      RANDOM: random_map,
    }.items():
      try:
        maps = method(self.logits, weights, x, target)
      except attribution.AttributionError as error:
        rows[name] = {'why': str(error)}
        continue
      area = lambda first, maps=maps: (
        metrics.deletion(
          self.logits, weights, x, target, maps, steps=16, first=first
        ).auc
      )
      rows[name] = {
        'least first': spread_of(np.asarray(area('smallest'))),
        'most first': spread_of(np.asarray(area('largest'))),
      }
    return rows

  def _alignment(self, weights) -> dict[str, Any]:
    """Mean |cos| of all units and of each place's best, and of each layer."""
    found = self.cosines(weights, self._pictures(self.scope.perturbed))
    layers = {
      name: [float(c.mean()), float(c.max(-1).mean())]
      for name, c in found.items()
    }
    every, best = np.mean(list(layers.values()), axis=0).tolist()
    return {'all': every, 'best': best, 'layers': layers}

  def _reconstruction(self, weights, layer: str) -> dict[str, Any]:
    x = self._pictures(self.scope.inverted)
    try:
      found = inversion.reconstruct(
        inversion.until(self.outputs, self.last if layer == _LAST else layer),
        weights,
        x,
        max_steps=self.scope.max_steps,
      )
    except inversion.InversionError as error:
      return {'why': str(error)}
    error = metrics.reconstruction_error(x, found.x)
    return {
      'raw': spread_of(np.asarray(error.raw)),
      'residual': spread_of(np.asarray(found.residual)),
    }


def bcos_map(apply_fn, params, x, target) -> jax.Array:
  """The contribution map of a network's own explanation."""
  found = nn.bcos.explain(apply_fn, params, x, target)
  return found.contribution_map[..., None]


def random_map(apply_fn, params, x, target) -> jax.Array:
  """A map that knows nothing."""
  del apply_fn, params, target
  return metrics.random_attribution(jax.random.key(0), x)


def spread_of(values: np.ndarray) -> dict[str, float | int | None]:
  """Mean, median, standard error and number of what is defined."""
  defined = values[np.isfinite(values)].astype(np.float64)
  count = len(defined)
  error = defined.std(ddof=1) / count**0.5 if count > 1 else None
  return {
    'mean': _rounded(defined.mean() if count else None),
    'median': _rounded(np.median(defined) if count else None),
    'standard error': _rounded(error),
    'count': count,
    'undefined': len(values) - count,
  }


def _numbers(name: str) -> list[int]:
  return [int(number) for number in re.findall(r'\d+', name)]


def _rounded(value: Any) -> float | None:
  return None if value is None else float(f'{value:.5g}')


def _named(model: Any, x: jax.Array) -> dict[str, jax.Array]:
  return model.intermediates(x)
