"""Groups that move pictures, and what pictures are made of under them."""

from bort_jax.symmetry.actions import act as act
from bort_jax.symmetry.actions import orbit as orbit
from bort_jax.symmetry.errors import SymmetryError as SymmetryError
from bort_jax.symmetry.groups import C4 as C4
from bort_jax.symmetry.groups import D4 as D4
from bort_jax.symmetry.groups import Group as Group
from bort_jax.symmetry.groups import Rotations as Rotations
from bort_jax.symmetry.groups import Shifts as Shifts
from bort_jax.symmetry.isotypic import join as join
from bort_jax.symmetry.isotypic import split as split
