"""Measures that judge what explains a network."""

from bort_jax.metrics import neurons as neurons
from bort_jax.metrics.class_spread import ClassSpread as ClassSpread
from bort_jax.metrics.class_spread import Separability as Separability
from bort_jax.metrics.completeness import Completeness as Completeness
from bort_jax.metrics.completeness import completeness as completeness
from bort_jax.metrics.complexity import complexity as complexity
from bort_jax.metrics.complexity import sparseness as sparseness
from bort_jax.metrics.control import CONTROL as CONTROL
from bort_jax.metrics.control import Comparison as Comparison
from bort_jax.metrics.control import compare as compare
from bort_jax.metrics.control import random_attribution as random_attribution
from bort_jax.metrics.conventions import Convention as Convention
from bort_jax.metrics.envelope import Envelope as Envelope
from bort_jax.metrics.envelope import certified_envelope as certified_envelope
from bort_jax.metrics.equivariance import Equivariance as Equivariance
from bort_jax.metrics.equivariance import equivariance as equivariance
from bort_jax.metrics.errors import MetricError as MetricError
from bort_jax.metrics.faithfulness import (
  FaithfulnessCorrelation as FaithfulnessCorrelation,
)
from bort_jax.metrics.faithfulness import (
  faithfulness_correlation as faithfulness_correlation,
)
from bort_jax.metrics.grid_pointing import draw_mosaics as draw_mosaics
from bort_jax.metrics.grid_pointing import grid_pointing as grid_pointing
from bort_jax.metrics.grid_pointing import (
  grid_pointing_game as grid_pointing_game,
)
from bort_jax.metrics.grid_pointing import mosaic as mosaic
from bort_jax.metrics.group_transport import (
  GroupTransport as GroupTransport,
)
from bort_jax.metrics.infidelity import GaussianNoise as GaussianNoise
from bort_jax.metrics.infidelity import Infidelity as Infidelity
from bort_jax.metrics.infidelity import SquareRemoval as SquareRemoval
from bort_jax.metrics.infidelity import infidelity as infidelity
from bort_jax.metrics.localisation import pointing_game as pointing_game
from bort_jax.metrics.localisation import (
  relevance_mass_accuracy as relevance_mass_accuracy,
)
from bort_jax.metrics.localisation import (
  relevance_rank_accuracy as relevance_rank_accuracy,
)
from bort_jax.metrics.perturbation import PerturbationCurve as PerturbationCurve
from bort_jax.metrics.perturbation import deletion as deletion
from bort_jax.metrics.perturbation import insertion as insertion
from bort_jax.metrics.randomization import (
  ParameterRandomization as ParameterRandomization,
)
from bort_jax.metrics.randomization import (
  parameter_randomization as parameter_randomization,
)
from bort_jax.metrics.reconstruction import (
  ReconstructionError as ReconstructionError,
)
from bort_jax.metrics.reconstruction import (
  reconstruction_error as reconstruction_error,
)
from bort_jax.metrics.sensitivity import MaxSensitivity as MaxSensitivity
from bort_jax.metrics.sensitivity import max_sensitivity as max_sensitivity
from bort_jax.metrics.separability import separability as separability
from bort_jax.metrics.silhouette import silhouette as silhouette
from bort_jax.metrics.ssim import ssim as ssim
from bort_jax.metrics.substrate import blurred as blurred
