"""Adversarial pictures, and where their changes lie."""

from bort_jax.attacks.ensemble import ensemble as ensemble
from bort_jax.attacks.errors import AttackError as AttackError
from bort_jax.attacks.gradient import fgsm as fgsm
from bort_jax.attacks.gradient import least_likely as least_likely
from bort_jax.attacks.gradient import pgd as pgd
from bort_jax.attacks.measures import Share as Share
from bort_jax.attacks.measures import foreground as foreground
from bort_jax.attacks.measures import low_frequency_share as low_frequency_share
from bort_jax.attacks.measures import object_share as object_share
from bort_jax.attacks.prototypes import class_prototypes as class_prototypes
from bort_jax.attacks.result import Attack as Attack
from bort_jax.attacks.synthesize import Synthesis as Synthesis
from bort_jax.attacks.synthesize import synthesize as synthesize
