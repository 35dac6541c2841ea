"""Figures of runs and explanations.

Each function returns a matplotlib figure, neither shown nor saved.
"""

from bort_jax.plots.attributions import attribution_grid as attribution_grid
from bort_jax.plots.attributions import (
  attribution_overlay as attribution_overlay,
)
from bort_jax.plots.colors import map_colors as map_colors
from bort_jax.plots.components import (
  symmetry_components as symmetry_components,
)
from bort_jax.plots.curves import perturbation_curves as perturbation_curves
from bort_jax.plots.labels import label_of as label_of
from bort_jax.plots.pictures import best_scale as best_scale
from bort_jax.plots.pictures import inversions as inversions
from bort_jax.plots.pictures import picture_grid as picture_grid
from bort_jax.plots.pictures import reconstructions as reconstructions
from bort_jax.plots.training import comparison_figures as comparison_figures
from bort_jax.plots.training import (
  singular_values_over_training as singular_values_over_training,
)
from bort_jax.plots.training import training_curves as training_curves
