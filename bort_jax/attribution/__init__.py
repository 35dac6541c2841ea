"""What of a picture speaks for a class."""

from bort_jax.attribution.completeness import (
  completeness_delta as completeness_delta,
)
from bort_jax.attribution.errors import AttributionError as AttributionError
from bort_jax.attribution.grad_cam import grad_cam as grad_cam
from bort_jax.attribution.grad_cam import (
  grad_cam_plus_plus as grad_cam_plus_plus,
)
from bort_jax.attribution.gradients import gradient as gradient
from bort_jax.attribution.gradients import (
  gradient_times_input as gradient_times_input,
)
from bort_jax.attribution.gradients import smooth_grad as smooth_grad
from bort_jax.attribution.guided import deconvnet as deconvnet
from bort_jax.attribution.guided import guided_backprop as guided_backprop
from bort_jax.attribution.linear import LinearSummary as LinearSummary
from bort_jax.attribution.linear import linear_summary as linear_summary
from bort_jax.attribution.methods import METHODS as METHODS
from bort_jax.attribution.occlusion import occlusion as occlusion
from bort_jax.attribution.paths import (
  IntegratedGradients as IntegratedGradients,
)
from bort_jax.attribution.paths import expected_gradients as expected_gradients
from bort_jax.attribution.paths import (
  integrated_gradients as integrated_gradients,
)
from bort_jax.attribution.paths import (
  integrated_gradients_report as integrated_gradients_report,
)
from bort_jax.attribution.relevance import lrp as lrp
from bort_jax.attribution.rise import rise as rise
