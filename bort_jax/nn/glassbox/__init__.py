"""Models of three layers, each of which can be written down.

After the abstract of Manaswini and Bhatt, `Towards glass-box CNNs
<https://arxiv.org/abs/2101.10443>`_: representation by symmetry, dimension
reduction by PCA, analytical classifiers. Nothing else of that paper is public:
the groups, maps, classifiers and settings here are our reading of it.
"""

from bort_jax.nn.glassbox.classifiers import KNN as KNN
from bort_jax.nn.glassbox.classifiers import LDA as LDA
from bort_jax.nn.glassbox.classifiers import MLP as MLP
from bort_jax.nn.glassbox.classifiers import Logistic as Logistic
from bort_jax.nn.glassbox.classifiers import Ridge as Ridge
from bort_jax.nn.glassbox.errors import GlassBoxError as GlassBoxError
from bort_jax.nn.glassbox.features import CosineBank as CosineBank
from bort_jax.nn.glassbox.features import pixels as pixels
from bort_jax.nn.glassbox.layers import Fitted as Fitted
from bort_jax.nn.glassbox.layers import GlassBoxOutputs as GlassBoxOutputs
from bort_jax.nn.glassbox.model import GlassBox as GlassBox
from bort_jax.nn.glassbox.pca import PCA as PCA
from bort_jax.nn.glassbox.pca import fit_pca as fit_pca
from bort_jax.nn.glassbox.pca import reduce as reduce
from bort_jax.nn.glassbox.representation import represent as represent
