"""Units of a network: what activates them, real and adversarial.

After "Towards Interpretable Deep Neural Networks by Leveraging Adversarial
Examples" (Dong et al., `2017 <https://arxiv.org/abs/1708.05493>`_ and `2019
<https://arxiv.org/abs/1901.09035>`_). Only the abstracts and descriptions by
others are public. Found there: units are looked at by the pictures that
activate them most; their consistency is measured with a tree of classes, and
likeness by a cosine and a relative distance; adversarial pictures come from
several networks at once; influential units are found by a prediction
difference. Not found, and here our own reading: the share of top pictures, the
affinity of classes, the layers, all constants and every number.
"""

from bort_jax.metrics.neurons.bounds import layer_bounds as layer_bounds
from bort_jax.metrics.neurons.built_in import ClassTree as ClassTree
from bort_jax.metrics.neurons.built_in import class_affinity as class_affinity
from bort_jax.metrics.neurons.built_in import class_tree as class_tree
from bort_jax.metrics.neurons.class_tree import affinity as affinity
from bort_jax.metrics.neurons.class_tree import (
  class_distances as class_distances,
)
from bort_jax.metrics.neurons.class_tree import (
  read_class_tree as read_class_tree,
)
from bort_jax.metrics.neurons.consistency import chance as chance
from bort_jax.metrics.neurons.consistency import (
  class_distribution as class_distribution,
)
from bort_jax.metrics.neurons.consistency import consistency as consistency
from bort_jax.metrics.neurons.found import PairSurvey as PairSurvey
from bort_jax.metrics.neurons.found import Survey as Survey
from bort_jax.metrics.neurons.found import merged as merged
from bort_jax.metrics.neurons.influence import influence as influence
from bort_jax.metrics.neurons.likeness import Likeness as Likeness
from bort_jax.metrics.neurons.summary import (
  SUMMARY_HEADINGS as SUMMARY_HEADINGS,
)
from bort_jax.metrics.neurons.summary import LayerSummary as LayerSummary
from bort_jax.metrics.neurons.summary import (
  lost_consistency as lost_consistency,
)
from bort_jax.metrics.neurons.summary import summarize as summarize
from bort_jax.metrics.neurons.summary import summary_cells as summary_cells
from bort_jax.metrics.neurons.summary import summary_table as summary_table
from bort_jax.metrics.neurons.survey import survey as survey
from bort_jax.metrics.neurons.survey import survey_pairs as survey_pairs
from bort_jax.metrics.neurons.top import Units as Units
