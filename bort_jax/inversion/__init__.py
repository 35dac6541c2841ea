"""Running a network backwards."""

from bort_jax.inversion.backtrack import backtrack as backtrack
from bort_jax.inversion.certificate import Certificate as Certificate
from bort_jax.inversion.certificate import (
  SegmentCertificate as SegmentCertificate,
)
from bort_jax.inversion.certificate import certificate as certificate
from bort_jax.inversion.errors import InversionError as InversionError
from bort_jax.inversion.invert import Inversion as Inversion
from bort_jax.inversion.invert import invert as invert
from bort_jax.inversion.invert import reconstruct as reconstruct
from bort_jax.inversion.layers import Layer as Layer
from bort_jax.inversion.layers import rest as rest
from bort_jax.inversion.layers import segments_before as segments_before
from bort_jax.inversion.layers import until as until
from bort_jax.inversion.report import Segment as Segment
from bort_jax.inversion.saliency import class_saliency as class_saliency
from bort_jax.inversion.saliency import saliency as saliency
from bort_jax.inversion.undo import Method as Method
