"""Bort for JAX: networks whose layers can be read and run backwards."""

from bort_jax import spectrum as spectrum
from bort_jax.matrices import MatrixAxes as MatrixAxes
from bort_jax.optimizers import bort_adamw as bort_adamw
from bort_jax.optimizers import bort_lamb as bort_lamb
from bort_jax.optimizers import bort_muon as bort_muon
from bort_jax.optimizers import bort_sgd as bort_sgd
from bort_jax.retraction import keep_orthogonal as keep_orthogonal
from bort_jax.selection import default_rule as default_rule
from bort_jax.transform import bort as bort

__version__ = '0.1.0'
