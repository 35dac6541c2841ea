"""The methods that need nothing but a network, pictures and classes."""

import types
from collections.abc import Callable, Mapping

import jax

from bort_jax.attribution.gradients import gradient, gradient_times_input
from bort_jax.attribution.guided import deconvnet, guided_backprop
from bort_jax.attribution.paths import integrated_gradients
from bort_jax.attribution.relevance import lrp
from bort_jax.inversion.backtrack import backtrack

#: By name, ``method(apply_fn, params, x, target) -> (N, H, W, C)``: what a
#: gallery can show of any network. Backtracking is that of
#: :func:`bort_jax.inversion.backtrack`.
METHODS: Mapping[str, Callable[..., jax.Array]] = types.MappingProxyType(
  {
    'gradient': gradient,
    'gradient_times_input': gradient_times_input,
    'integrated_gradients': integrated_gradients,
    'guided_backprop': guided_backprop,
    'deconvnet': deconvnet,
    'lrp': lrp,
    'backtrack': backtrack,
  }
)
