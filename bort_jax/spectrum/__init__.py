"""Singular values, how far from orthogonal, and whether a step is safe."""

from bort_jax.spectrum.findings import Finding as Finding
from bort_jax.spectrum.findings import check as check
from bort_jax.spectrum.measure import orthogonality_error as orthogonality_error
from bort_jax.spectrum.measure import singular_values as singular_values
from bort_jax.spectrum.newton_schulz import polish as polish
from bort_jax.spectrum.stability import largest_safe_step as largest_safe_step
